"""The contract of an experiment: what it is given, what it hands back, the shared command line.

An experiment is a module with the constants QUESTION, HYPOTHESIS and METHOD (each one string), a
function `run(ctx: Context) -> None` that measures and then calls `lab.present.write`, and at its
end `if __name__ == "__main__": main(run)`. It is started as

    python -m lab.TOPIC.NAME --config FILE --profile NAME --seed N --inputs FILE --out DIR

and writes below DIR only. This module imports neither torch nor matplotlib: `python -m lab` must
answer at once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from lab.config import Config, ConfigError, load_config
from lab.result import ContractError, Measurement, Result, Table

__all__ = [
    "Config",
    "ConfigError",
    "Context",
    "ContractError",
    "Inputs",
    "Measurement",
    "Result",
    "Table",
    "digest_of",
    "environment",
    "main",
    "sha256",
]


@dataclass(frozen=True)
class Inputs:
    """The inputs of a run: what the plan names under `inputs` and `needs`, by name."""

    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """Give the file or folder of an input; ContractError if it is not given or not there."""
        if name not in self.entries:
            given = ", ".join(sorted(self.entries)) or "none"
            msg = f"input {name!r} is not given (given: {given}); name it in the file of --inputs"
            raise ContractError(msg)
        path = Path(self.entries[name]["path"])
        if not path.exists():
            msg = (
                f"input {name!r}: {path} does not exist; fetch it (the plan's `setup`) or "
                "correct --inputs"
            )
            raise ContractError(msg)
        return path

    def digest(self, name: str) -> str:
        """Give the sha256 (hex) of an input's bytes.

        Of a folder, that of its sorted list of paths and digests.
        """
        return digest_of(self.path(name))


@dataclass(frozen=True)
class Context:
    """What a run is given.

    `progress(done, total, note)` tells the one who waits, in units of the experiment's own.
    """

    config: Config
    profile: str
    seed: int
    inputs: Inputs
    out: Path
    progress: Callable[[int, int, str], None]


def sha256(data: bytes) -> str:
    """Give the digest of some bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def digest_of(path: Path) -> str:
    """Give the sha256 (hex) of a file.

    Of a folder, that of the lines `<relative path>\\0<sha256>\\n`, sorted.
    """
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(p for p in path.rglob("*") if p.is_file())
    lines = (f"{p.relative_to(path).as_posix()}\0{digest_of(p)}\n" for p in files)
    return sha256("".join(lines).encode())


def environment(ctx: Context, *, packages: Sequence[str] = (), **facts: Any) -> dict[str, Any]:
    """Give what it takes to repeat the run: versions, machine, seed, profile, inputs, `facts`."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: metadata.version(name) for name in packages},
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
        "profile": ctx.profile,
        "seed": ctx.seed,
        "inputs": {
            name: f"sha256:{ctx.inputs.digest(name)}" for name in sorted(ctx.inputs.entries)
        },
        **facts,
    }


def main(run: Callable[[Context], None]) -> None:
    """Run an experiment from the command line.

    A usage, config or contract error is one line and exit code 2.
    """
    try:
        run(_context(sys.argv[1:]))
    except (ConfigError, ContractError) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


def _context(argv: Sequence[str]) -> Context:
    parser = argparse.ArgumentParser(description="Run one experiment of the lab.")
    parser.add_argument(
        "--config", type=Path, required=True, help="YAML file with `common` and `profiles`"
    )
    parser.add_argument("--profile", required=True, help="which of the profiles: smoke, cpu, gpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--inputs", type=Path, default=os.environ.get("PHASES_INPUTS"), help="JSON: name -> path"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="an empty or new folder; the only place written to"
    )
    args = parser.parse_args(argv)
    out = args.out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        msg = f"--out {out} exists and is not an empty folder; name a new one"
        raise ContractError(msg)
    config, inputs = load_config(args.config, args.profile), _inputs(args.inputs)
    out.mkdir(parents=True, exist_ok=True)
    return Context(
        config, args.profile, args.seed, inputs, out, _progress(os.environ.get("PHASES_EVENTS"))
    )


def _inputs(path: Path | None) -> Inputs:
    if path is None:
        return Inputs()
    try:
        return Inputs(json.loads(Path(path).read_text("utf-8")))
    except (OSError, ValueError) as error:
        msg = f"--inputs {path} cannot be read as JSON: {error}"
        raise ContractError(msg) from error


def _progress(events: str | None) -> Callable[[int, int, str], None]:
    """Append JSON lines to the runner's file.

    Without a runner draw a bar on the terminal, and else keep silent.
    """

    def to_file(done: int, total: int, note: str) -> None:
        line = json.dumps({"done": done, "total": total, "note": note}, ensure_ascii=False)
        with Path(str(events)).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def to_terminal(done: int, total: int, note: str) -> None:
        filled = 24 * done // max(total, 1)
        end = "\n" if done >= total else ""
        sys.stderr.write(
            f"\r\x1b[K[{'#' * filled}{'.' * (24 - filled)}] {done}/{total} {note}{end}"
        )
        sys.stderr.flush()

    def silent(done: int, total: int, note: str) -> None:
        pass

    return to_file if events else to_terminal if sys.stderr.isatty() else silent
