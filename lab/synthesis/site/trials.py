"""Stored trials of earlier features read back, their updates decomposed, their adapters asked.

read_trials(ctx)
    _read_one       curves and losses from a trial's files, the spectrum of its update
    _answer_all     greedy answers of base and adapters to the same held-out prompts, in processes
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch

from lab.contract import Context
from lab.digests import digest_of
from lab.instruments import adapters, aside, evaluation, lowrank, trials
from lab.instruments.sweep import model_folder
from lab.instruments.trials import SweepContext
from lab.synthesis.site.measured import Prompt, Row, StoredTrial, Trials

if TYPE_CHECKING:
    from lab.instruments.data import Example

Answers = tuple[tuple[int, ...], ...]  # token ids per prompt


def read_trials(ctx: Context) -> Trials:
    """Return every trial that the features of the config stored, with its answers.

    Features that were not given have no trials. Without any, nothing is loaded.
    """
    features = [name for name in ctx.config["trials"] if name in ctx.inputs.entries]
    scored = _forgetting(ctx)

    # 1. The trials themselves, each once: a later feature reuses those of an earlier one.
    stored: dict[str, StoredTrial] = {}
    folders: dict[str, Path] = {}
    for feature in features:
        root = ctx.inputs.path(feature)
        for file in sorted((root / "artifacts" / trials.FOLDER).glob("*/trial.json")):
            if file.parent.name == trials.BASE or file.parent.name in stored:
                continue
            folders[file.parent.name] = file.parent
            # One thread: on matrices of rank 64 a second one waits more than it works.
            task = {"": (_read_one, feature, root, file.parent)}
            one = aside.run(task, workers=1, threads=ctx.config["threads"])[""]
            stored[one.name] = replace(one, forgetting=scored.get(one.name))
            ctx.progress(0, 1, f"{one.name} read")
    if not stored:
        return Trials((), (), (), None, {})

    # 2. The answers of base and adapters.
    data = ctx.inputs.path(features[0]) / "artifacts"
    with model_folder(ctx) as folder:
        sweep_context = SweepContext(
            model=folder,
            train=data / "train.jsonl",
            evaluation=data / "evaluation.jsonl",
            dtype=ctx.config["dtype"],
            device=ctx.config["device"],
            curve=ctx.config["data"]["curve"],
            threads=ctx.config["threads"],
        )
        answers, prompts, texts = _answer_all(ctx, sweep_context, folders)
    base = load_file(data / trials.FOLDER / trials.BASE / "evaluation.safetensors")
    answered = [replace(one, answers=answers[name]) for name, one in stored.items()]
    return Trials(
        trials=tuple(answered),
        prompts=prompts,
        base_answers=answers[trials.BASE],
        base_held_out=float(base["losses"].mean(dtype=np.float64)),
        texts=texts,
    )


def _read_one(feature: str, root: Path, folder: Path) -> StoredTrial:
    """Return one trial without answers."""
    # 1. What it was, and its curves.
    result = trials.read(folder)
    trial = result.trial
    file = folder / trials.DESCRIPTION
    row = Row(
        batch=trial.training.batch_size,
        steps=trial.training.steps,
        examples=trial.examples,
        shuffled=trial.shuffled,
        rank=trial.lora.r,
        alpha=trial.lora.lora_alpha,
        rslora=trial.lora.use_rslora,
    )

    # 2. The singular values of every layer's update: kind -> one [k] per layer.
    by_kind: dict[str, list[np.ndarray]] = {}
    stable_ranks: list[float] = []
    squares = 0.0
    factors = lowrank.factors_by_layer(load_torch(folder / adapters.WEIGHTS))
    for layer in sorted(factors):
        values = lowrank.decompose(*factors[layer], trial.lora.scale).values
        by_kind.setdefault(layer.rpartition(".")[2], []).append(values.double().numpy())
        stable_ranks.append(float(lowrank.stable_rank(values)))
        squares += float((values.double() ** 2).sum())
    return StoredTrial(
        name=trial.name,
        feature=feature,
        identity=json.loads(file.read_text("utf-8"))["identity"],
        file=file.relative_to(root).as_posix(),
        sha256=digest_of(file),
        row=row,
        rate=trial.training.learning_rate,
        seed=trial.seed,
        losses=tuple(step.loss for step in result.steps),
        curve=result.curve,
        held_out=float(result.evaluation.losses.mean(dtype=np.float64)),
        accuracy=float(result.evaluation.hits.mean(dtype=np.float64)),
        spectra={kind: tuple(np.mean(rows, axis=0)) for kind, rows in by_kind.items()},
        stable_rank=float(np.mean(stable_ranks)),
        norm=math.sqrt(squares),
        forgetting=None,
        answers=(),
    )


def _forgetting(ctx: Context) -> dict[str, tuple[float, float, float]]:
    """Return trial -> (nats/byte of margin lost, its standard error, KL in nats/token)."""
    feature = ctx.config["forgetting"]
    if feature not in ctx.inputs.entries:
        return {}
    root = ctx.inputs.path(feature)
    models = json.loads((root / "artifacts/models.json").read_text("utf-8"))["models"]
    tables = json.loads((root / "result.json").read_text("utf-8"))["tables"]
    table = next(table for table in tables if table["title"] == "Adapters")
    scored = {}
    for cells in table["rows"]:
        row = dict(zip(table["columns"], cells, strict=True))
        scored[models[row["adapter"]]["trial"]] = (
            row["forgetting (nats/byte)"],
            row["stderr"],
            row["KL (nats/token)"],
        )
    return scored


def _answer_all(
    ctx: Context, sweep_context: SweepContext, folders: Mapping[str, Path]
) -> tuple[dict[str, Answers], tuple[Prompt, ...], dict[tuple[int, ...], str]]:
    """Return trial (or BASE) -> answers, the prompts, and the text of each answer."""
    workers, count = ctx.config["workers"], ctx.config["answers"]
    names = sorted(folders)
    tasks: dict[str, aside.Task] = {}
    for worker in range(workers):
        part = {name: folders[name] for name in names[worker::workers]}
        work = (sweep_context, part, count, ctx.config["max_new_tokens"])
        tasks[str(worker)] = (_answer, *work)
    answers: dict[str, Answers] = {}
    for part_answers in aside.run(tasks, workers=workers, threads=sweep_context.threads).values():
        answers.update(part_answers)

    # The texts, by the model's own tokenizer.
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(sweep_context.model)
    texts = {}
    for of_trial in answers.values():
        for ids in of_trial:
            texts[ids] = tokenizer.decode(list(ids), skip_special_tokens=True).strip()
    examples = _asked(sweep_context, count)
    prompts = [Prompt(example.messages[0]["content"], example.target) for example in examples]
    return answers, tuple(prompts), texts


def _answer(
    sweep_context: SweepContext, folders: Mapping[str, Path], count: int, max_new_tokens: int
) -> dict[str, Answers]:
    """Return what base and adapters answer to the first held-out prompts."""
    stage = trials.Stage(sweep_context)
    prompts = [example.encoded.prompt for example in stage.evaluation[:count]]
    answers = {trials.BASE: _greedy(stage.loaded.model, prompts, max_new_tokens)}
    for name, folder in folders.items():
        model = stage.adapted(trials.read(folder).trial, folder)
        answers[name] = _greedy(model, prompts, max_new_tokens)
        model.unload()
    return answers


def _greedy(model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> Answers:
    generated = evaluation.generate(model, prompts, max_new_tokens=max_new_tokens)
    return tuple(tuple(ids) for ids in generated)


def _asked(sweep_context: SweepContext, count: int) -> Sequence[Example]:
    from lab.instruments import data

    return data.read_examples(sweep_context.evaluation)[:count]
