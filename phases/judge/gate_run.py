"""One run of a gate: a fresh process, and a judgement only where there is positive proof of one.

An exit code is no verdict: a process can end with 0 before a single check ran. A pytest gate counts by its JUnit
report, which carries the nonce of this judgement and agrees with the exit code. Everything else (time-out, signal,
no report, no check, a report that disagrees) is `errored`, which is never a pass and proves nothing.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from phases.base.text import printable
from phases.execution import process
from phases.execution.sandbox import Sandbox
from phases.judge import junit
from phases.judge.junit import MAX_MESSAGE, Check

Outcome = Literal["passed", "failed", "errored"]

LOG_TAIL = 8_000  # bytes

# Without `skipping` the marks skip, skipif and xfail are unknown, and --strict-markers refuses the whole file: a check
# says yes or no. Without `subtests` one check is one case of the report. The others only cost time at each start.
PLUGINS_OFF = ("cacheprovider", "skipping", "subtests", "doctest", "pastebin", "setuponly", "setupplan", "stepwise",
               "legacypath")  # fmt: skip

INI = """[pytest]
markers =
    integrity: compares digests, or copies of a number inside the outputs
junit_family = xunit2
junit_suite_name = {nonce}
"""


@dataclass(frozen=True)
class GateSpec:
    """What to run: a pytest file such as `gates/test_x.py`, or a shell command."""

    kind: Literal["pytest", "shell"]
    target: str
    timeout_s: float


@dataclass(frozen=True)
class GateRun:
    """How one run ended. passed: every check ran and said yes; failed: at least one said no; else errored."""

    outcome: Outcome
    checks: tuple[Check, ...] = ()
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    seconds: float = 0.0
    log_tail: str = ""

    @property
    def failing(self) -> tuple[str, ...]:
        """Ids of the checks that said no."""
        return tuple(check.id for check in self.checks if not check.passed)


@dataclass(frozen=True)
class GateContext:
    """What all runs of one judgement share."""

    spec: GateSpec
    gates_dir: Path
    """Holds `gates/`, materialised from HEAD."""
    inputs_file: Path | None
    scratch: Path
    """Private to this judgement; each run gets a folder of its own in it."""
    env: Mapping[str, str]
    sandbox: Sandbox
    nonce: str

    @property
    def cache(self) -> Path:
        """The folder that the gate's runs share for what they recomputed."""
        return self.scratch / "cache"


def run(
    bench: GateContext,
    folder: Path,
    *,
    name: str,
    digests: Mapping[str, str] | None = None,
    options: tuple[str, ...] = (),
) -> GateRun:
    """Run the gate with `folder` as working directory; `digests` makes it PHASES_OUT. `options` go to pytest."""
    place = bench.scratch / "runs" / name
    report = place / "write" / "report.xml"
    finished = _start(bench, folder, place, digests, options)
    tail = log_tail(place / "log")
    if bench.spec.kind == "shell":
        outcome = _judge_shell(bench.spec, finished, tail)
    else:
        outcome = _judge_pytest(bench, finished, report, tail)
    return replace(
        outcome,
        exit_code=finished.exit_code,
        signal=finished.signal,
        seconds=finished.seconds,
        log_tail=tail,
    )


def collect(bench: GateContext, folder: Path) -> tuple[str, ...] | GateRun:
    """The ids of all checks of a pytest gate, told by pytest before any runs; an errored run if it cannot tell.

    `folder` is empty: a gate reads nothing of the outputs at import, so its checks are the same there.
    """
    place = bench.scratch / "runs" / "collect"
    finished = _start(bench, folder, place, {}, ("--collect-only",))
    tail = log_tail(place / "log")
    found = []
    for line in (place / "log").read_text("utf-8", "replace").splitlines():
        if line.startswith(f"{bench.spec.target}::"):
            found.append(junit.check_id(line))
    reason = _no_judgement(finished, bench.spec, tail)
    if not reason and finished.exit_code not in (0, 5):
        reason = f"pytest could not collect its checks (exit {finished.exit_code}){_hint(tail)}"
    if not reason and not found:
        reason = "pytest collected no checks"
    if reason:
        return GateRun(
            "errored", (), reason, finished.exit_code, finished.signal, finished.seconds, tail
        )
    return tuple(found)


