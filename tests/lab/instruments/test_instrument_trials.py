"""Trials of a sweep: each is run as described, in any process, and reused by its description."""

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
from lab.instruments.code_digest import code_digest, imported_files
from lab.instruments.training import Settings
from lab.instruments.trials import SweepContext, Trial

SETTINGS = Settings(steps=4, batch_size=2, learning_rate=1e-2, warmup_steps=1)
TRIAL = Trial(0, SETTINGS, LoraSettings(4, 8), examples=6, curve_every=2)


@pytest.fixture(scope="module")
def sweep_context(
    tiny_folder: Path,
    chat_examples: list[data.Example],
    tmp_path_factory: pytest.TempPathFactory,
) -> SweepContext:
    folder = tmp_path_factory.mktemp("sweep_context")
    drawn = data.split(chat_examples, train=8, evaluation=6)
    data.write_examples(folder / "train.jsonl", drawn.train)
    data.write_examples(folder / "evaluation.jsonl", drawn.evaluation)
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
    pool = data.read_examples(sweep_context.train)
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(0)).tolist()[:6]
    steps = training.train(model, [pool[i].encoded for i in order], SETTINGS)
    assert [step.loss for step in steps] == losses(ran)
    scores = evaluation.evaluate(
        model, [e.encoded for e in data.read_examples(sweep_context.evaluation)]
    )
    assert np.array_equal(scores.losses, ran.evaluation.losses)


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


def test_the_curve_has_the_steps_of_the_description(sweep_context: SweepContext, tmp_path: Path):
    ran = trials.run([TRIAL], sweep_context, tmp_path, workers=1)[TRIAL]
    assert [done for done, _ in ran.curve] == [1, 2]
    assert all(math.isfinite(loss) for _, loss in ran.curve)


def test_a_stored_trial_is_read_from_its_folder_and_not_run(
    sweep_context: SweepContext, tmp_path: Path
):
    first = trials.run([TRIAL], sweep_context, tmp_path / "first", workers=1)[TRIAL]
    reports = []
    other = dataclasses.replace(TRIAL, seed=7)
    results = trials.run(
        [other, TRIAL],
        sweep_context,
        tmp_path / "second",
        workers=1,
        earlier=[tmp_path / "first"],
        progress=lambda done, total, note: reports.append((done, total)),
    )
    assert results[TRIAL] == dataclasses.replace(
        first, reused=True, evaluation=results[TRIAL].evaluation
    )
    assert not results[other].reused
    assert [path.name for path in (tmp_path / "second/trials").iterdir()] == [other.name]
    assert reports == [(0, 4), (4, 4)]


@pytest.mark.parametrize(
    "change", ["model_sha256", "train_sha256", "torch", "dtype", "code_sha256"]
)
def test_a_trial_of_another_sweep_context_is_not_reused(
    sweep_context: SweepContext, tmp_path: Path, change: str
):
    common = sweep_context.description()
    trials.run([TRIAL], sweep_context, tmp_path / "first", workers=1)
    path = tmp_path / "first/trials" / TRIAL.name / trials.DESCRIPTION
    description = json.loads(path.read_text())
    assert description["identity"] == trials.identity(TRIAL, common)
    description["identity"] = trials.identity(TRIAL, {**common, change: "other"})
    path.write_text(json.dumps(description))
    results = trials.run(
        [TRIAL], sweep_context, tmp_path / "second", workers=1, earlier=[tmp_path / "first"]
    )
    assert not results[TRIAL].reused


def test_the_base_is_evaluated_once(sweep_context: SweepContext, tmp_path: Path):
    computed = trials.base(sweep_context, tmp_path / "first")
    reused = trials.base(sweep_context, tmp_path / "second", earlier=[tmp_path / "first"])
    assert np.array_equal(computed.losses, reused.losses)
    assert not (tmp_path / "second").exists()
    by_hand = evaluation.evaluate(
        models.load(sweep_context.model, dtype=torch.float32).model,
        [e.encoded for e in data.read_examples(sweep_context.evaluation)],
    )
    assert np.array_equal(by_hand.losses, computed.losses)


