"""One run of a gate: a fresh process, whose outcome is derived from evidence.

An exit code alone decides nothing: a process can exit with 0 before a single check ran. A pytest
gate is judged by its JUnit report, which must carry the nonce of this judgement and agree with the
exit code. Everything else (time-out, signal, no report, no check, a report that disagrees) is
`errored`: it never counts as passed, and it never kills a mutant.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from phases.base.text import printable
from phases.execution import process
from phases.execution.fork_server import BARE_SERVER, SUPERVISOR, ForkServer, shared_server
from phases.execution.process import ProcessResult
from phases.execution.sandbox import Sandbox
from phases.judge.junit import MAX_MESSAGE, CheckResult, ReportError, check_id, read_report
from phases.record.verdict import shell_check_id

TAIL_BYTES = 8_000
TAIL_LINE = 500  # characters
LISTED_IDS = 5  # ids that one message names

# Without `skipping` the marks skip, skipif and xfail are unknown, and --strict-markers refuses the
# whole file: a check either passes or fails. The other plugins only cost time at each start.
PLUGINS_OFF = ("cacheprovider", "skipping", "doctest", "pastebin", "setuponly", "setupplan",
               "stepwise", "legacypath")  # fmt: skip

# The warnings are about checks that seem to pass: `return total == 15` asserts nothing, and an
# assertion that fails in a thread or in `__del__` reaches no check.
INI = """[pytest]
markers =
    integrity: compares digests, or copies of a number inside the outputs
filterwarnings =
    error::pytest.PytestReturnNotNoneWarning
    error:It is deprecated to return a value that is not None:DeprecationWarning
    error::pytest.PytestUnhandledThreadExceptionWarning
    error::pytest.PytestUnraisableExceptionWarning
junit_family = xunit2
junit_suite_name = {nonce}
pythonpath = {gates_dir}
"""

PYTEST_ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # no plugins of installed packages

# The import block: the text that both of its programs begin with, and how each ends.
BLOCK_FOLDER = "import_block"
BLOCK_MAIN = "gate_main.py"
IMPORT_BLOCK = Path(__file__).with_name("import_block.py").read_text("utf-8")
PYTEST_SERVER = Path(__file__).with_name("pytest_server.py")
LOAD_NEXT = """
load_next_sitecustomize(__file__)
"""

# pytest's exit codes
ALL_PASSED = 0
SOME_FAILED = 1
NONE_COLLECTED = 5

# A shell's exit codes from here on: the command was not run (126, 127) or died by a signal.
NOT_RUN = 126


class GateKind(StrEnum):
    """What a gate is."""

    PYTEST = "pytest"
    SHELL = "shell"


class GateOutcome(StrEnum):
    """How one run of a gate ended."""

    PASSED = "passed"
    """Every check ran and passed."""
    FAILED = "failed"
    """Every check ran and at least one failed."""
    ERRORED = "errored"
    """Anything else; `GateRun.reason` says what."""


@dataclass(frozen=True)
class GateSpec:
    """What to run: a pytest file such as `gates/test_x.py`, or a shell command."""

    kind: GateKind
    target: str
    timeout_s: float


@dataclass(frozen=True)
class GateRun:
    """The result of one run of a gate."""

    outcome: GateOutcome
    checks: tuple[CheckResult, ...] = ()
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    seconds: float = 0.0
    log_tail: str = ""

    @property
    def failing(self) -> tuple[str, ...]:
        """Ids of the checks that failed."""
        return tuple(check.id for check in self.checks if not check.passed)


@dataclass(frozen=True)
class GateContext:
    """What all runs of one judgement share."""

    spec: GateSpec
    gates_dir: Path
    """Holds `gates/`, materialised from HEAD."""
    inputs_file: Path | None
    workspace: Path
    """Private to this judgement; each run gets a folder of its own in it."""
    env: Mapping[str, str]
    sandbox: Sandbox
    nonce: str
    roots: tuple[Path, ...] = ()
    """The repository's work trees, of which the gate imports nothing; without one nothing is
    blocked."""
    blocked: tuple[str, ...] = ()
    """Top modules that the gate cannot import wherever they are, besides the runner."""
    server: ForkServer = BARE_SERVER
    """What the runs are forked from."""

    @property
    def cache(self) -> Path:
        """The folder in which the gate's runs share what they recomputed."""
        return self.workspace / "cache"

    @property
    def import_block(self) -> Path:
        """The folder of the programs that block imports."""
        return self.workspace / BLOCK_FOLDER


