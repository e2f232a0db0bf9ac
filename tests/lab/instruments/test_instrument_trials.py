"""Trials of a sweep: what is described is run, whoever runs it, and what was run is found again."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lab.instruments import adapters, data, evaluation, models, trials
from lab.instruments.adapters import LoraSettings
from lab.instruments.training import Settings
from lab.instruments.trials import SweepContext, Trial

SETTINGS = Settings(steps=4, batch_size=2, learning_rate=1e-2, warmup_steps=1)
TRIAL = Trial(0, SETTINGS, LoraSettings(4, 8), examples=6, curve_every=2)


@pytest.fixture(scope="module")
def open_context(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> SweepContext:
    folder = tmp_path_factory.mktemp("sweep_context")
    pool = data.load("python-docstrings", models.tiny(0).tokenizer, max_tokens=110)
    drawn = data.split(pool, train=8, evaluation=6)
    data.freeze(folder / "train.jsonl", drawn.train)
    data.freeze(folder / "evaluation.jsonl", drawn.evaluation)
    return SweepContext(
        tiny_folder, folder / "train.jsonl", folder / "evaluation.jsonl", "float32", "cpu", curve=3
    )


def losses(ran: trials.TrialResult) -> list[float]:
    return [step.loss for step in ran.steps]


def test_workers_and_one_process_give_the_same_bits(sweep_context: SweepContext, tmp_path: Path):
    """Also in another order, after other trials: nothing of a trial stays in its process."""
    several = [
        TRIAL,
        dataclasses.replace(TRIAL, seed=1),
        dataclasses.replace(TRIAL, lora=LoraSettings(8, 8)),
    ]
    alone = trials.run(several, sweep_context, tmp_path / "alone", workers=1)
    beside = trials.run(several[::-1], sweep_context, tmp_path / "beside", workers=2)
    assert list(alone) == several
    assert list(beside) == several[::-1]
    for trial in several:
        assert losses(alone[trial]) == losses(beside[trial])
        assert np.array_equal(alone[trial].evaluation.losses, beside[trial].evaluation.losses)
        files = [ran.folder / adapters.WEIGHTS for ran in (alone[trial], beside[trial])]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_trial_is_the_plain_sequence_of_its_parts(sweep_context: SweepContext, tmp_path: Path):
    """The same calls by hand: seed, adapter, examples in the seed's order, training, evaluation."""
    ran = trials.run([TRIAL], sweep_context, tmp_path, workers=1)[TRIAL]
    from lab.instruments import training

    loaded = models.load(sweep_context.model, dtype=torch.float32)
    model = adapters.attach(loaded, TRIAL.lora, TRIAL.seed)
    pool = data.thaw(sweep_context.train)
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(0)).tolist()[:6]
    steps = training.train(model, [pool[i].encoded for i in order], SETTINGS)
    assert [step.loss for step in steps] == losses(ran)
    found = evaluation.evaluate(model, [e.encoded for e in data.thaw(sweep_context.evaluation)])
    assert np.array_equal(found.losses, ran.evaluation.losses)


def test_what_differs_in_the_description_differs_in_the_numbers(
    sweep_context: SweepContext, tmp_path: Path
):
    others = {
        "seed": dataclasses.replace(TRIAL, seed=1),
        "rate": dataclasses.replace(
            TRIAL, training=dataclasses.replace(SETTINGS, learning_rate=2e-2)
        ),
        "batch": dataclasses.replace(TRIAL, training=dataclasses.replace(SETTINGS, batch_size=3)),
        "rank": dataclasses.replace(TRIAL, lora=LoraSettings(2, 8)),
        "alpha": dataclasses.replace(TRIAL, lora=LoraSettings(4, 12)),
        "rslora": dataclasses.replace(TRIAL, lora=LoraSettings(4, 8, use_rslora=True)),
        "shuffled": dataclasses.replace(TRIAL, shuffled=True),
        "examples": dataclasses.replace(TRIAL, examples=5),
    }
    ran = trials.run([TRIAL, *others.values()], sweep_context, tmp_path, workers=1)
    last = {name: float(ran[trial].evaluation.losses.mean()) for name, trial in others.items()}
    assert len({trial.name for trial in ran}) == len(ran)
    assert len({*last.values(), float(ran[TRIAL].evaluation.losses.mean())}) == len(ran), last


