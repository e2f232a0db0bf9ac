"""Commands and exit codes, nothing else. `--json` prints one object on stdout; everything else goes to stderr."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phases import __version__
from phases.errors import PhasesError, UsageError, WaitingForHumanError
from phases.record.project import load_unverified, open_project, rewound_error
from phases.record.state import next_step
from phases.views.live import choose_view

if TYPE_CHECKING:
    from phases.record.project import Project
    from phases.run.session import Outcome

JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")


def main() -> None:
    """Entry point of `python -m phases`: errors for people, a documented exit code, no traceback unless asked for."""
    debug = "--debug" in sys.argv
    try:
        # Without standalone mode click hands the code of `context.exit` back as the return value.
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except PhasesError as error:
        if debug:
            raise
        word = "" if isinstance(error, WaitingForHumanError) else "error: "
        sys.stderr.write(f"{word}{error}\n" + (f"next: {error.hint}\n" if error.hint else ""))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output is gone; Python would complain once more while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if debug:
            raise
        from phases.base import durable

        where = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(
            f"error: {where}{error.strerror or error}\nnext: {durable.hint_for(error)}\n"
        )
        sys.exit(7)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    default=Path(),
    help="The repository to run; default: here.",
)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.version_option(__version__, prog_name="phases")
@click.pass_context
def cli(context: click.Context, root: Path, debug: bool) -> None:
    """Run phases of experiments, each judged by a gate that can fail, each phase project by a person.

    Exit codes: 0 done, 1 a gate failed or an experiment errored, 2 usage or invalid PRD, 3 the record does not hold,
    4 waiting for a person, 5 a limit was reached, 6 another runner is at work, 7 the environment is at fault,
    130 interrupted.
    """
    del debug
    context.obj = root


def _open(context: click.Context) -> Project:
    from phases.record.project import open_project

    return open_project(context.obj)


def _print_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=1, ensure_ascii=False))


@cli.command()
@JSON
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Where the project stands, and the one command to type next."""
    from phases.views import status as views

    project, snapshot = _book(context)
    step = next_step(project.outline, snapshot.state)
    if as_json:
        _print_json(views.status_json(project.outline, snapshot, step))
    else:
        ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
        click.echo(
            views.status_text(project.outline, snapshot, step, project.outline.results, ascii_only)
        )


def _warn(project: Project, snapshot: Any) -> None:
    """What does not hold is said before anything else; reading commands go on."""

    if project.probe.rewound:
        error = rewound_error(project.probe)
        click.echo(f"warning: {error.code}: {error}\nnext: {error.hint}", err=True)
    for problem in snapshot.reconciled.problems:
        click.echo(f"warning: {problem.code}: {problem.message}", err=True)


@cli.command()
@JSON
@click.pass_context
def plan(context: click.Context, as_json: bool) -> None:
    """What `run --next` would do and why, with expected minutes and memory."""
    _show_plan(_open(context), as_json)


def _show_plan(project: Project, as_json: bool) -> None:
    from phases.views import status as views

    snapshot = load_unverified(project)
    _warn(project, snapshot)
    step = next_step(project.plan, snapshot.state)
    if as_json:
        _print_json(views.plan_json(project.plan, snapshot, step))
    else:
        click.echo(views.plan_text(project.plan, snapshot, step))