def run_gate(
    gate_context: GateContext,
    folder: Path,
    *,
    name: str,
    digests: Mapping[str, str] | None = None,
    options: tuple[str, ...] = (),
    has_own_cache: bool = False,
) -> GateRun:
    """Run the gate once.

    Args:
        gate_context: the gate and its surroundings.
        folder: the working directory.
        name: name of the run, unique in this judgement; its log is `runs/NAME/log`.
        digests: path -> SHA-256 of the files in `folder`; if given, `folder` is PHASES_OUT.
        options: further options of pytest.
        has_own_cache: whether it gets an empty folder in the place of the one that runs share.

    Raises:
        InterruptedRunError: a stop signal came.
    """
    with _run_folder(gate_context, name) as run_folder:
        cache = run_folder / "cache" if has_own_cache else gate_context.cache
        result = _run_process(
            gate_context, folder, run_folder, digests=digests, options=options, cache=cache
        )
        tail = printable_tail(run_folder / "log")
        if gate_context.spec.kind == GateKind.SHELL:
            run = _judge_shell(gate_context.spec, result, tail)
        else:
            run = _judge_pytest(gate_context, result, _report_path(run_folder), tail)
        return _with_process(run, result, tail)


@contextmanager
def _run_folder(gate_context: GateContext, name: str) -> Iterator[Path]:
    """Yield the folder of one run. It is named after the run only when that has ended: what a gate
    can read must not say what it judges.
    """
    runs = gate_context.workspace / "runs"
    folder = runs / secrets.token_hex(8)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        folder.rename(runs / name)


def collect_checks(
    gate_context: GateContext, folder: Path, *, selection: tuple[str, ...] = ()
) -> tuple[str, ...] | GateRun:
    """Ask pytest for the ids of checks, before any runs; an errored run if there is no answer.

    `folder` is empty: a gate reads none of the outputs at import, so its checks are the same there.
    `selection` are the options that select checks; without them () means an errored run.
    """
    name = "-".join(("collect", *selection[1:])).replace(" ", "-")
    options = ("--collect-only", *selection)
    with _run_folder(gate_context, name) as run_folder:
        result = _run_process(
            gate_context,
            folder,
            run_folder,
            digests={},
            options=options,
            cache=gate_context.cache,
        )
        return _read_collected(
            gate_context.spec, result, run_folder / "log", may_be_empty=bool(selection)
        )


def _read_collected(
    spec: GateSpec, result: ProcessResult, log: Path, *, may_be_empty: bool
) -> tuple[str, ...] | GateRun:
    """Return the ids that a collection printed."""
    tail = printable_tail(log)
    # 1. pytest prints one node id per line.
    ids = []
    for line in log.read_text("utf-8", "replace").splitlines():
        if line.startswith(f"{spec.target}::"):
            ids.append(check_id(line))
    # 2. The list counts only if pytest ended as it does after a collection without errors.
    reason = _describe_abnormal_end(result, spec, tail)
    if not reason and result.exit_code not in (ALL_PASSED, NONE_COLLECTED):
        error = _last_error(tail)
        reason = f"pytest could not collect its checks (exit {result.exit_code}){error}"
    if not reason and not ids and not may_be_empty:
        reason = "pytest collected no checks"
    if reason:
        return _with_process(GateRun(GateOutcome.ERRORED, reason=reason), result, tail)
    return tuple(ids)


def _with_process(run: GateRun, result: ProcessResult, tail: str) -> GateRun:
    """Return the run with what is known of its process."""
    return replace(
        run,
        exit_code=result.exit_code,
        signal=result.signal,
        seconds=result.seconds,
        log_tail=tail,
    )