def test_a_stored_trial_is_read_as_it_was(sweep_context: SweepContext, tmp_path: Path):
    ran = trials.run([TRIAL], sweep_context, tmp_path, workers=1)[TRIAL]
    assert trials.read(ran.folder).trial == TRIAL
    assert (
        trials.trial_from_json(json.loads((ran.folder / trials.DESCRIPTION).read_text())["trial"])
        == TRIAL
    )


@pytest.mark.soak
def test_an_error_in_a_worker_ends_the_sweep(sweep_context: SweepContext, tmp_path: Path):
    """Two trials, one of which diverges to no number: the error reaches the caller."""
    from lab.instruments.training import TrainingError

    wild = dataclasses.replace(TRIAL, training=dataclasses.replace(SETTINGS, learning_rate=1e30))
    with pytest.raises(TrainingError, match="expected finite numbers"):
        trials.run([TRIAL, wild], sweep_context, tmp_path, workers=2)


def test_the_code_digest_covers_exactly_what_a_trial_imports():
    """The files are those of the import graph of `tests.style`, which reads modules another way."""
    from tests.style import import_graph, reached_modules, read_modules

    graph = import_graph(read_modules("lab"), type_checking=False)
    reached = reached_modules(trials.MODULE, graph)
    root = Path(trials.__file__).parents[2]
    names = {
        ".".join(path.relative_to(root).with_suffix("").parts)
        for path in imported_files(trials.MODULE)
    }
    modules = {name for name in names if not name.endswith(".__init__")}
    packages = {name.removesuffix(".__init__") for name in names - modules}
    assert len(modules) > 10
    assert {name for name in reached if name not in packages} == modules
    assert packages == {"lab", "lab.instruments"}


def test_a_change_in_any_file_that_a_trial_imports_gives_another_digest(tmp_path: Path):
    """Control: a change in a file that it does not import gives the same."""
    root = Path(trials.__file__).parents[2]
    shutil.copytree(
        root / "lab", tmp_path / "lab", ignore=shutil.ignore_patterns("__pycache__", "*.json*")
    )
    own = code_digest(trials.MODULE)
    assert code_digest(trials.MODULE, tmp_path) == own
    files = [tmp_path / path.relative_to(root) for path in imported_files(trials.MODULE)]
    digests = {own}
    for path in files:
        path.write_text(path.read_text("utf-8") + "# changed\n", "utf-8")
        digests.add(code_digest(trials.MODULE, tmp_path))
    assert len(digests) == len(files) + 1

    before = code_digest(trials.MODULE, tmp_path)
    for name in ("present/draw.py", "stats/jackknife.py", "instruments/memory.py"):
        assert tmp_path / "lab" / name not in files
        (tmp_path / "lab" / name).write_text("changed = True\n")
    assert code_digest(trials.MODULE, tmp_path) == before


def test_imports_are_followed_to_the_end_and_to_nothing_else(tmp_path: Path):
    sources = {
        "__init__": "import p.start",
        "a": "import os\nfrom p import b\n",
        "b": "def f():\n    from p.deep.c import value\n",
        "deep/__init__": "",
        "deep/c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import p.typed\n",
        "start": "",
        "typed": "",
        "alone": "",
    }
    for name, source in sources.items():
        path = tmp_path / "p" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    names = [path.relative_to(tmp_path).as_posix() for path in imported_files("p.a", tmp_path)]
    assert names == [
        "p/__init__.py",
        "p/a.py",
        "p/b.py",
        "p/deep/__init__.py",
        "p/deep/c.py",
        "p/start.py",
    ]
    (tmp_path / "p/start.py").write_text("from . import alone\n")
    with pytest.raises(ValueError, match="relative import"):
        imported_files("p.a", tmp_path)
