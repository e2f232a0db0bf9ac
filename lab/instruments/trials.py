"""A sweep's trials: each described completely, run once, stored, and reused by its description.

run(trials, sweep_context, artifacts)
    _find_stored   trials that an earlier feature has run, by the digest of their description
    _run_missing   the others, `workers` at a time, each on one thread in a process of its own
        train → evaluate → store: adapter, steps, evaluation, description

One thread a trial: a small model's step is hundreds of small operations, of which a second thread
speeds up only the matrix products, while a second process speeds up everything; and a trial's bits
do not depend on what runs beside it.
"""

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
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch

from lab.digests import digest_of, sha256
from lab.instruments import adapters, data, evaluation, models, training
from lab.instruments.adapters import LoraSettings
from lab.instruments.arrays import save_arrays
from lab.instruments.code_digest import code_digest
from lab.instruments.evaluation import Evaluation
from lab.instruments.training import Settings, Step

if TYPE_CHECKING:
    from peft import PeftModel

FOLDER = "trials"  # below artifacts/
DESCRIPTION = "trial.json"
BASE = "base"  # the folder of the model without an adapter
MODULE = "lab.instruments.trials"  # where the code of a trial begins


@dataclass(frozen=True)
class Trial:
    """One training run, described completely.

    seed: draws the adapter's A and the order of the training pool, of which the first `examples`
    are used, again and again if the steps need more; shuffled: their answers are mixed among them
    (the control that can learn the format only); curve_every: optimizer steps between evaluations
    of the curve's examples; 0: no evaluation before the end.
    """

    seed: int
    training: Settings
    lora: LoraSettings
    examples: int
    shuffled: bool = False
    curve_every: int = 0

    @property
    def name(self) -> str:
        """Return the name of the trial's folder, such as r16-a32-lr0.001-b8-s20-n160-seed0."""
        scale = "rsa" if self.lora.use_rslora else "a"
        parts = [
            f"r{self.lora.r}",
            f"{scale}{self.lora.lora_alpha:g}",
            f"lr{self.training.learning_rate:g}",
            f"b{self.training.batch_size}",
            f"s{self.training.steps}",
            f"n{self.examples}",
        ]
        if self.shuffled:
            parts.append("shuffled")
        return "-".join([*parts, f"seed{self.seed}"])


@dataclass(frozen=True)
class SweepContext:
    """What all trials of a sweep have in common: the model, the stored data, the precision.

    It can be sent to a process.

    model: a folder; train, evaluation: JSONL files of `data.write_examples`; curve: how many of the
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
        """Return what a trial's numbers depend on, files by their content and not by their path."""
        return {
            "model_sha256": models.weights_digest(self.model),
            "train_sha256": digest_of(self.train),
            "evaluation_sha256": digest_of(self.evaluation),
            "dtype": self.dtype,
            "device": self.device,
            "curve": self.curve,
            "threads": self.threads,
            "torch": torch.__version__,
            "code_sha256": code_digest(MODULE),
        }


