"""Commands and exit codes. `--json` prints one object on stdout; messages go to stderr.

Every import but click's is inside its command: `status` and `--help` must start quickly.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phases import __version__
from phases.errors import PhasesError, UsageError, WaitingForHumanError

if TYPE_CHECKING:
    from collections.abc import Callable

    from phases.record.project import Project, Snapshot
    from phases.run.results import RunSummary

MAX_REASON = 280  # characters
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
REASON_HELP = "Why; it is recorded."


def main() -> None:
    """Run a command and exit with its documented code; a traceback is for the debug log only."""
    try:
        # Without standalone mode click returns the code of `context.exit`.
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except PhasesError as error:
        _log_error(error)
        message = f"error: {error}"
        if isinstance(error, WaitingForHumanError):
            message = str(error)  # a phase that waits for its approver is no error
        _write_error(message, error.hint)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output has closed it. Python would fail again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        _log_error(error)
        from phases.base.durable import hint_for

        reason = error.strerror or str(error)
        if error.filename:
            reason = f"{error.filename}: {reason}"
        _write_error(f"error: {reason}", hint_for(error))
        sys.exit(7)
    finally:
        from phases.git.objects import end_readers

        end_readers()


def _log_error(error: Exception) -> None:
    # It goes to the log file, and with --debug to stderr.
    import logging

    logging.getLogger(__name__).debug("ended by %s", type(error).__name__, exc_info=error)


def _write_error(message: str, hint: str) -> None:
    sys.stderr.write(f"{message}\n")
    if hint:
        sys.stderr.write(f"next: {hint}\n")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    default=Path(),
    help="The repository to run; default: here.",
)
@click.option("--debug", is_flag=True, help="Show tracebacks, and the debug log on stderr.")
@click.version_option(__version__, prog_name="phases")
@click.pass_context
def cli(context: click.Context, root: Path, *, debug: bool) -> None:
    """Run phases of experiments: a gate that can fail judges each, the approver opens each phase.

    Exit codes: 0 done, 1 a gate failed or an experiment errored, 2 usage or invalid plan, 3 the
    record is invalid, 4 waiting for the approver, 5 a limit was reached, 6 another runner is at
    work, 7 the environment is at fault, 130 interrupted.
    """
    context.obj = root
    if debug:
        from phases.base.debug_log import log_to_stderr

        log_to_stderr()


#### what the commands share


def _open(context: click.Context) -> Project:
    """Return the project, for a command that runs, decides or proves: the debug log gets a file."""
    from phases.base.debug_log import log_to_file
    from phases.record.project import open_project

    # Not before the project is open: a folder without a project gets no log.
    project = open_project(context.obj)
    log_to_file(project.paths.runner_log)
    if project.plan.sample:
        from phases.record.sample import SAMPLE_ASSURANCE

        _echo(SAMPLE_ASSURANCE, err=True)
    return project


def _read(context: click.Context) -> tuple[Project, Snapshot]:
    """Return the project and its state, for a command that shows; warn of an invalid record."""
    from phases.record.at_rest import MOVED, read_at_rest
    from phases.record.project import load_unverified, open_project
    from phases.views.status import record_warnings

    def read(project: Project) -> tuple[tuple[Project, Snapshot, list[str]], bool]:
        snapshot = load_unverified(project)
        warnings = record_warnings(project, snapshot)
        return (project, snapshot, warnings), bool(warnings)

    (project, snapshot, warnings), has_moved = read_at_rest(open_project(context.obj), read)
    if has_moved:
        warnings.append(f"note: {MOVED}")
    for warning in warnings:
        _echo(warning, err=True)
    return project, snapshot


def _echo(text: str, *, err: bool = False) -> None:
    # Not click's echo: it writes UTF-8 to a stream that says ASCII.
    stream = sys.stderr if err else sys.stdout
    stream.write(f"{text}\n")
    stream.flush()


def _show(project: Project, snapshot: Snapshot, text: str) -> None:
    """Print what a command shows; of a sample run that comes first."""
    from phases.record.sample import SAMPLE_ASSURANCE, is_sample

    if is_sample(project.plan, snapshot.ledger):
        text = f"{SAMPLE_ASSURANCE}\n{text}"
    _echo(text)


def _show_json(project: Project, snapshot: Snapshot, document: dict[str, Any]) -> None:
    """Print what a command shows as JSON; of a sample run with its assurance."""
    from phases.record.entries import SAMPLE_RUN
    from phases.record.sample import is_sample

    if is_sample(project.plan, snapshot.ledger):
        document = {"assurance": SAMPLE_RUN, **document}
    _print_json(document)


def _is_utf8_output() -> bool:
    return "utf" in (sys.stdout.encoding or "").lower()


def _print_json(document: Any) -> None:
    import json

    # JSON is UTF-8; in another encoding a character that it lacks would be no JSON.
    _echo(json.dumps(document, indent=1, ensure_ascii=not _is_utf8_output()))


#### commands that show


@cli.command("status")
@JSON
@click.pass_context
def status_command(context: click.Context, *, as_json: bool) -> None:
    """Show the project's state, and the one command to type next."""
    from phases.views.stale import find_stale
    from phases.views.status import status_json, status_text

    project, snapshot = _read(context)
    stale = find_stale(project, snapshot)
    if as_json:
        _show_json(project, snapshot, status_json(project.plan, snapshot, stale=stale))
    else:
        ascii_only = not _is_utf8_output()
        text = status_text(project.plan, snapshot, stale=stale, ascii_only=ascii_only)
        _show(project, snapshot, text)


