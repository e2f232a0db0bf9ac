"""FEAT-004, experiment template: does a copy of it run, repeat itself and refuse misuse?

Path: a copy of the template in a scratch folder -> `measure` (three runs, three misuses) -> `store`
(what they wrote) -> `summarise` (the numbers) -> findings, table and figure.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lab
from lab import present
from lab.contract import Context, ContractError, Experiment, Measurement, Outcome, Table, main
from lab.digests import digest_of

EXPERIMENT = Experiment(
    title="Experiment template",
    question=(
        "Does a new experiment, made by copying the template and nothing else, run and keep the "
        "contract?"
    ),
    hypothesis=(
        "Yes: it runs by its own command line outside this repository, writes a complete result, "
        "repeats its numbers under the same seed and gives others under another seed, and refuses "
        "a wrong profile and a used output folder."
    ),
    method=(
        "EXPERIMENT_TEMPLATE.py and its config are copied under a new name into an empty scratch "
        "folder and started there in new processes: three runs (the seed twice, the next seed "
        "once), then three misuses (an unknown profile, an output folder in use, a config without "
        "profiles) as the control that must be refused."
    ),
    headline=("runs_ended_well", "misuses_refused", "same_seed_same_numbers", "source_lines"),
    packages=("torch", "transformers"),
)
NAME = "first_experiment"
RUNS = ("template", "repeated", "other_seed")
HIDDEN = {"PHASES_EVENTS", "PHASES_INPUTS"}  # this run's progress and inputs are not the new one's


@dataclass(frozen=True)
class TemplateObservations:
    """What the copies did: exit codes of the runs, the misuses, result.json of each run.

    A misuse is {"tried", "exit_code", "error"}.
    """

    exit_codes: list[int]
    misuses: list[dict[str, Any]]
    results: dict[str, dict[str, Any]]


def run(ctx: Context) -> Outcome:
    """Copy the template, run and misuse the copy, and store what it wrote below artifacts/."""
    artifacts = ctx.out / "artifacts"
    copy_template(artifacts / "source")
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        shutil.copytree(artifacts / "source", scratch, dirs_exist_ok=True)
        observations = measure(ctx, scratch)
        store(artifacts, scratch, observations)
    measurements = summarise(artifacts, observations)
    ctx.progress(len(RUNS) + 1, len(RUNS) + 1, "checked")
    return Outcome(
        measurements,
        tables=[table(observations.results)],
        findings=findings(measurements),
        figures=[figure(observations.results)],
    )


def copy_template(folder: Path) -> None:
    """Copy the template and its config under the new name."""
    folder.mkdir(parents=True)
    for suffix in (".py", ".yaml"):
        template = Path(lab.__file__).with_name(f"EXPERIMENT_TEMPLATE{suffix}")
        shutil.copyfile(template, folder / f"{NAME}{suffix}")


def measure(ctx: Context, scratch: Path) -> TemplateObservations:
    """Run and misuse the copy in the scratch folder."""
    exit_codes = run_all(ctx, scratch)
    misuses = misuse(scratch, ctx.config["template_profile"])
    results = {}
    for name in RUNS:
        results[name] = json.loads((scratch / name / "result.json").read_text("utf-8"))
    return TemplateObservations(exit_codes, misuses, results)


def run_all(ctx: Context, scratch: Path) -> list[int]:
    """Start the runs, two at a time, and return their exit codes.

    Most of a run is loading libraries on one core.

    Raises:
        ContractError: a run failed.
    """
    profile = ctx.config["template_profile"]
    seeds = {"template": ctx.seed, "repeated": ctx.seed, "other_seed": ctx.seed + 1}
    codes: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        processes = pool.map(lambda name: start(scratch, name, profile, seeds[name]), RUNS)
        for name, process in zip(RUNS, processes, strict=True):
            if process.returncode != 0:
                msg = (
                    f"the template's run {name!r} ended with exit code {process.returncode}:\n"
                    f"{process.stderr}"
                )
                raise ContractError(msg)
            codes.append(process.returncode)
            ctx.progress(len(codes), len(RUNS) + 1, f"{name} ran")
    return codes


def start(
    scratch: Path, out: str, profile: str, seed: int, config: str = f"{NAME}.yaml"
) -> subprocess.CompletedProcess[str]:
    """Run the experiment by its own command line in the scratch folder."""
    command = [sys.executable, "-m", NAME, "--config", config, "--profile", profile]
    command += ["--seed", str(seed), "--out", out]
    variables = {name: text for name, text in os.environ.items() if name not in HIDDEN}
    # The copy imports the lab from outside the repository.
    variables["PYTHONPATH"] = str(Path(lab.__file__).parent.parent)
    return subprocess.run(
        command,
        cwd=scratch,
        env=variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def misuse(scratch: Path, profile: str) -> list[dict[str, Any]]:
    """Start the experiment wrongly in three ways.

    Return each try, its exit code and the last line of its error.
    """
    (scratch / "empty.yaml").write_text("common: {}\n", "utf-8")
    processes = {
        "an unknown profile": start(scratch, "refused", "no-such-profile", 0),
        "an output folder in use": start(scratch, RUNS[0], profile, 0),
        "a config without profiles": start(scratch, "refused", profile, 0, "empty.yaml"),
    }
    misuses = []
    for name, process in processes.items():
        error = (process.stderr.splitlines() or [""])[-1]
        # A temporary folder has another name in every run.
        error = error.replace(f"{scratch.resolve()}/", "")
        misuses.append({"tried": name, "exit_code": process.returncode, "error": error})
    return misuses


def store(artifacts: Path, scratch: Path, observations: TemplateObservations) -> None:
    """Write the outputs of the runs and the refusals."""
    for name in RUNS:
        shutil.copytree(scratch / name, artifacts / name)
    refusals = json.dumps(observations.misuses, indent=1) + "\n"
    (artifacts / "refusals.json").write_text(refusals, "utf-8")


def summarise(artifacts: Path, observations: TemplateObservations) -> dict[str, Measurement]:
    """Return the measurements; the template's own have `template_` before their names."""
    results = observations.results
    first = results["template"]
    losses = {name: result["measurements"]["loss"]["values"] for name, result in results.items()}
    source = (artifacts / "source" / f"{NAME}.py").read_text("utf-8")
    files_with_right_digest = 0
    for name, digest in first["files"].items():
        files_with_right_digest += digest_of(artifacts / "template" / name) == digest
    misuses_refused = 0
    for attempt in observations.misuses:
        misuses_refused += attempt["exit_code"] == 2 and attempt["error"].startswith("error: ")

    counts = {
        "runs": len(observations.exit_codes),
        "runs_ended_well": observations.exit_codes.count(0),
        "misuses": len(observations.misuses),
        "misuses_refused": misuses_refused,
        "files_with_right_digest": files_with_right_digest,
        "files_listed": len(first["files"]),
        "source_lines": len(source.splitlines()),
        "same_seed_same_numbers": first["measurements"] == results["repeated"]["measurements"],
        "values_shared_with_other_seed": len(set(losses["template"]) & set(losses["other_seed"])),
    }
    measurements = {name: Measurement.of_exact(count) for name, count in counts.items()}
    for name, raw in first["measurements"].items():
        measurements[f"template_{name}"] = Measurement.from_json(raw)
    return measurements