@dataclass(frozen=True)
class TrialResult:
    """A trial that was run, as it is stored in `folder`.

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
    earlier: Iterable[Path] = (),
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> dict[Trial, TrialResult]:
    """Run each trial, or read it where `earlier` has it; return all in the order of `trials`.

    Args:
        trials: different ones; each is stored in artifacts/trials/<its name>/.
        sweep_context: what they have in common.
        artifacts: folder of this feature's artifacts.
        workers: trials at the same time; 1: in this process.
        earlier: artifacts folders of earlier features. A trial found there is not copied:
            its `folder` is there.
        progress: of the optimizer steps; called after each trial with (done, total, note).
    """
    common = sweep_context.description()
    earlier = list(earlier)

    # 1. What earlier features have run already.
    stored: dict[Trial, Path] = {}
    for trial in trials:
        folder = _find_stored(trial.name, identity(trial, common), earlier)
        if folder is not None:
            stored[trial] = folder
    missing = [trial for trial in trials if trial not in stored]

    # 2. The others.
    total = sum(trial.training.steps for trial in missing)
    done = 0
    progress(0, total, f"{len(missing)} trials to run, {len(stored)} reused")
    for trial in _run_missing(
        missing, sweep_context, folder=artifacts / FOLDER, common=common, workers=workers
    ):
        done += trial.training.steps
        progress(done, total, trial.name)

    # 3. All of them, read back from their files.
    results = {}
    for trial in trials:
        folder = stored.get(trial, artifacts / FOLDER / trial.name)
        results[trial] = read(folder, reused=trial in stored)
    return results


def base(
    sweep_context: SweepContext, artifacts: Path, *, earlier: Iterable[Path] = ()
) -> Evaluation:
    """Return the evaluation of the model without an adapter on the evaluation examples.

    It is read where `earlier` has it; else computed, and stored beside the trials.
    """
    common = sweep_context.description()
    digest = _digest_of_json(common)
    stored = _find_stored(BASE, digest, earlier)
    if stored is not None:
        return Evaluation(**load_file(stored / "evaluation.safetensors"))
    stage = Stage(sweep_context)
    scores = evaluation.evaluate(
        stage.loaded.model, [example.encoded for example in stage.evaluation]
    )
    folder = artifacts / FOLDER / BASE
    folder.mkdir(parents=True)
    _write_evaluation(folder, scores)
    _write_description(folder, {"identity": digest, **common})
    return scores


def read(folder: Path, *, reused: bool = False) -> TrialResult:
    """Read a stored trial."""
    columns = load_file(folder / "steps.safetensors")
    rows = zip(*(columns[field.name].tolist() for field in fields(Step)), strict=True)
    description = json.loads((folder / DESCRIPTION).read_text("utf-8"))
    return TrialResult(
        trial=trial_from_json(description["trial"]),
        folder=folder,
        steps=tuple(Step(*row) for row in rows),
        curve=tuple((int(done), loss) for done, loss in columns["curve"].tolist()),
        evaluation=Evaluation(**load_file(folder / "evaluation.safetensors")),
        reused=reused,
    )


def trial_from_json(raw: Mapping[str, Any]) -> Trial:
    """Return the trial of which `asdict` made this JSON."""
    settings = {**raw["training"], "betas": tuple(raw["training"]["betas"])}
    return Trial(**{**raw, "training": Settings(**settings), "lora": LoraSettings(**raw["lora"])})


def identity(trial: Trial, common: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of everything that a trial's numbers depend on."""
    return _digest_of_json({"trial": asdict(trial), **common})


def _find_stored(name: str, digest: str, earlier: Iterable[Path]) -> Path | None:
    """Return the folder below `earlier` of this name whose description has this identity."""
    for artifacts in earlier:
        path = artifacts / FOLDER / name / DESCRIPTION
        if path.is_file() and json.loads(path.read_text("utf-8"))["identity"] == digest:
            return path.parent
    return None


