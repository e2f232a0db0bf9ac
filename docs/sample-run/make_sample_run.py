"""Run the whole plan once in a temporary clone, and keep what it shows below docs/sample-run/.

    make_clone      a clone of HEAD whose plan says `"sample": true`
    run_all         `make next`, then the approval of each phase, typed by `approve`
    require_clean   the audit of the clone, and every feature verified
    keep            site, reports, figures and record, with machine, date and commit

It approves for nobody. The clone's GENESIS records that this is a sample run, every record and
view of it says so, and `approve` works in no other repository than the clone of this very process.

    python docs/sample-run/make_sample_run.py      (in the background: it takes some two hours)
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pexpect

from lab.synthesis.site.command import lay_out

REPOSITORY = Path(__file__).resolve().parents[2]
PLAN = "prd/llm-learning-lab.json"
MARK = "phases-sample-run"
"""File in the clone's `.git` that holds this process's token."""
PROMPT = r"type exactly:  ([^\r\n]+)\r?\n> "
ASSURANCE = "assurance: scripted (sample run, approved by no human)"
MAX_BYTES = 10_000_000  # of all that is kept
MAX_RUNS = 3
"""How often a phase is run before a failure ends the sample run."""
KEPT = ("report.md", "result.json", "receipt.json")


class SampleRunError(Exception):
    """The sample run cannot go on; the message says why and what to do."""


@dataclass
class Clone:
    """The temporary clone; only `make_clone` makes one, and its token is in no file but its own."""

    folder: Path
    base: str
    """The commit that was cloned."""
    token: str
    minutes: dict[int, float] = field(default_factory=dict)
    """Phase -> wall time."""

    @property
    def python(self) -> Path:
        """The Python of the clone's own virtual environment."""
        return self.folder / ".venv/bin/python"

    def git(self, *arguments: str) -> str:
        """Run git in the clone."""
        return git(self.folder, *arguments)

    def phases(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m phases …` in the clone, without a terminal."""
        return subprocess.run(
            [str(self.python), "-m", "phases", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )

    def require_own(self) -> None:
        """Refuse a folder that is not the clone that this process made for a sample run."""
        mark = self.folder / ".git" / MARK
        is_marked = mark.is_file() and mark.read_text("utf-8") == self.token
        plan = json.loads((self.folder / PLAN).read_text("utf-8"))
        genesis = (self.folder / "progress.txt").read_text("utf-8").partition("· LOCKED")[0]
        if not is_marked or plan.get("sample") is not True or f"- {ASSURANCE}\n" not in genesis:
            msg = f"{self.folder} is not the clone of this sample run; nothing was approved"
            raise SampleRunError(msg)


def main() -> None:
    """Make a sample run of HEAD; exit 1 with one line where it cannot be completed."""
    try:
        sample_run(REPOSITORY, REPOSITORY / "docs/sample-run")
    except SampleRunError as error:
        sys.exit(f"error: {error}")


def sample_run(repository: Path, target: Path) -> None:
    """Run the plan of a repository's HEAD in a clone, and keep the sample below `target`."""
    clone = make_clone(repository)
    say(f"{ASSURANCE}\nclone of {clone.base[:12]} in {clone.folder}")
    run_all(clone)
    require_clean(clone)
    keep(clone, target)
    shutil.rmtree(clone.folder)
    say(f"kept in {target}; next: look at it, then git add {target.name} and commit")


#### the clone


def make_clone(repository: Path) -> Clone:
    """Return a clone of HEAD, with a plan that says that this is a sample run.

    Raises:
        SampleRunError: the work tree has changes, or the record has entries already.
    """
    # 1. The commit alone is what a sample can show.
    if git(repository, "status", "--porcelain"):
        msg = f"{repository} has uncommitted changes; commit them: a sample run is one of a commit"
        raise SampleRunError(msg)
    if "\n### " in git(repository, "show", "HEAD:progress.txt"):
        msg = "progress.txt of HEAD has entries; a sample run begins with none: use a clone of main"
        raise SampleRunError(msg)

    # 2. The clone, with an identity of its own.
    folder = Path(tempfile.mkdtemp(prefix="phases-sample-run-"))
    git(repository, "clone", "-q", "--no-hardlinks", str(repository), str(folder))
    clone = Clone(folder, git(folder, "rev-parse", "HEAD"), secrets.token_hex(32))
    clone.git("config", "user.name", "sample run (a script)")
    clone.git("config", "user.email", "sample-run@localhost")
    (folder / ".git" / MARK).write_text(clone.token, "utf-8")

    # 3. Its plan: one line more.
    plan = (folder / PLAN).read_text("utf-8")
    changed = plan.replace('"schema": 1,', '"schema": 1,\n "sample": true,', 1)
    if json.loads(changed) != {**json.loads(plan), "sample": True}:
        msg = f'{PLAN}: expected it to begin with "schema": 1'
        raise SampleRunError(msg)
    (folder / PLAN).write_text(changed, "utf-8")
    clone.git("commit", "-q", "-m", "A sample run: its approvals are typed by a script", PLAN)
    return clone


#### the run


def run_all(clone: Clone) -> None:
    """Run phase after phase, and approve each, until nothing is left to do.

    Raises:
        SampleRunError: a phase did not come to its checkpoint.
    """
    runs: dict[int, int] = {}  # phase -> how often it was run
    while (step := next_step(clone))["action"] != "done":
        phase = step["phase"]
        if step["action"] == "approve" and step["feature"] is None:
            approve(clone, phase)
            continue
        runs[phase] = runs.get(phase, 0) + 1
        if step["action"] != "run" or runs[phase] > MAX_RUNS:
            # An approver would decide here; a script has nothing to decide by.
            msg = f"phase {phase} did not come to its checkpoint; see {clone.folder}"
            raise SampleRunError(msg)
        run_phase(clone, phase)


def next_step(clone: Clone) -> dict[str, Any]:
    """Return the next step of the clone's record; before its environment exists, a run of 1."""
    if not clone.python.exists():
        return {"action": "run", "phase": 1, "feature": None}
    status = clone.phases("status", "--json")
    if status.returncode:
        raise SampleRunError(status.stderr.strip())
    step: dict[str, Any] = json.loads(status.stdout)["next"]
    return step


def run_phase(clone: Clone, phase: int) -> None:
    """Run a phase as the README says: `make next`."""
    say(f"phase {phase}: make next")
    began = time.monotonic()
    subprocess.run(["make", "next"], cwd=clone.folder, check=False, stdin=subprocess.DEVNULL)
    minutes = (time.monotonic() - began) / 60
    clone.minutes[phase] = clone.minutes.get(phase, 0) + minutes


def approve(clone: Clone, phase: int) -> None:
    """Type the approval of a phase at a pseudo-terminal, in the clone of this process alone.

    Raises:
        SampleRunError: it is another repository, or the approval was refused.
    """
    clone.require_own()
    child = pexpect.spawn(
        str(clone.python),
        ["-m", "phases", "approve", str(phase)],
        cwd=str(clone.folder),
        encoding="utf-8",
        timeout=600,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    if child.expect([PROMPT, pexpect.EOF]) == 0:
        child.sendline(child.match[1])
        child.expect(pexpect.EOF)
    child.close()
    if child.exitstatus != 0:
        msg = f"the approval of phase {phase} was refused:\n{child.before.strip()}"
        raise SampleRunError(msg)
    say(f"phase {phase}: approved by this script")


#### what is kept


def require_clean(clone: Clone) -> None:
    """Refuse to keep a run whose audit finds anything, or in which a feature is not verified."""
    audit = clone.phases("audit")
    say(audit.stdout.strip())
    if audit.returncode or not audit.stdout.startswith(ASSURANCE):
        msg = f"the audit of {clone.folder} is not clean:\n{audit.stdout}{audit.stderr}"
        raise SampleRunError(msg)
    for feature in features(clone):
        if feature["state"] != "verified":
            raise SampleRunError(f"{feature['id']} is {feature['state']}; see {clone.folder}")


def features(clone: Clone) -> list[dict[str, Any]]:
    """Return what `status --json` says of each feature."""
    phases = json.loads(clone.phases("status", "--json").stdout)["phases"]
    found = []
    for phase in phases:
        found += phase["features"]
    return found


def keep(clone: Clone, target: Path) -> None:
    """Write site, reports, figures and record below `target`, in place of an older sample.

    Raises:
        SampleRunError: it is more than MAX_BYTES.
    """
    # 1. The record, and of each feature what readers and `lab compare` need.
    results = clone.folder / json.loads((clone.folder / PLAN).read_text("utf-8"))["results"]
    new = Path(tempfile.mkdtemp(prefix="phases-sample-"))
    shutil.copy(clone.folder / "progress.txt", new)
    shutil.copytree(clone.folder / "prd/approvals", new / "approvals")
    shutil.copy(clone.folder / PLAN, new / "plan.json")
    ran = features(clone)
    for feature in ran:
        folder = results / feature["id"]
        kept = new / "results" / feature["id"]
        kept.mkdir(parents=True)
        for name in KEPT:
            if (folder / name).is_file():
                shutil.copy(folder / name, kept)
    lay_out(clone.folder, new / "site")
    (new / "README.md").write_text(page(clone, ran, results, new), "utf-8")

    # 2. Its size.
    size = sum(path.stat().st_size for path in new.rglob("*") if path.is_file())
    if size > MAX_BYTES:
        msg = f"the sample in {new} has {size:,} bytes; expected at most {MAX_BYTES:,}"
        raise SampleRunError(msg)

    # 3. In the place of the older one; this script stays.
    for old in target.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
        elif old.name != Path(__file__).name:
            old.unlink()
    shutil.copytree(new, target, dirs_exist_ok=True)
    shutil.rmtree(new)


def page(clone: Clone, ran: list[dict[str, Any]], results: Path, new: Path) -> str:
    """Return README.md of the sample below `new`: what ran where, how long, what became of it."""
    rows, host, packages = [], {}, {}
    for feature in ran:
        folder = results / feature["id"]
        receipt = json.loads((folder / "receipt.json").read_text("utf-8"))
        verdict = json.loads((folder / "verdict.json").read_text("utf-8"))
        byproducts = receipt["predicate"]["runDetails"]["byproducts"]
        contents = {item["name"]: item.get("content") for item in byproducts}
        host, packages, process = contents["host"], contents["packages"], contents["process"]
        gate = verdict["predicate"]["phases/gate/v1"]
        scores = [item["outcome"] for item in verdict["predicate"]["phases/predictions/v1"]]
        coverage = gate["measurementCoverage"]
        judged = len(coverage["recomputed"]) + len(coverage["bounded"])
        total = judged + len(coverage["claimed"])
        mutants = [mutant for mutant in gate["mutants"] if mutant["kind"] != "content"]
        first = f"results/{feature['id']}/report.md"  # in the site it has its figures too
        if (new / f"site/{feature['id']}.html").is_file():
            first = f"site/{feature['id']}.html"
        rows.append(
            f"| [{feature['id']}]({first}) {feature['title']} "
            f"| {process['seconds']:,.0f} | {gate['seconds']['all']:,.0f} "
            f"| {process['peakMemoryBytes'] / 1e9:.1f} "
            f"| {scores.count('HELD')} / {scores.count('MISSED')} / {scores.count('INCONCLUSIVE')} "
            f"| {judged} of {total} | {sum(m['killed'] for m in mutants)} of {len(mutants)} |"
        )
    minutes = ", ".join(f"phase {phase}: {took:.0f}" for phase, took in clone.minutes.items())
    date = clone.git("log", "-1", "--format=%cs")
    return "\n".join(
        [
            "# A sample run",
            "",
            f"**{ASSURANCE}**",
            "",
            "One run of the whole plan, made by `make sample-run` in a temporary clone. A script",
            "typed the approvals, so that you can see what a run gives before you make your own;",
            "no human has approved anything here. Open [the site](site/index.html) first: it has",
            "every report with its figures.",
            "",
            f"- commit {clone.base}, finished on {date}",
            f"- machine: {processor()}, {host['cpus']} cores, "
            f"{host['memoryBytes'] / 2**30:.0f} GiB, {host['system']}, Python {host['python']}",
            f"- {library_line(packages)}",
            f"- minutes of `make next`, installation and mutants included: {minutes}",
            "- the [record](progress.txt), the [plan](plan.json), the decisions in `approvals/`",
            "- `python -m lab compare docs/sample-run` holds your own results against these",
            "",
            "| feature | s | gate and mutants, s | GB | predictions held / missed / inconclusive "
            "| measurements judged | mutants killed |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def library_line(packages: dict[str, str]) -> str:
    """Return the versions that a result depends on most."""
    names = ("torch", "transformers", "peft", "bitsandbytes")
    return ", ".join(f"{name} {packages[name]}" for name in names)


def processor() -> str:
    """Return the processor's name, and which matrix instructions it has."""
    text = Path("/proc/cpuinfo").read_text("utf-8")
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {flag}" in text]
    return f"{names[0] if names else 'unknown'} ({', '.join(flags)})"


#### what these share


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder and return what it printed."""
    process = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if process.returncode:
        command = " ".join(arguments)
        raise SampleRunError(f"git {command} in {folder}: {process.stderr.strip()}")
    return process.stdout.strip()


def say(text: str) -> None:
    """Print a line at once: whoever waits two hours looks at a log."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
