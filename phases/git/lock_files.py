"""Lock files that git leaves behind when it is killed, and the proof that they are ours before one is removed.

Before git writes for the runner, a note lists which of its lock files do not exist. A lock is ours if the note names
it, this runner holds the runner's own lock (which every git that the runner starts inherits, so none of them lives),
and no git of anybody's is at work in this repository. Age is never asked. Any other lock is left, and git names it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from phases.base import durable
from phases.errors import EnvironmentFaultError


def names(git_dir: Path, common_dir: Path, log_ref: str) -> list[Path]:
    """The locks that a commit and a moved ref take: index, HEAD, the branch, the runner's ref, packed refs."""
    head = (git_dir / "HEAD").read_text("utf-8", "replace").strip()
    refs = [head.removeprefix("ref: "), log_ref] if head.startswith("ref: ") else [log_ref]
    return [git_dir / "index.lock", git_dir / "HEAD.lock", common_dir / "packed-refs.lock"] + [
        common_dir / f"{ref}.lock" for ref in refs
    ]


@contextlib.contextmanager
def noted(
    common_dir: Path, git_dir: Path, locks: Sequence[Path], was_killed: Callable[[], bool]
) -> Iterator[None]:
    """Writes the note for as long as git works. A git that ends by itself takes its locks along; what one leaves that
    died by a signal is cleared at once."""
    temporary = sorted(path.name for path in git_dir.glob("next-index-*.lock"))
    absent = [str(path) for path in locks if not path.exists()]
    durable.write(
        _note(common_dir),
        json.dumps({"absent": absent, "gitDir": str(git_dir), "kept": temporary}).encode(),
    )
    try:
        yield
    finally:
        if was_killed():
            clear(common_dir)
        else:
            durable.remove(_note(common_dir))


def clear(common_dir: Path) -> None:
    """Removes the locks that the note proves to be ours, then the note. The caller holds the runner's lock.

    Raises:
        EnvironmentFaultError: a git is at work here, so nothing is proved; it names lock and process.
    """
    note = _note(common_dir)
    try:
        facts = json.loads(note.read_bytes())
        git_dir, kept = Path(facts["gitDir"]), set(facts["kept"])
        ours = [Path(name) for name in facts["absent"] if Path(name).exists()]
        ours += [path for path in git_dir.glob("next-index-*.lock") if path.name not in kept]
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        ours = []  # a note that cannot be read proves nothing
    if ours and (living := _gits_at_work(common_dir)):
        raise EnvironmentFaultError(
            f"{ours[0]} was left by a git that the runner started, or belongs to a git at work here: {living[0]}",
            hint="wait for it to end, then run the same command again",
        )
    for path in ours:
        durable.remove(path)
    durable.remove(note)


def _note(common_dir: Path) -> Path:
    return common_dir / "phases" / "git-locks.json"


def _gits_at_work(common_dir: Path) -> list[str]:
    """`pid N (git …)` of every git process that works in this repository, or whose folder cannot be seen."""
    import psutil

    places = [common_dir.resolve(), common_dir.resolve().parent]
    found = []
    for process in psutil.process_iter(["pid", "name"]):
        if not str(process.info["name"] or "").startswith("git"):
            continue
        try:
            folder = Path(process.cwd())
            command = " ".join(process.cmdline())
            if process.status() == psutil.STATUS_ZOMBIE or not any(
                map(folder.is_relative_to, places)
            ):
                continue
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        except psutil.AccessDenied:
            command = "git of another user"
        found.append(f"pid {process.info['pid']} ({command})")
    return found