@cli.command("plan")
@JSON
@click.pass_context
def plan_command(context: click.Context, *, as_json: bool) -> None:
    """Show what `run --next` would do and why, with expected minutes and memory."""
    from phases.views.plan import plan_json, plan_text, planned_weak_gates
    from phases.views.stale import find_stale

    project, snapshot = _read(context)
    stale = find_stale(project, snapshot)
    weak_gates = planned_weak_gates(project.plan, snapshot, project.root)
    if as_json:
        document = plan_json(project.plan, snapshot, stale=stale, weak_gates=weak_gates)
        _show_json(project, snapshot, document)
    else:
        text = plan_text(project.plan, snapshot, stale=stale, weak_gates=weak_gates)
        _show(project, snapshot, text)


@cli.command("log")
@click.option("--last", "-l", type=click.IntRange(min=1), help="Only the last N entries.")
@click.option("--feature", metavar="ID", help="Only entries of this feature.")
@click.option("--raw", is_flag=True, help="As progress.txt has them, with digests.")
@JSON
@click.pass_context
def log_command(
    context: click.Context,
    *,
    last: int | None,
    feature: str | None,
    raw: bool,
    as_json: bool,
) -> None:
    """Show the entries of progress.txt as sentences."""
    from phases.views.log import log_json, log_raw, log_text, select_entries

    project, snapshot = _read(context)
    selected = select_entries(snapshot.ledger, feature=feature, last=last)
    if as_json:
        _print_json(log_json(selected))
    elif not selected:
        _echo("no entries yet; next: python -m phases run --next")
    elif raw:
        _show(project, snapshot, log_raw(selected))
    else:
        _show(project, snapshot, log_text(selected))


@cli.command("show")
@click.argument("feature_id", metavar="ID")
@JSON
@click.pass_context
def show_command(context: click.Context, feature_id: str, *, as_json: bool) -> None:
    """Show a feature: its entries, verdict, measurements, predictions, and where its files are."""
    from phases.views.show import feature_report_json, feature_report_text, show_feature

    project, snapshot = _read(context)
    report = show_feature(project, snapshot, feature_id)
    if as_json:
        _show_json(project, snapshot, feature_report_json(report))
    else:
        _show(project, snapshot, feature_report_text(report))


@cli.command("why")
@click.argument("feature_id", metavar="ID")
@JSON
@click.pass_context
def why_command(context: click.Context, feature_id: str, *, as_json: bool) -> None:
    """Explain why a feature is in its state, and whether it would run now."""
    from phases.views.stale import find_stale
    from phases.views.why import explain_feature, explanation_json, explanation_text

    project, snapshot = _read(context)
    stale = find_stale(project, snapshot)
    explanation = explain_feature(project.plan, snapshot, feature_id, stale=stale)
    if as_json:
        _show_json(project, snapshot, explanation_json(explanation))
    else:
        _show(project, snapshot, explanation_text(explanation))


