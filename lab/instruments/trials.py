"""A sweep's trials: each described whole, run once, stored, and found again by what it is.

run(trials, sweep_context, out)
    _known     trials that an earlier feature has run, taken by the digest of their description
    _work      the others, `workers` at a time, each on one thread in a process of its own
        train → evaluate → store: adapter, steps, evaluation, description

One thread a trial: a small model's step is hundreds of small operations, of which a second thread
speeds up only the matrix products, while a second process speeds up everything; and a trial's bits
do not depend on what runs beside it.
"""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch

from lab.instruments import adapters, data, evaluation, models, training
from lab.instruments.adapters import LoraSettings
from lab.instruments.evaluation import Evaluation
from lab.instruments.training import Settings, Step

if TYPE_CHECKING:
    from peft import PeftModel

FOLDER = "trials"  # below artifacts/
DESCRIPTION = "trial.json"
BASE = "base"  # the folder of the model without an adapter
INSTRUMENTS = Path(__file__).parent


@dataclass(frozen=True)
class Trial:
    """One training run, described whole.

    seed: draws the adapter's A and the order of the training pool, of which the first `examples`
    are used, again and again if the steps need more; shuffled: their answers are mixed among them
    (the control that can learn the format only); curve_every: optimizer steps between evaluations
    of the curve's examples, 0 for none.
    """

    seed: int
    training: Settings
    lora: LoraSettings
    examples: int
    shuffled: bool = False
    curve_every: int = 0

    @property
    def name(self) -> str:
        """A folder's name that says what it is: r16-a32-lr0.001-b8-s20-n160-seed0."""
        t, scale = self.training, "rs" if self.lora.use_rslora else ""
        parts = [
            f"r{self.lora.r}",
            f"{scale}a{self.lora.lora_alpha:g}",
            f"lr{t.learning_rate:g}",
            f"b{t.batch_size}",
        ]
        parts += [
            f"s{t.steps}",
            f"n{self.examples}",
            *(["shuffled"] if self.shuffled else []),
            f"seed{self.seed}",
        ]
        return "-".join(parts)


@dataclass(frozen=True)
class SweepContext:
    """What all trials of a sweep have in common: the model, the frozen data, the precision.

    It can be sent to a process.

    model: a folder; train, evaluation: JSONL files of `data.freeze`; curve: how many of the
    evaluation examples a curve is made of; threads: of each trial.
    """

    model: Path
    train: Path
    evaluation: Path
    dtype: str
    device: str
    curve: int
    threads: int = 1

    def description(self) -> dict[str, Any]:
        """What of it a trial's numbers depend on, by content and not by place."""
        return {
            "model_sha256": models.digest_of(self.model),
            "train_sha256": _digest(self.train),
            "evaluation_sha256": _digest(self.evaluation),
            "dtype": self.dtype,
            "device": self.device,
            "curve": self.curve,
            "threads": self.threads,
            "torch": torch.__version__,
            "code_sha256": _code(),
        }


@dataclass(frozen=True)
class TrialResult:
    """A trial that was run, as it lies in `folder`.

    curve: (steps done, nats/token on the curve's examples).
    """

    trial: Trial
    folder: Path
    steps: tuple[Step, ...]
    curve: tuple[tuple[int, float], ...]
    evaluation: Evaluation
    reused: bool


