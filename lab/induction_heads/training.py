"""One training run, what is seen of it on the way, and the trained model with heads zeroed."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lab.induction_heads import sequences
from lab.induction_heads.measured import (
    ABLATED,
    Ablation,
    Head,
    InductionPlan,
    Run,
)
from lab.instruments.attention_only import AttentionOnly, Shape

# Each purpose draws from a stream of its own, so that no run trains on what it is evaluated on.
EVALUATION_STREAM = 1_000_000
FILM_STREAM = 2_000_000
TRAINING_STREAM = 3_000_000  # plus the seed

# The second average remembers 50 steps, not 1000: a training has only a few hundred
ADAM_BETAS = (0.9, 0.98)


@dataclass(frozen=True)
class EvaluationSet:
    """The sequences that every run is evaluated on: ids [N, T], periods [N], film [n, 2P]."""

    ids: Tensor
    periods: Tensor
    film: Tensor


def evaluation_set(plan: InductionPlan) -> EvaluationSet:
    """Return the sequences of the evaluation, the same for all runs."""
    generator = torch.Generator().manual_seed(EVALUATION_STREAM)
    ids, periods = sequences.draw(
        count=plan.evaluation,
        length=plan.length,
        vocabulary=plan.vocabulary,
        periods=plan.periods,
        generator=generator,
    )
    film, _ = sequences.draw(
        count=plan.film,
        length=2 * plan.film_period,
        vocabulary=plan.vocabulary,
        periods=(plan.film_period, plan.film_period),
        generator=torch.Generator().manual_seed(FILM_STREAM),
    )
    return EvaluationSet(ids, periods, film)


def train(plan: InductionPlan, condition: str, seed: int) -> Run:
    """Train one model and return what was seen of it.

    The conditions differ in one thing each: `one_layer` in the model, `no_repeats` in the data.
    """
    start = time.perf_counter()
    # 1. The model, the optimizer, the data.
    layers = 1 if condition == "one_layer" else 2
    model = AttentionOnly(shape_of(plan, layers), seed)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=plan.learning_rate,
        betas=ADAM_BETAS,
        weight_decay=plan.weight_decay,
    )
    generator = torch.Generator().manual_seed(TRAINING_STREAM + seed)
    tests = evaluation_set(plan)

    # 2. Steps; before the first and after every few of them a look at the model.
    looks: list[dict[str, np.ndarray]] = []
    weights: list[dict[str, np.ndarray]] = []
    for step in range(plan.steps + 1):
        if step % plan.every == 0:
            looks.append(look(model, tests))
        if step % plan.checkpoint_every == 0:
            weights.append(copy_of_weights(model))
        if step == plan.steps:
            break
        ids, _ = sequences.draw(
            count=plan.batch,
            length=plan.length,
            vocabulary=plan.vocabulary,
            periods=plan.periods,
            generator=generator,
            repeated=condition != "no_repeats",
        )
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * min(1.0, (step + 1) / plan.warmup)
        optimizer.zero_grad()
        token_losses(model(ids)[0], ids).mean().backward()
        optimizer.step()

    # 3. One array of each quantity, its first axis the steps.
    seen = {name: np.stack([one[name] for one in looks]) for name in looks[0]}
    stored = {name: np.stack([one[name] for one in weights]) for name in weights[0]}
    return Run(
        condition=condition,
        seed=seed,
        weights=stored,
        seconds=time.perf_counter() - start,
        **seen,
    )


def shape_of(plan: InductionPlan, layers: int) -> Shape:
    """Return the shape of a model with so many layers."""
    return Shape(
        vocabulary=plan.vocabulary,
        width=plan.width,
        layers=layers,
        heads=plan.heads,
        head_width=plan.head_width,
    )


def token_losses(logits: Tensor, ids: Tensor) -> Tensor:
    """Return -log p of each next token [B, T - 1], in nats, from logits [B, T, V]."""
    predictions = logits[:, :-1].transpose(1, 2)  # [B, T, V] -> [B, V, T - 1]
    return functional.cross_entropy(predictions, ids[:, 1:], reduction="none")


def look(model: AttentionOnly, tests: EvaluationSet) -> dict[str, np.ndarray]:
    """Return losses, accuracy, scores and mean patterns of a model, in the fields of `Run`."""
    with torch.no_grad():
        logits, patterns = model(tests.ids)
        _, film = model(tests.film)
    length = tests.ids.shape[1]
    losses = token_losses(logits, tests.ids)  # [N, T - 1]
    hits = logits[:, :-1].argmax(-1) == tests.ids[:, 1:]

    # 1. First copy: queries before the period. Second copy: those that can copy.
    is_first = torch.arange(length - 1)[None, :] < tests.periods[:, None]  # [N, T - 1]
    is_second = sequences.copying_queries(tests.periods, length)  # [N, T]
    seen = {
        "first": losses[is_first].double().mean(),
        "second": losses[is_second[:, :-1]].double().mean(),
        "accuracy": hits[is_second[:, :-1]].double().mean(),
    }

    # 2. Scores of each head [layers, heads]: attention to the token to copy, and one back.
    keys = sequences.copied_keys(tests.periods, length)  # [N, T]
    induction = []
    previous = []
    for pattern in patterns:  # [N, H, T, T]
        index = keys[:, None, :, None].expand(-1, pattern.shape[1], -1, 1)
        to_copied = pattern.gather(3, index)[..., 0].transpose(0, 1)  # [H, N, T]
        induction.append(to_copied[:, is_second].double().mean(-1))
        previous.append(pattern.diagonal(-1, 2, 3).double().mean((0, 2)))
    seen["induction"] = torch.stack(induction)
    seen["previous"] = torch.stack(previous)

    # 3. Mean patterns on the film's sequences [layers, heads, 2P, 2P].
    seen["patterns"] = torch.stack([pattern.mean(0) for pattern in film])
    return {name: value.numpy() for name, value in seen.items()}


def copy_of_weights(model: AttentionOnly) -> dict[str, np.ndarray]:
    """Return the parameters by name, as arrays that training does not change."""
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def sequence_losses(
    model: AttentionOnly, tests: EvaluationSet, zeroed: Collection[Head] = ()
) -> np.ndarray:
    """Return the loss on the second copy of each sequence [N], in nats/token."""
    with torch.no_grad():
        logits, _ = model(tests.ids, zeroed)
    losses = token_losses(logits, tests.ids).double()  # [N, T - 1]
    counts = sequences.copying_queries(tests.periods, tests.ids.shape[1])[:, :-1]
    means: np.ndarray = ((losses * counts).sum(1) / counts.sum(1)).numpy()
    return means


def find_heads(induction: np.ndarray, previous: np.ndarray) -> dict[str, tuple[Head, ...]]:
    """Return the heads of each group, from the scores [layers, heads] of a trained model.

    Induction heads: the heads of the last layer with at least half of the highest induction score
    there. Previous-token heads: those of the layer before with at least half of the highest
    previous-token score there. Other heads: the rest.
    """
    last = induction.shape[0] - 1
    copying = tuple((last, head) for head in _strong(induction[last]))
    one_back = tuple((last - 1, head) for head in _strong(previous[last - 1]))
    every = [(int(layer), int(head)) for layer, head in np.ndindex(induction.shape)]
    others = tuple(head for head in every if head not in {*copying, *one_back})
    return dict(zip(ABLATED, (copying, one_back, others), strict=True))


def _strong(scores: np.ndarray) -> list[int]:
    """Return the heads with at least half of the highest of these scores [heads]."""
    return [int(head) for head in np.flatnonzero(scores >= scores.max() / 2)]


def ablate(plan: InductionPlan, run: Run) -> Ablation:
    """Return a trained model's losses with each head and each group of heads zeroed."""
    model = model_of(plan, {name: stored[-1] for name, stored in run.weights.items()})
    tests = evaluation_set(plan)
    layers, heads = run.induction.shape[1:]
    single = []
    for layer in range(layers):
        single.append([sequence_losses(model, tests, [(layer, head)]) for head in range(heads)])
    groups = find_heads(run.induction[-1], run.previous[-1])
    return Ablation(
        whole=sequence_losses(model, tests),
        single=np.array(single),
        groups={name: sequence_losses(model, tests, group) for name, group in groups.items()},
        heads=groups,
    )


def model_of(plan: InductionPlan, weights: Mapping[str, np.ndarray]) -> AttentionOnly:
    """Return a model with these weights."""
    layers = sum(name.endswith(".query") for name in weights)
    model = AttentionOnly(shape_of(plan, layers), seed=0)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return model