@cli.command("doctor")
@JSON
@click.pass_context
def doctor_command(context: click.Context, *, as_json: bool) -> None:
    """Check what is missing on this machine, and what does not work without it."""
    from phases.views.doctor import doctor_json, doctor_text, examine_machine, is_ready

    checks = examine_machine(context.obj.absolute())
    if as_json:
        _print_json(doctor_json(checks))
    else:
        _echo(doctor_text(checks))
    if not is_ready(checks):
        context.exit(7)


#### commands that run or prove


@cli.command("run")
@click.option("--next", "next_phase", is_flag=True, help="The next phase, up to its checkpoint.")
@click.option("--feature", metavar="ID", help="One feature of the open phase.")
@click.option("--force", is_flag=True, help="With --feature: run it again although it is verified.")
@click.option(
    "--scratch", is_flag=True, help="With --feature: run and judge in staging; nothing is recorded."
)
@click.option(
    "--profile", metavar="NAME", help="With --scratch: another profile of the feature's config."
)
@click.option("--dry-run", "-n", is_flag=True, help="Show the plan only.")
@click.option(
    "--keep-going",
    "-k",
    is_flag=True,
    help="After a feature failed, run those that do not need it.",
)
@JSON
@click.pass_context
def run_command(
    context: click.Context,
    *,
    next_phase: bool,
    feature: str | None,
    force: bool,
    scratch: bool,
    profile: str | None,
    dry_run: bool,
    keep_going: bool,
    as_json: bool,
) -> None:
    """Run the next phase up to its checkpoint, or one feature of it."""
    # 1. Options that do not go together.
    if next_phase == (feature is not None):
        message = "expected one of --next and --feature ID"
        raise UsageError(message, hint="python -m phases run --next")
    if (scratch or force) and feature is None:
        message = "--scratch and --force need --feature ID"
        raise UsageError(message, hint="python -m phases run --feature ID --scratch")
    if profile and not scratch:
        message = "--profile needs --scratch: a recorded run has the plan's profile"
        raise UsageError(message, hint="add --scratch")

    # 2. Runs that record nothing.
    if dry_run:
        context.invoke(plan_command, as_json=as_json)
        return
    if scratch:
        _run_scratch(context, feature or "", profile, as_json=as_json)
        return

    # 3. The run.
    from phases.run.choose import RunRequest
    from phases.run.runner import run_next
    from phases.views.live import choose_view

    project = _open(context)
    request = RunRequest(only=feature, force=force, keep_going=keep_going)
    with choose_view(silent=as_json) as view:
        summary = run_next(project, view, request)
    if as_json:
        _print_json(summary.json())
    else:
        _echo(_run_text(summary, project.plan.results), err=True)
    context.exit(_run_exit_code(summary))


def _run_scratch(
    context: click.Context, feature: str, profile: str | None, *, as_json: bool
) -> None:
    from phases.run.scratch import run_scratch
    from phases.views.live import choose_view

    project = _open(context)
    with choose_view(silent=as_json) as view:
        result = run_scratch(project, view, feature, profile)
    if as_json:
        _print_json({"scratch": True, "features": [result.json()]})
    if result.state != "verified":
        context.exit(1)


def _run_text(summary: RunSummary, results: str) -> str:
    """Return how the run ended, and what is next."""
    if summary.state is None:
        return "Every phase is approved; there is nothing left to do."
    if summary.state == "awaiting_approval":
        approve = f"`python -m phases approve {summary.phase}`"
        review = f"To review: {results}/, progress.txt, git log"
        return f"Phase {summary.phase} awaits your approval: {approve}\n{review}"
    hint = "python -m phases status says what is next"
    return f"Phase {summary.phase} is {summary.state}; {hint}"


def _run_exit_code(summary: RunSummary) -> int:
    # A time-out comes first: the limit, not the gate, ended the run.
    if any(feature.timed_out for feature in summary.features):
        return 5
    unverified = [feature for feature in summary.features if feature.state != "verified"]
    if unverified or summary.exit_failing or summary.state == "failed":
        return 1
    return 0


@cli.command("verify")
@click.argument("feature_ids", nargs=-1, metavar="[ID]...")
@JSON
@click.pass_context
def verify_command(context: click.Context, feature_ids: tuple[str, ...], *, as_json: bool) -> None:
    """Run gates again on what is stored; nothing is recorded."""
    from phases.run.verify import verify_features
    from phases.views.live import choose_view

    project = _open(context)
    with choose_view(silent=as_json) as view:
        results = verify_features(project, view, feature_ids)
    ok = all(result.state == "verified" for result in results)
    if as_json:
        _print_json({"ok": ok, "features": [result.json() for result in results]})
    if not results:
        _echo("nothing is verified yet", err=True)
    if not ok:
        context.exit(1)