def _start(
    bench: GateContext,
    folder: Path,
    place: Path,
    digests: Mapping[str, str] | None,
    options: tuple[str, ...],
) -> process.ProcessResult:
    """Prepare the run's own folder, build the command and run it."""
    writable = place / "write"  # the report, HOME and TMPDIR
    for directory in (writable / "home", writable / "tmp", bench.cache):
        directory.mkdir(parents=True, exist_ok=True)
    own = {
        "HOME": str(writable / "home"),
        "TMPDIR": str(writable / "tmp"),
        "COLUMNS": "200",  # pytest cuts its summary, where the reasons stand, to the width of the terminal
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PHASES_NONCE": bench.nonce,
        "PHASES_GATE_CACHE": str(bench.cache),
    }
    read_only = [folder, bench.gates_dir, place]
    if digests is not None:
        (place / "digests.json").write_text(json.dumps(dict(digests), sort_keys=True), "utf-8")
        own |= {"PHASES_OUT": str(folder), "PHASES_DIGESTS": str(place / "digests.json")}
    if bench.inputs_file is not None:
        own["PHASES_INPUTS"] = str(bench.inputs_file)
        inputs = json.loads(bench.inputs_file.read_bytes())  # the runner's own file
        read_only += [bench.inputs_file, *(Path(entry["path"]) for entry in inputs.values())]
    if bench.spec.kind == "shell":
        argv = ["/bin/sh", "-c", bench.spec.target]
    else:
        (place / "gate.ini").write_text(INI.format(nonce=bench.nonce), "utf-8")
        argv = _pytest(bench, place, options)
    command = bench.sandbox.command(
        argv, writable=[writable, bench.cache], read_only=read_only, network=False
    )
    return process.run(
        command,
        cwd=folder,
        env=process.clean_environment({**bench.env, **own}),
        log=place / "log",
        timeout_s=bench.spec.timeout_s,
    )


def _pytest(bench: GateContext, place: Path, options: tuple[str, ...]) -> list[str]:
    """The command line; -I keeps out the user's PYTHON* variables and the working directory, -B writes no .pyc."""
    return [
        *(sys.executable, "-I", "-B", "-m", "pytest", "-c", str(place / "gate.ini")),
        *("--rootdir", str(bench.gates_dir), "--noconftest", "--strict-markers"),
        *(word for plugin in PLUGINS_OFF for word in ("-p", f"no:{plugin}")),
        *("-q", "--color=no", "--tb=short", f"--junitxml={place / 'write' / 'report.xml'}"),
        *options,
        str(bench.gates_dir / bench.spec.target),
    ]


#### judging what came back


def _no_judgement(finished: process.ProcessResult, spec: GateSpec, tail: str) -> str:
    """Why a process gave no answer at all; "" if it ended by itself."""
    if finished.timed_out:
        return f"timed out after {spec.timeout_s:g} s"
    if finished.exit_code is None:
        return f"killed by signal {finished.signal}{_hint(tail)}"
    return ""


def shell_check(spec: GateSpec) -> str:
    """The id of a shell gate's only check: the command."""
    return printable(spec.target, 120)


def _judge_shell(spec: GateSpec, finished: process.ProcessResult, tail: str) -> GateRun:
    reason = _no_judgement(finished, spec, tail)
    code = finished.exit_code
    last = printable(tail.splitlines()[-1], MAX_MESSAGE) if tail.strip() else ""
    if reason or code is None:
        return GateRun("errored", reason=reason)
    if code >= 126:
        return GateRun(
            "errored",
            reason=f"the command could not be run or died by a signal (exit {code}): {last}",
        )
    check = Check(
        shell_check(spec),
        code == 0,
        "" if code == 0 else f"exit {code}: {last}" if last.strip() else f"exit {code}",
    )
    return GateRun("passed" if code == 0 else "failed", (check,))


def _judge_pytest(
    bench: GateContext, finished: process.ProcessResult, report: Path, tail: str
) -> GateRun:
    """Outcome from report and exit code together; where they do not say the same, there is no judgement."""
    code = finished.exit_code
    reason = _no_judgement(finished, bench.spec, tail)
    if not reason and code == 5:
        reason = "no check ran"
    if not reason and code not in (0, 1):
        reason = f"pytest could not run the gate (exit {code}){_hint(tail)}"
    if reason:
        return GateRun("errored", reason=reason)
    try:
        checks, silent = junit.read_report(report, bench.nonce, bench.spec.target)
    except junit.ReportError as error:
        return GateRun("errored", reason=f"exit {code} and {error}{_hint(tail)}")
    return _judge_checks(checks, silent, code)


def _judge_checks(checks: tuple[Check, ...], silent: tuple[str, ...], code: int | None) -> GateRun:
    failing = sum(not check.passed for check in checks)
    if silent:
        return GateRun("errored", checks, f"skipped, and so said nothing: {', '.join(silent[:5])}")
    if not checks:
        return GateRun("errored", reason="no check ran")
    if code != (1 if failing else 0):
        return GateRun(
            "errored",
            checks,
            f"exit {code} disagrees with {failing} failed of {len(checks)} checks",
        )
    if failing:
        return GateRun("failed", checks, f"{failing} of {len(checks)} checks failed")
    return GateRun("passed", checks)


def _hint(tail: str) -> str:
    """The line of pytest's output that says why."""
    for pattern in (r"^E  +(.+)$", r"^ERROR:? (.+)$", r"^\[phases: (.+)\]$"):
        if lines := re.findall(pattern, tail, re.MULTILINE):
            return f": {printable(lines[-1], MAX_MESSAGE)}"
    return ""


def log_tail(log: Path) -> str:
    """The last lines of a log, each made printable."""
    with log.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - LOG_TAIL))
        lines = file.read().decode("utf-8", "replace").splitlines()
    return "\n".join(printable(line, 500) for line in (lines[1:] if size > LOG_TAIL else lines))