@cli.command()
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
def run(
    context: click.Context,
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
    if next_phase == (feature is not None):
        raise UsageError(
            "say what to run: --next, or --feature ID", hint="python -m phases run --next"
        )
    if (scratch or force) and feature is None:
        raise UsageError(
            "--scratch and --force go with --feature ID",
            hint="python -m phases run --feature ID --scratch",
        )
    if profile and not scratch:
        raise UsageError(
            "--profile goes with --scratch: what counts runs the PRD's profile",
            hint="add --scratch",
        )
    project = _open(context)
    if dry_run:
        _show_plan(project, as_json)
        return

    with choose_view(silent=as_json) as view:
        if scratch and feature:
            from phases.run.scratch import run_scratch

            told = run_scratch(project, view, feature, profile)
            if as_json:
                _print_json({"scratch": True, "features": [told.json()]})
            context.exit(0 if told.state == "verified" else 1)
        from phases.run.runner import run_next

        outcome = run_next(project, view, only=feature, force=force, keep_going=keep_going)
    _report(project, outcome, as_json)
    context.exit(_exit_code(outcome))


def _report(project: Project, outcome: Outcome, as_json: bool) -> None:
    if as_json:
        features = [
            {
                "id": item.id,
                "state": item.state,
                "seconds": item.seconds,
                "receipt": item.receipt and f"sha256:{item.receipt}",
                "checks": {
                    "passed": item.passed,
                    "failed": len(item.failing),
                    "failing": list(item.failing),
                },
            }
            for item in outcome.features
        ]
        _print_json({"phase": outcome.phase, "state": outcome.state, "features": features})
        return
    if outcome.state == "awaiting_approval":
        click.echo(
            f"Phase {outcome.phase} awaits your approval: `python -m phases approve {outcome.phase}`",
            err=True,
        )
        click.echo(f"To review: {project.plan.results}/, progress.txt, git log", err=True)
    elif outcome.state == "done":
        click.echo("Every phase is approved; nothing is left to do.", err=True)
    else:
        click.echo(
            f"Phase {outcome.phase} is {outcome.state}; python -m phases status says what is next",
            err=True,
        )


def _exit_code(outcome: Outcome) -> int:
    if any(item.timed_out for item in outcome.features):
        return 5
    failed = outcome.exit_failing or any(item.state != "verified" for item in outcome.features)
    return 1 if failed or outcome.state == "failed" else 0


@cli.command()
@click.argument("feature_ids", nargs=-1, metavar="[ID]...")
@JSON
@click.pass_context
def verify(context: click.Context, feature_ids: tuple[str, ...], as_json: bool) -> None:
    """Run gates again on what is stored; nothing is recorded."""
    from phases.run.scratch import verify_features

    project = _open(context)
    with choose_view(silent=as_json) as view:
        told = verify_features(project, view, feature_ids)
    ok = all(item.state == "verified" for item in told)
    if as_json:
        _print_json({"ok": ok, "features": [item.json() for item in told]})
    if not told:
        click.echo("nothing is verified yet", err=True)
    context.exit(0 if ok else 1)


@cli.command()
@click.argument("phase", type=int)
@click.option(
    "--waive",
    metavar="ID",
    help="Do not approve: let the phase go on without this feature, which failed.",
)
@click.option("--reason", help="With --waive: why; it stands in the record.")
@click.pass_context
def approve(context: click.Context, phase: int, waive: str | None, reason: str | None) -> None:
    """Approve a phase that waits, by words typed at the controlling terminal. Starts nothing."""
    from phases.decisions import decide

    if (waive is None) != (reason is None):
        raise UsageError(
            "--waive ID and --reason TEXT go together, and approving a phase takes neither",
            hint=f"python -m phases approve {phase} --waive ID --reason '…'",
        )
    project = _open(context)
    if waive is not None:
        from phases.decisions import waive as waiving

        path = waiving.waive(
            project, phase, waive, _one_line(reason or ""), _summary(project, phase)
        )
        click.echo(
            f"{waive} is waived; recorded in {path}.\nnext: python -m phases run --next", err=True
        )
        return
    path = decide.approve(project, phase, _summary(project, phase))
    click.echo(
        f"Phase {phase} is approved; recorded in {path}.\nnext: python -m phases run --next",
        err=True,
    )


@cli.command()
@click.argument("phase", type=int)
@click.option("--reason", required=True, help="Why; it stands in the record.")
@click.option("--feature", metavar="ID", help="Only this feature and what depends on it run again.")
@click.pass_context
def reject(context: click.Context, phase: int, reason: str, feature: str | None) -> None:
    """Send a phase back: its lock is released and its features run again."""
    from phases.decisions import decide

    project = _open(context)
    path = decide.reject(project, phase, _one_line(reason), feature, _summary(project, phase))
    click.echo(
        f"Phase {phase} is rejected; recorded in {path}.\nnext: python -m phases run --next",
        err=True,
    )


@cli.command()
@click.argument("phase", type=int)
@click.option("--reason", required=True, help="Why; it stands in the record.")
@click.pass_context
def relock(context: click.Context, phase: int, reason: str) -> None:
    """Lock a changed plan within a phase; what it changes runs again."""
    from phases.decisions import decide

    project = _open(context)
    path = decide.relock(project, phase, _one_line(reason), _summary(project, phase))
    click.echo(
        f"Phase {phase} is locked anew; recorded in {path}.\nnext: python -m phases run --next",
        err=True,
    )


def _one_line(reason: str) -> str:
    from phases.base.text import is_printable

    if not reason.strip() or not is_printable(reason) or len(reason) > 280:
        raise UsageError(
            "--reason: wanted one printable line of at most 280 characters",
            hint="shorten or retype it",
        )
    return reason.strip()


def _summary(project: Project, phase_id: int) -> str:
    """What a person reads before a decision: features, checks, coverage, predictions, digests."""
    from phases.base import strict_json
    from phases.decisions import decision
    from phases.views import status as views

    phase = decision.known_phase(project, phase_id)
    current = load_unverified(project).state.phase(phase_id)
    details = {}
    for item in current.features:
        path = project.root / project.paths.results(item.id) / "verdict.json"
        if item.receipt and item.state == "verified" and path.is_file():
            details[item.id] = views.verdict_details(strict_json.loads(path.read_bytes()))
    return views.checkpoint_text(phase, current, details, project.plan.results)


@cli.command()
@JSON
@click.pass_context
def audit(context: click.Context, as_json: bool) -> None:
    """Prove ledger, journal, commits, receipts, approvals and artifacts, offline."""
    from phases.audit import audit as auditing
    from phases.audit import findings

    report = auditing.audit(_open(context))
    if as_json:
        _print_json(report.json())
    else:
        click.echo(findings.text(report))
    context.exit(0 if report.ok else 3)


@cli.command()
@click.option("--last", "-l", type=click.IntRange(min=1), help="Only the last N entries.")
@click.option("--feature", metavar="ID", help="Only entries of this feature.")
@click.option("--raw", is_flag=True, help="As progress.txt has them, digests and all.")
@JSON
@click.pass_context
def log(
    context: click.Context, last: int | None, feature: str | None, raw: bool, as_json: bool
) -> None:
    """The entries of progress.txt, in sentences."""
    from phases.views import sentences

    snapshot = _book(context)[1]
    entries = [
        entry for entry in snapshot.ledger.entries if feature is None or entry.feature == feature
    ]
    entries = entries[-last:] if last else entries
    if as_json:
        _print_json(sentences.as_json(entries))
    else:
        told = sentences.raw(entries) if raw else sentences.text(entries)
        click.echo(told or "no entries yet; next: python -m phases run --next")


@cli.command()
@click.argument("feature_id", metavar="ID")
@JSON
@click.pass_context
def show(context: click.Context, feature_id: str, as_json: bool) -> None:
    """A feature: its entries, receipt, verdict, measurements, predictions, and where its files are."""
    from phases.views import show as showing

    project, snapshot = _book(context)
    told = showing.show(project, snapshot, feature_id)
    _print_json(told) if as_json else click.echo(showing.text(told))


@cli.command()
@click.argument("feature_id", metavar="ID")
@JSON
@click.pass_context
def why(context: click.Context, feature_id: str, as_json: bool) -> None:
    """Why a feature is in its state, and whether it would run now."""
    from phases.views import why as explaining

    project, snapshot = _book(context)
    told = explaining.why(project.outline, snapshot, feature_id)
    _print_json(told) if as_json else click.echo(explaining.text(told))


@cli.command()
@JSON
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """What is missing on this machine, and what is lost without it."""
    from phases.views import doctor as examining

    checks = examining.examine(context.obj.absolute())
    _print_json(examining.as_json(checks)) if as_json else click.echo(examining.text(checks))
    context.exit(0 if examining.is_fit(checks) else 7)


def _book(context: click.Context) -> tuple[Project, Any]:
    """The project and its ledger for a command that only reads, with warnings about what does not hold."""

    project = open_project(context.obj)
    snapshot = load_unverified(project)
    _warn(project, snapshot)
    return project, snapshot