def test_the_curve_stands_where_it_was_asked_for(sweep_context: SweepContext, tmp_path: Path):
    ran = trials.run([TRIAL], sweep_context, tmp_path, workers=1)[TRIAL]
    assert [done for done, _ in ran.curve] == [1, 2]
    assert all(math.isfinite(loss) for _, loss in ran.curve)


def test_a_known_trial_is_read_in_place_and_not_run(sweep_context: SweepContext, tmp_path: Path):
    first = trials.run([TRIAL], sweep_context, tmp_path / "first", workers=1)[TRIAL]
    told = []
    other = dataclasses.replace(TRIAL, seed=7)
    found = trials.run(
        [other, TRIAL],
        sweep_context,
        tmp_path / "second",
        workers=1,
        known=[tmp_path / "first"],
        tell=lambda done, total, note: told.append((done, total)),
    )
    assert found[TRIAL] == dataclasses.replace(
        first, reused=True, evaluation=found[TRIAL].evaluation
    )
    assert not found[other].reused
    assert [path.name for path in (tmp_path / "second/trials").iterdir()] == [other.name]
    assert told == [(0, 4), (4, 4)]


@pytest.mark.parametrize(
    "change", ["model_sha256", "train_sha256", "torch", "dtype", "code_sha256"]
)
def test_a_trial_on_another_bench_is_not_taken_over(
    sweep_context: SweepContext, tmp_path: Path, change: str
):
    common = sweep_context.description()
    trials.run([TRIAL], sweep_context, tmp_path / "first", workers=1)
    place = tmp_path / "first/trials" / TRIAL.name / trials.DESCRIPTION
    told = json.loads(place.read_text())
    assert told["identity"] == trials.identity(TRIAL, common)
    place.write_text(
        json.dumps(told | {"identity": trials.identity(TRIAL, {**common, change: "other"})})
    )
    again = trials.run(
        [TRIAL], sweep_context, tmp_path / "second", workers=1, known=[tmp_path / "first"]
    )
    assert not again[TRIAL].reused


def test_the_base_is_evaluated_once(sweep_context: SweepContext, tmp_path: Path):
    found = trials.base(sweep_context, tmp_path / "first")
    taken = trials.base(sweep_context, tmp_path / "second", known=[tmp_path / "first"])
    assert np.array_equal(found.losses, taken.losses)
    assert not (tmp_path / "second").exists()
    by_hand = evaluation.evaluate(
        models.load(sweep_context.model, dtype=torch.float32).model,
        [e.encoded for e in data.thaw(sweep_context.evaluation)],
    )
    assert np.array_equal(by_hand.losses, found.losses)


def test_a_stored_trial_is_read_as_it_was(sweep_context: SweepContext, tmp_path: Path):
    ran = trials.run([TRIAL], sweep_context, tmp_path, workers=1)[TRIAL]
    assert trials.read(ran.folder).trial == TRIAL
    assert (
        trials.described(json.loads((ran.folder / trials.DESCRIPTION).read_text())["trial"])
        == TRIAL
    )


def test_a_fault_in_a_worker_ends_the_sweep(sweep_context: SweepContext, tmp_path: Path):
    """Two trials, one of which diverges to no number: the error reaches the one who asked."""
    from lab.instruments.training import TrainingError

    wild = dataclasses.replace(TRIAL, training=dataclasses.replace(SETTINGS, learning_rate=1e30))
    with pytest.raises(TrainingError, match="wanted finite numbers"):
        trials.run([TRIAL, wild], sweep_context, tmp_path, workers=2)


def test_the_code_digest_covers_every_module_that_a_trial_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What `lab.instruments.trials` imports of the lab, to the end, is digested."""
    from tests.style import import_graph, reached_modules, read_modules

    graph = import_graph(read_modules("lab"), type_checking=False)
    reached = reached_modules("lab.instruments.trials", graph)
    root = Path(trials.__file__).parents[2]
    digested = {
        ".".join(path.relative_to(root).with_suffix("").parts) for path in trials.code_files()
    }
    assert len(reached) > 10
    assert reached <= digested

    # A change in any of these files, in a subfolder too, gives another digest.
    copy = tmp_path / "instruments"
    shutil.copytree(trials.INSTRUMENTS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "deeper").mkdir()
    (copy / "deeper" / "__init__.py").write_text("")
    monkeypatch.setattr(trials, "INSTRUMENTS", copy)
    digests = {trials._code()}
    for path in trials.code_files():
        path.write_text(path.read_text("utf-8") + "# changed\n", "utf-8")
        digests.add(trials._code())
    assert len(digests) == len(trials.code_files()) + 1