def _run_process(
    gate_context: GateContext,
    folder: Path,
    run_folder: Path,
    *,
    digests: Mapping[str, str] | None,
    options: tuple[str, ...],
    cache: Path,
) -> ProcessResult:
    """Prepare the run's own folder, build the command and run it."""
    # 1. What the process may write: the report, HOME, TMPDIR and the cache.
    writable = run_folder / "write"
    for directory in (writable / "home", writable / "tmp", cache):
        directory.mkdir(parents=True, exist_ok=True)
    variables = {
        "HOME": str(writable / "home"),
        "TMPDIR": str(writable / "tmp"),
        # pytest cuts its summary, which holds the reasons, to the width of the terminal.
        "COLUMNS": "200",
        **PYTEST_ALONE,
        "PHASES_NONCE": gate_context.nonce,
        "PHASES_GATE_CACHE": str(cache),
    }
    # 2. What it may read: the outputs, the gates, the inputs.
    read_only = [folder, gate_context.gates_dir, run_folder, *_input_paths(gate_context)]
    if digests is not None:
        digests_file = run_folder / "digests.json"
        digests_file.write_text(json.dumps(dict(digests), sort_keys=True), "utf-8")
        variables["PHASES_OUT"] = str(folder)
        variables["PHASES_DIGESTS"] = str(digests_file)
    if gate_context.inputs_file is not None:
        variables["PHASES_INPUTS"] = str(gate_context.inputs_file)
    # 3. What its Python processes cannot import; pytest itself runs with -I and ignores PYTHONPATH.
    if gate_context.roots:
        variables["PYTHONPATH"] = str(gate_context.import_block)
    # 4. The command.
    if gate_context.spec.kind == GateKind.SHELL:
        command = gate_context.sandbox.command(
            ["/bin/sh", "-c", gate_context.spec.target],
            writable=[writable, cache],
            read_only=read_only,
            network=False,
        )
    else:
        command = _pytest_command(gate_context, run_folder, options)
    return process.run(
        command,
        cwd=folder,
        env=process.clean_environment({**gate_context.env, **variables}),
        log=run_folder / "log",
        timeout_s=gate_context.spec.timeout_s,
        server=gate_context.server,
    )


def _pytest_command(
    gate_context: GateContext, run_folder: Path, options: tuple[str, ...]
) -> list[str]:
    """Write the configuration of pytest and return its command line."""
    # `gates` is importable from here alone: -I keeps every other folder off the path. pytest takes
    # the path relative to the ini file and splits it at spaces, as a shell does.
    gates_dir = shlex.quote(os.path.relpath(gate_context.gates_dir, run_folder))
    ini = INI.format(nonce=gate_context.nonce, gates_dir=gates_dir)
    (run_folder / "gate.ini").write_text(ini, "utf-8")
    argv = [str(gate_context.import_block / BLOCK_MAIN), "-c", str(run_folder / "gate.ini")]
    argv += ["--rootdir", str(gate_context.gates_dir), "--noconftest", "--strict-markers"]
    for plugin in PLUGINS_OFF:
        argv += ["-p", f"no:{plugin}"]
    argv += ["-q", "--color=no", f"--junitxml={_report_path(run_folder)}"]
    return [*argv, *options, str(gate_context.gates_dir / gate_context.spec.target)]


def pytest_server(gate_context: GateContext) -> ForkServer:
    """Return what the gate's runs of pytest are forked from: one server for all judgements.

    -I keeps out the user's PYTHON* variables and the working directory; -B writes no .pyc files.
    """
    program = [sys.executable, "-X", "utf8", "-I", "-B", str(PYTEST_SERVER), str(SUPERVISOR)]
    # A sandbox that names its folders makes a server of its own for each judgement.
    command = gate_context.sandbox.command(
        program,
        writable=[gate_context.workspace],
        read_only=[gate_context.gates_dir, *_input_paths(gate_context)],
        network=False,
    )
    env = process.clean_environment({**gate_context.env, **PYTEST_ALONE})
    # These are folders of one judgement; each run has its own.
    for name in ("HOME", "TMPDIR"):
        env.pop(name, None)
    return shared_server(command, env)


def write_import_block(gate_context: GateContext) -> None:
    """Write the programs that block imports.

    `gate_main.py` is executed in each run of pytest; `sitecustomize.py` is loaded by Python where
    PYTHONPATH names the folder: in a shell gate, and in the processes that a pytest gate starts.
    """
    gate_context.import_block.mkdir(parents=True, exist_ok=True)
    call = ""
    if gate_context.roots:
        names = ("phases", *gate_context.blocked)
        roots = [str(root) for root in gate_context.roots]
        call = f"install({roots!r}, {names!r}, {str(gate_context.gates_dir)!r})\n"
    for file, end in ((BLOCK_MAIN, ""), ("sitecustomize.py", LOAD_NEXT)):
        text = f"{IMPORT_BLOCK}\n\n{call}{end}"
        (gate_context.import_block / file).write_text(text, "utf-8")


