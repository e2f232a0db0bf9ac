"""The contract of an experiment: what it is given, what it hands back, the shared command line.

An experiment is a module with

- `EXPERIMENT`, an `Experiment`: its title, question, hypothesis, method and headline measurements;
- `run(ctx: Context) -> Outcome`, which measures, stores its arrays below
  `ctx.out / "artifacts"` and returns numbers, tables, findings and figures;
- at its end `if __name__ == "__main__": main(EXPERIMENT, run)`.

It is started as

    python -m lab.TOPIC.experiment --config FILE --profile NAME --seed N --inputs FILE --out DIR

and writes below DIR only. This module imports neither torch nor matplotlib: `python -m lab` must
answer at once.
"""

from __future__ import annotations

import argparse
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
from lab.digests import digest_of
from lab.present import Figure, Heatmap, Panel, write
from lab.result import ContractError, Measurement, Result, Table

__all__ = [
    "Config",
    "Context",
    "ContractError",
    "Experiment",
    "Figure",
    "Heatmap",
    "Inputs",
    "Measurement",
    "Outcome",
    "Panel",
    "Result",
    "Table",
    "conduct",
    "main",
]

BAR = 24  # characters of the progress bar


@dataclass(frozen=True)
class Experiment:
    """What an experiment asks and how; written before the first run and not changed after it.

    title: in words, the heading of its report; headline: the measurements to read first, by name;
    packages: installed distributions whose versions the result records.
    """

    title: str
    question: str
    hypothesis: str
    method: str
    headline: tuple[str, ...]
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inputs:
    """The inputs of a run: what the plan names under `inputs` and `needs`, by name."""

    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """Return the file or folder of an input.

        Raises:
            ContractError: the input is not given, or does not exist.
        """
        if name not in self.entries:
            names = ", ".join(sorted(self.entries)) or "none"
            msg = f"input {name!r} is not given (given: {names}); name it in the file of --inputs"
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
        """Return the sha256 (hex) of an input's bytes; of a folder, see `digest_of`."""
        return digest_of(self.path(name))


@dataclass(frozen=True)
class Context:
    """What a run is given.

    out: the only folder it writes to; `progress(done, total, note)` reports to whoever waits, in
    units of the experiment's own.
    """

    config: Config
    profile: str
    seed: int
    inputs: Inputs
    out: Path
    progress: Callable[[int, int, str], None]


@dataclass(frozen=True)
class Outcome:
    """What a run hands back.

    findings: sentences made from the numbers of `measurements`, so that another number makes
    another sentence; environment: what it takes to repeat the run, beyond what `conduct` records of
    every run (versions, machine, seed, profile, config, inputs).
    """

    measurements: Mapping[str, Measurement]
    tables: Sequence[Table] = ()
    findings: Sequence[str] = ()
    figures: Sequence[Figure | Heatmap] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)


def conduct(experiment: Experiment, run: Callable[[Context], Outcome], ctx: Context) -> None:
    """Run an experiment, then write its figures, result.json and report.md below `ctx.out`."""
    outcome = run(ctx)
    result = Result(
        experiment=_module_name(run),
        title=experiment.title,
        question=experiment.question,
        hypothesis=experiment.hypothesis,
        method=experiment.method,
        headline=experiment.headline,
        measurements=outcome.measurements,
        tables=tuple(outcome.tables),
        findings=tuple(outcome.findings),
        environment=_environment(ctx, experiment.packages) | dict(outcome.environment),
    )
    write(ctx.out, result, outcome.figures)


def main(experiment: Experiment, run: Callable[[Context], Outcome]) -> None:
    """Run an experiment from the command line.

    A usage, config or contract error is one line and exit code 2.
    """
    try:
        conduct(experiment, run, _context(sys.argv[1:]))
    except (ConfigError, ContractError) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


def _module_name(run: Callable[[Context], Outcome]) -> str:
    """Return the name by which `python -m` starts the experiment."""
    # Under `python -m` the module is called __main__; its spec keeps the real name.
    spec = sys.modules[run.__module__].__spec__
    if spec is None:
        return run.__module__
    return spec.name


def _environment(ctx: Context, packages: Sequence[str]) -> dict[str, Any]:
    """Return what it takes to repeat any run: versions, machine, seed, profile, config, inputs."""
    inputs = {name: f"sha256:{ctx.inputs.digest(name)}" for name in sorted(ctx.inputs.entries)}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: metadata.version(name) for name in packages},
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
        "profile": ctx.profile,
        "seed": ctx.seed,
        "inputs": inputs,
        "config": dict(ctx.config),
    }


def _context(argv: Sequence[str]) -> Context:
    """Read the command line; make the output folder."""
    # 1. The arguments.
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

    # 2. Refuse what is not there or would be overwritten, before anything is written.
    out = args.out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        msg = f"--out {out} exists and is not an empty folder; name a new one"
        raise ContractError(msg)
    config = load_config(args.config, args.profile)
    inputs = _read_inputs(args.inputs)

    # 3. The folder.
    out.mkdir(parents=True, exist_ok=True)
    return Context(
        config=config,
        profile=args.profile,
        seed=args.seed,
        inputs=inputs,
        out=out,
        progress=_progress(os.environ.get("PHASES_EVENTS")),
    )


def _read_inputs(path: Path | None) -> Inputs:
    if path is None:
        return Inputs()
    try:
        return Inputs(json.loads(Path(path).read_text("utf-8")))
    except (OSError, ValueError) as error:
        msg = f"--inputs {path} cannot be read as JSON: {error}"
        raise ContractError(msg) from error


def _progress(events: str | None) -> Callable[[int, int, str], None]:
    """Return what reports progress: as JSON lines to the runner's file `events`.

    Without a runner it draws a bar on the terminal; without a terminal it is silent.
    """

    def to_file(done: int, total: int, note: str) -> None:
        line = json.dumps({"done": done, "total": total, "note": note}, ensure_ascii=False)
        with Path(str(events)).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def to_terminal(done: int, total: int, note: str) -> None:
        filled = BAR * done // max(total, 1)
        bar = "#" * filled + "." * (BAR - filled)
        end = "\n" if done >= total else ""
        sys.stderr.write(f"\r\x1b[K[{bar}] {done}/{total} {note}{end}")
        sys.stderr.flush()

    def silent(done: int, total: int, note: str) -> None:
        pass

    if events:
        return to_file
    if sys.stderr.isatty():
        return to_terminal
    return silent