def _run_missing(
    trials: Sequence[Trial],
    sweep_context: SweepContext,
    *,
    folder: Path,
    common: Mapping[str, Any],
    workers: int,
) -> Iterator[Trial]:
    """Run trials and yield each when it is done; the long ones first, so that none ends alone."""
    queue = sorted(trials, key=lambda trial: -trial.training.steps * trial.training.batch_size)
    if workers == 1 or len(trials) < 2:
        stage = Stage(sweep_context)
        for trial in queue:
            yield _run_trial(stage, trial, folder, common)
        return
    with ProcessPoolExecutor(
        min(workers, len(trials)), multiprocessing.get_context("spawn"), _enter, (sweep_context,)
    ) as pool:
        running: list[Future[Trial]] = [
            pool.submit(_in_worker, trial, folder, common) for trial in queue
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
        self.pool = data.read_examples(sweep_context.train)
        self.evaluation = data.read_examples(sweep_context.evaluation)

    def examples(self, trial: Trial) -> tuple[data.Example, ...]:
        """Return the training examples of a trial, in the order of use."""
        return training_examples(self.pool, trial)

    def adapted(self, trial: Trial, folder: Path | None) -> "PeftModel":
        """Return the model with the adapter of `folder`, or with the one the trial starts from."""
        model = adapters.attach(self.loaded, trial.lora, trial.seed)
        if folder is not None:
            adapters.restore(model, load_torch(folder / adapters.WEIGHTS))
        return model


def training_examples(pool: Sequence[data.Example], trial: Trial) -> tuple[data.Example, ...]:
    """Return the pool's first `examples` in the seed's order.

    If `shuffled`, each has the answer of another.
    """
    generator = torch.Generator().manual_seed(trial.seed)
    order = torch.randperm(len(pool), generator=generator).tolist()[: trial.examples]
    chosen = tuple(pool[i] for i in order)
    if trial.shuffled:
        return data.shuffled(chosen, trial.seed)
    return chosen


_stage: Stage | None = None  # of this worker process


def _enter(sweep_context: SweepContext) -> None:
    global _stage  # noqa: PLW0603 - a pool's worker has no other place that outlives a call
    os.environ["OMP_NUM_THREADS"] = str(sweep_context.threads)
    torch.set_num_threads(sweep_context.threads)
    _stage = Stage(sweep_context)


def _in_worker(trial: Trial, folder: Path, common: Mapping[str, Any]) -> Trial:
    assert _stage is not None, "the pool's initializer did not run"
    return _run_trial(_stage, trial, folder, common)


def _run_trial(stage: Stage, trial: Trial, folder: Path, common: Mapping[str, Any]) -> Trial:
    """Train and evaluate one trial, and write it below `folder`."""
    threads_before = torch.get_num_threads()
    torch.set_num_threads(stage.sweep_context.threads)
    model = adapters.attach(stage.loaded, trial.lora, trial.seed)
    try:
        held_out = [example.encoded for example in stage.evaluation]
        curve: list[tuple[int, float]] = []

        def after_step(done: int, step: Step, optimizer: torch.optim.Optimizer) -> None:
            # The last step is left out: the evaluation at the end is of all examples.
            if not trial.curve_every or done >= trial.training.steps:
                return
            if done == 1 or done % trial.curve_every == 0:
                losses = evaluation.evaluate(model, held_out[: stage.sweep_context.curve]).losses
                curve.append((done, float(losses.mean(dtype="float64"))))

        examples = [example.encoded for example in stage.examples(trial)]
        steps = training.train(
            model, examples, trial.training, after_step=after_step, held_out=held_out
        )
        scores = evaluation.evaluate(model, held_out)

        own = folder / trial.name
        own.mkdir(parents=True)
        _write_steps(own, steps, curve)
        _write_evaluation(own, scores)
        description = {"identity": identity(trial, common), "trial": asdict(trial), **common}
        _write_description(own, description)
        adapters.save(model, own)
    finally:
        model.unload()  # takes the adapter's layers out of the base, which the next trial uses
        torch.set_num_threads(threads_before)
    return trial


def _write_steps(folder: Path, steps: Sequence[Step], curve: Sequence[tuple[int, float]]) -> None:
    columns = {}
    for field in fields(Step):
        numbers = [getattr(step, field.name) for step in steps]
        columns[field.name] = np.array(numbers, dtype=np.float64)  # [steps]
    columns["curve"] = np.array(curve, dtype=np.float64).reshape(-1, 2)  # [n, (done, loss)]
    save_arrays(folder / "steps.safetensors", columns)


def _write_evaluation(folder: Path, scores: Evaluation) -> None:
    arrays = {}
    for field in fields(Evaluation):
        arrays[field.name] = getattr(scores, field.name)
    save_arrays(folder / "evaluation.safetensors", arrays)


def _write_description(folder: Path, description: Mapping[str, Any]) -> None:
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def _digest_of_json(document: Mapping[str, Any]) -> str:
    return sha256(json.dumps(document, sort_keys=True).encode())