def _input_paths(gate_context: GateContext) -> list[Path]:
    if gate_context.inputs_file is None:
        return []
    inputs = json.loads(gate_context.inputs_file.read_bytes())  # the runner's own file
    return [gate_context.inputs_file, *(Path(entry["path"]) for entry in inputs.values())]


def _report_path(run_folder: Path) -> Path:
    return run_folder / "write" / "report.xml"


#### the outcome of a run


def _describe_abnormal_end(result: ProcessResult, spec: GateSpec, tail: str) -> str:
    """Describe an end by time-out or signal; "" if the process exited by itself."""
    if result.timed_out:
        return f"timed out after {spec.timeout_s:g} s"
    if result.exit_code is None:
        return f"killed by signal {result.signal}{_last_error(tail)}"
    return ""


def _judge_shell(spec: GateSpec, result: ProcessResult, tail: str) -> GateRun:
    """Derive the outcome of a command from its exit code; the message is its last line."""
    reason = _describe_abnormal_end(result, spec, tail)
    code = result.exit_code
    if reason or code is None:
        return GateRun(GateOutcome.ERRORED, reason=reason)
    last_line = ""
    if tail.strip():
        last_line = printable(tail.splitlines()[-1], MAX_MESSAGE)
    if code >= NOT_RUN:
        reason = f"the command could not be run or died by a signal (exit {code}): {last_line}"
        return GateRun(GateOutcome.ERRORED, reason=reason)
    if code == 0:
        return GateRun(GateOutcome.PASSED, (CheckResult(shell_check_id(spec.target), passed=True),))
    message = f"exit {code}"
    if last_line.strip():
        message += f": {last_line}"
    check = CheckResult(shell_check_id(spec.target), passed=False, message=message)
    return GateRun(GateOutcome.FAILED, (check,), message)


def _judge_pytest(
    gate_context: GateContext, result: ProcessResult, report_path: Path, tail: str
) -> GateRun:
    """Derive the outcome from report and exit code together; if they disagree, it is errored."""
    # 1. The process must have ended as pytest ends after it ran checks.
    code = result.exit_code
    reason = _describe_abnormal_end(result, gate_context.spec, tail)
    if not reason and code == NONE_COLLECTED:
        reason = "no check ran"
    if not reason and code not in (ALL_PASSED, SOME_FAILED):
        reason = f"pytest could not run the gate (exit {code}){_last_error(tail)}"
    if reason:
        return GateRun(GateOutcome.ERRORED, reason=reason)
    # 2. There must be a report of this very run.
    try:
        checks, skipped = read_report(report_path, gate_context.nonce, gate_context.spec.target)
    except ReportError as error:
        reason = f"exit {code}, but {error}{_last_error(tail)}"
        return GateRun(GateOutcome.ERRORED, reason=reason)
    # 3. Every check has a result, and their sum is what the exit code says.
    if skipped:
        reason = f"checks were skipped, so they have no result: {list_ids(skipped)}"
        return GateRun(GateOutcome.ERRORED, checks, reason)
    if not checks:
        return GateRun(GateOutcome.ERRORED, reason="no check ran")
    failures = sum(not check.passed for check in checks)
    expected_code = SOME_FAILED if failures else ALL_PASSED
    summary = f"{failures} of {len(checks)} checks failed"
    if code != expected_code:
        reason = f"exit {code} disagrees with the report: {summary}{_last_error(tail)}"
        return GateRun(GateOutcome.ERRORED, checks, reason)
    if failures:
        return GateRun(GateOutcome.FAILED, checks, summary)
    return GateRun(GateOutcome.PASSED, checks)


def list_ids(ids: Sequence[str]) -> str:
    """Return the first ids, as a message names them."""
    return ", ".join(ids[:LISTED_IDS])


def _last_error(tail: str) -> str:
    """Return the line of pytest's output that names the error, after ": "; "" if there is none."""
    for pattern in (
        r"^E  +(.+)$",
        r"^ERROR:? (.+)$",
        r"^\[phases: (.+)\]$",
        r"^(pytest\.\w+Warning: .+)$",
    ):
        lines = re.findall(pattern, tail, re.MULTILINE)
        if lines:
            return f": {printable(lines[-1], MAX_MESSAGE)}"
    return ""


def printable_tail(log: Path) -> str:
    """Return the last lines of a log (at most 8,000 bytes), each made printable."""
    with log.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
    if size > TAIL_BYTES:
        lines = lines[1:]  # the first one is cut
    return "\n".join(printable(line, TAIL_LINE) for line in lines)