def table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return what the three runs measured, side by side."""
    rows = []
    for name in results["template"]["measurements"]:
        values = [results[run_name]["measurements"][name]["value"] for run_name in RUNS]
        rows.append((name, *values))
    columns = ("measurement", *(run_name.replace("_", " ") for run_name in RUNS))
    return Table("Measurements of the three runs", columns, tuple(rows))


def findings(measurements: Mapping[str, Measurement]) -> tuple[str, ...]:
    """Return the sentences that the numbers support."""
    counts: dict[str, Any] = {name: m.value for name, m in measurements.items()}
    same = "the same" if counts["same_seed_same_numbers"] else "DIFFERENT"
    shared = counts["values_shared_with_other_seed"]
    if shared == 0:
        others = "shared none of them"
    else:
        others = f"SHARED {shared} of them: the seed does not reach the run"
    return (
        f"{counts['runs_ended_well']} of {counts['runs']} runs of the copied template ended well, "
        f"and {counts['misuses_refused']} of {counts['misuses']} misuses were refused.",
        f"The same seed gave {same} numbers; another seed {others}.",
        f"{counts['files_with_right_digest']} of {counts['files_listed']} files that it wrote have "
        "the digest that its result states.",
    )


def figure(results: Mapping[str, Mapping[str, Any]]) -> present.Figure:
    """Show the losses of two seeds beside the loss of a fair guess."""
    first = results["template"]["measurements"]["loss"]
    other = results["other_seed"]["measurements"]["loss"]
    chance = results["template"]["measurements"]["chance_loss"]["value"]
    sequences = range(1, len(first["values"]) + 1)
    difference = abs(first["value"] - other["value"])
    return present.Figure(
        name="two_seeds",
        title="The template's experiment under two seeds",
        caption=(
            f"The means of the two seeds are {present.number(difference, 2)} nats/token apart; "
            f"a fair guess costs {present.number(chance)}."
        ),
        x_label="sequence",
        y_label="loss (nats/token)",
        series=(
            present.Series("the seed", sequences, first["values"], kind="points"),
            present.Series("the next seed", sequences, other["values"], kind="points"),
            present.Series(
                "a fair guess, ln V", (1, len(sequences)), (chance, chance), style="dashed"
            ),
        ),
    )


if __name__ == "__main__":
    main(EXPERIMENT, run)