@cli.command("audit")
@JSON
@click.pass_context
def audit_command(context: click.Context, *, as_json: bool) -> None:
    """Prove ledger, journal, commits, receipts, approvals and artifacts, offline."""
    from phases.audit.audit import audit_at_rest
    from phases.audit.findings import audit_json, audit_text

    report = audit_at_rest(_open(context))
    if as_json:
        _print_json(audit_json(report))
    else:
        _echo(audit_text(report))
    if not report.ok:
        context.exit(3)


#### commands that decide


@cli.command("approve")
@click.argument("phase_id", type=int, metavar="PHASE")
@click.option(
    "--waive",
    "features",
    multiple=True,
    metavar="ID",
    help="Do not approve: let the phase go on without this feature, which failed.",
)
@click.option("--reason", help=f"With --waive: {REASON_HELP.lower()}")
@click.pass_context
def approve_command(
    context: click.Context, phase_id: int, features: tuple[str, ...], reason: str | None
) -> None:
    """Approve a phase that waits, by words typed at the controlling terminal; starts nothing."""
    from phases.decisions.approve import approve
    from phases.decisions.waive import waive

    if len(features) > 1:
        raise UsageError(
            f"--waive: got {', '.join(features)}; expected one feature for one decision",
            hint=f"python -m phases approve {phase_id} --waive {features[0]} --reason '…'",
        )
    if bool(features) != (reason is not None):
        raise UsageError(
            "--waive ID and --reason TEXT go together; approving a phase takes neither",
            hint=f"python -m phases approve {phase_id} --waive ID --reason '…'",
        )
    if reason is None:
        path = _decide(context, phase_id, approve)
        _report_decision(f"Phase {phase_id} is approved", path)
    else:
        line = _require_one_line(reason)
        path = _decide(context, phase_id, waive, feature=features[0], reason=line)
        _report_decision(f"{features[0]} is waived", path)


@cli.command("reject")
@click.argument("phase_id", type=int, metavar="PHASE")
@click.option("--reason", required=True, help=REASON_HELP)
@click.option("--feature", metavar="ID", help="Reset only this feature and what depends on it.")
@click.pass_context
def reject_command(context: click.Context, phase_id: int, reason: str, feature: str | None) -> None:
    """Send a phase back: its lock is released and its features are reset."""
    from phases.decisions.reject import reject

    line = _require_one_line(reason)
    path = _decide(context, phase_id, reject, reason=line, feature=feature)
    _report_decision(f"Phase {phase_id} is rejected", path)


@cli.command("relock")
@click.argument("phase_id", type=int, metavar="PHASE")
@click.option("--reason", required=True, help=REASON_HELP)
@click.pass_context
def relock_command(context: click.Context, phase_id: int, reason: str) -> None:
    """Lock a changed plan within a phase; what it changes is reset."""
    from phases.decisions.relock import relock

    line = _require_one_line(reason)
    path = _decide(context, phase_id, relock, reason=line)
    _report_decision(f"Phase {phase_id} is locked anew", path)


def _decide(
    context: click.Context, phase_id: int, decision: Callable[..., str], **options: str | None
) -> str:
    """Make one decision about a phase; return the path of its record."""
    from phases.decisions.decide import find_phase
    from phases.views.checkpoint import checkpoint_summary

    project = _open(context)
    summary = checkpoint_summary(project, find_phase(project, phase_id))
    return decision(project, phase_id, summary, **options)


def _report_decision(sentence: str, path: str) -> None:
    _echo(f"{sentence}; recorded in {path}.\nnext: python -m phases run --next", err=True)


def _require_one_line(reason: str) -> str:
    from phases.base.text import is_printable

    try:
        os.fsencode(reason).decode("utf-8")
    except UnicodeDecodeError:  # typed at a terminal of another encoding
        reason = os.fsencode(reason).decode(sys.stderr.encoding or "utf-8", "surrogateescape")
    if not reason.strip() or not is_printable(reason) or len(reason) > MAX_REASON:
        raise UsageError(
            f"--reason: got {reason!r}; expected one printable line of at most {MAX_REASON} "
            "characters",
            hint="shorten or retype it",
        )
    return reason.strip()