def run(
    trials: Sequence[Trial],
    sweep_context: SweepContext,
    artifacts: Path,
    *,
    workers: int,
    known: Iterable[Path] = (),
    tell: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> dict[Trial, TrialResult]:
    """Run each trial, or find it among `known`; give all of them in the order asked for.

    Args:
        trials: different ones; each is stored in artifacts/trials/<its name>/.
        sweep_context: what they have in common.
        artifacts: folder of this feature's artifacts.
        workers: trials at the same time; 1: in this process.
        known: artifacts folders of earlier features. A trial found there is not copied:
            `folder` leads to it.
        tell: progress in optimizer steps, called after each trial.
    """
    common = sweep_context.description()
    found = {trial: folder for trial in trials if (folder := _known(trial, common, known))}
    missing = [trial for trial in trials if trial not in found]
    total, done = sum(trial.training.steps for trial in missing), 0
    tell(0, total, f"{len(missing)} trials to run, {len(found)} taken over")
    for trial in _work(missing, sweep_context, artifacts / FOLDER, common, workers):
        done += trial.training.steps
        tell(done, total, trial.name)
    return {t: read(found.get(t) or artifacts / FOLDER / t.name, reused=t in found) for t in trials}


def base(sweep_context: SweepContext, artifacts: Path, *, known: Iterable[Path] = ()) -> Evaluation:
    """The base on the evaluation examples.

    Taken over from `known`, else computed, and stored beside the trials.
    """
    common = sweep_context.description()
    wanted = hashlib.sha256(json.dumps(common, sort_keys=True).encode()).hexdigest()
    for place in known:
        description = place / FOLDER / BASE / DESCRIPTION
        if (
            description.is_file()
            and json.loads(description.read_text("utf-8"))["identity"] == wanted
        ):
            return Evaluation(**load_file(description.parent / "evaluation.safetensors"))
    stage = Stage(sweep_context)
    found = evaluation.evaluate(
        stage.loaded.model, [example.encoded for example in stage.evaluation]
    )
    folder = artifacts / FOLDER / BASE
    folder.mkdir(parents=True)
    _write_evaluation(folder, found)
    description = {"identity": wanted, **common}
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    return found


def read(folder: Path, *, reused: bool = False) -> TrialResult:
    """Read a stored trial."""
    steps, found = (
        load_file(folder / "steps.safetensors"),
        load_file(folder / "evaluation.safetensors"),
    )
    names = [field.name for field in fields(Step)]
    return TrialResult(
        trial=described(json.loads((folder / DESCRIPTION).read_text("utf-8"))["trial"]),
        folder=folder,
        steps=tuple(
            Step(*row) for row in zip(*(steps[name].tolist() for name in names), strict=True)
        ),
        curve=tuple((int(done), loss) for done, loss in steps["curve"].tolist()),
        evaluation=Evaluation(**found),
        reused=reused,
    )


def described(raw: Mapping[str, Any]) -> Trial:
    """Make a trial from the JSON that `asdict` made of it."""
    settings = {**raw["training"], "betas": tuple(raw["training"]["betas"])}
    return Trial(**{**raw, "training": Settings(**settings), "lora": LoraSettings(**raw["lora"])})


def identity(trial: Trial, common: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of all that a trial's numbers depend on."""
    return hashlib.sha256(
        json.dumps({"trial": asdict(trial), **common}, sort_keys=True).encode()
    ).hexdigest()


def _known(trial: Trial, common: Mapping[str, Any], places: Iterable[Path]) -> Path | None:
    wanted = identity(trial, common)
    for place in places:
        description = place / FOLDER / trial.name / DESCRIPTION
        if (
            description.is_file()
            and json.loads(description.read_text("utf-8"))["identity"] == wanted
        ):
            return description.parent
    return None


def _work(
    trials: Sequence[Trial],
    sweep_context: SweepContext,
    folder: Path,
    common: Mapping[str, Any],
    workers: int,
) -> Iterator[Trial]:
    """Run trials, long ones first so that none is left over at the end; give each when done."""
    ordered = sorted(trials, key=lambda trial: -trial.training.steps * trial.training.batch_size)
    if workers == 1 or len(trials) < 2:
        stage = Stage(sweep_context)
        for trial in ordered:
            yield _one(stage, trial, folder, common)
        return
    with ProcessPoolExecutor(
        min(workers, len(trials)), multiprocessing.get_context("spawn"), _enter, (sweep_context,)
    ) as pool:
        running: list[Future[Trial]] = [
            pool.submit(_in_worker, trial, folder, common) for trial in ordered
        ]
        for future in as_completed(running):
            yield future.result()


class Stage:
    """A process's own model and data, loaded once and used by one trial after the other."""

    def __init__(self, sweep_context: SweepContext) -> None:
        self.sweep_context = sweep_context
        self.loaded = models.load(
            sweep_context.model,
            dtype=getattr(torch, sweep_context.dtype),
            device=sweep_context.device,
        )
        self.pool = data.thaw(sweep_context.train)
        self.evaluation = data.thaw(sweep_context.evaluation)

    def examples(self, trial: Trial) -> tuple[data.Example, ...]:
        """The training examples of a trial, in the order of use."""
        return ordered(self.pool, trial)

    def adapted(self, trial: Trial, folder: Path | None) -> "PeftModel":
        """The model with the adapter stored in `folder`, or with the one the trial starts from."""
        model = adapters.attach(self.loaded, trial.lora, trial.seed)
        if folder is not None:
            adapters.restore(model, load_torch(folder / adapters.WEIGHTS))
        return model


def ordered(pool: Sequence[data.Example], trial: Trial) -> tuple[data.Example, ...]:
    """The pool's first `examples` in the seed's order; if `shuffled` each with another's answer."""
    generator = torch.Generator().manual_seed(trial.seed)
    order = torch.randperm(len(pool), generator=generator).tolist()[: trial.examples]
    chosen = tuple(pool[i] for i in order)
    return data.shuffled(chosen, trial.seed) if trial.shuffled else chosen


_stage: Stage | None = None  # of this worker process


def _enter(sweep_context: SweepContext) -> None:
    global _stage  # noqa: PLW0603 - a pool's worker has no other place that outlives a call
    os.environ["OMP_NUM_THREADS"] = str(sweep_context.threads)
    torch.set_num_threads(sweep_context.threads)
    _stage = Stage(sweep_context)


def _in_worker(trial: Trial, folder: Path, common: Mapping[str, Any]) -> Trial:
    assert _stage is not None, "the pool's initializer did not run"
    return _one(_stage, trial, folder, common)


def _one(stage: Stage, trial: Trial, folder: Path, common: Mapping[str, Any]) -> Trial:
    """Train and evaluate one trial, and write it."""
    before = torch.get_num_threads()
    torch.set_num_threads(stage.sweep_context.threads)
    model = adapters.attach(stage.loaded, trial.lora, trial.seed)
    try:
        held_out = [example.encoded for example in stage.evaluation]
        curve: list[tuple[int, float]] = []

        def after_step(done: int, step: Step, optimizer: torch.optim.Optimizer) -> None:
            if (
                trial.curve_every
                and (done == 1 or done % trial.curve_every == 0)
                and done < trial.training.steps
            ):
                losses = evaluation.evaluate(model, held_out[: stage.sweep_context.curve]).losses
                curve.append((done, float(losses.mean(dtype="float64"))))

        examples = [example.encoded for example in stage.examples(trial)]
        steps = training.train(
            model, examples, trial.training, after_step=after_step, held_out=held_out
        )
        found = evaluation.evaluate(model, held_out)
        _store(folder / trial.name, trial, common, steps, curve, found)
        adapters.save(model, folder / trial.name)
    finally:
        model.unload()  # takes the adapter's layers out of the base, which the next trial uses
        torch.set_num_threads(before)
    return trial


def _store(
    folder: Path,
    trial: Trial,
    common: Mapping[str, Any],
    steps: Sequence[Step],
    curve: Sequence[tuple[int, float]],
    found: Evaluation,
) -> None:
    folder.mkdir(parents=True)
    columns = {
        f.name: np.array([getattr(s, f.name) for s in steps], dtype=np.float64)
        for f in fields(Step)
    }
    columns["curve"] = np.array(curve, dtype=np.float64).reshape(-1, 2)
    _save(columns, folder / "steps.safetensors")
    _write_evaluation(folder, found)
    description = {"identity": identity(trial, common), "trial": asdict(trial), **common}
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def _write_evaluation(folder: Path, found: Evaluation) -> None:
    arrays = {
        field.name: np.ascontiguousarray(getattr(found, field.name)) for field in fields(Evaluation)
    }
    _save(arrays, folder / "evaluation.safetensors")


def _save(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    save_file(dict(arrays), path)
    path.chmod(0o644)  # safetensors makes it private to its owner


def _code() -> str:
    """SHA-256 (hex) of `code_files`, so that no trial of other code is taken over."""
    digest = hashlib.sha256()
    for path in code_files():
        name = path.relative_to(INSTRUMENTS).as_posix()
        digest.update(f"{name} {_digest(path)}\n".encode())
    return digest.hexdigest()


def code_files() -> list[Path]:
    """Return every file of code that a trial's numbers may depend on: all instruments.

    Some changes make a trial run again for nothing, but none lets an old number stand as a new one.
    """
    return sorted(INSTRUMENTS.rglob("*.py"))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
