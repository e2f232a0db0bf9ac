"""From what catastrophic_forgetting measured to its result: arrays on disk, numbers, sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from lab import present
from lab.contract import Context, Measurement, environment
from lab.forgetting.numbers import (
    BASE,
    Compared,
    Correlation,
    compare,
    divergence_with,
    forgetting_with,
    intruders,
    of_one_shape,
    over_items,
    suites,
)
from lab.stats import significance as comparing
from lab.stats.tokens import Mean

if TYPE_CHECKING:
    from lab.forgetting.experiment import ForgettingObservations

LEVEL = 0.05  # of the adjusted paired t test
BYTE, TOKEN = "nats/byte", "nats/token"


def store(ctx: Context, observations: ForgettingObservations) -> None:
    """Write the arrays behind the numbers, and which trial each model is."""
    import json

    from safetensors.numpy import save_file

    arrays = {
        f"{name}.{field.name}": np.ascontiguousarray(getattr(found, field.name))
        for name, found in observations.models.items()
        for field in fields(found)
    }
    path = ctx.out / "artifacts/scores.safetensors"
    save_file(arrays, path)
    path.chmod(0o644)  # safetensors makes it private to its owner
    models = {
        name: {"trial": run.folder.name, **asdict(run.trial.lora)}
        for name, run in observations.runs.items()
    }
    document = {"models": models, "matrices": list(observations.matrices)}
    (ctx.out / "artifacts/models.json").write_text(
        json.dumps(document, indent=1) + "\n", encoding="utf-8"
    )


def measurements(observations: ForgettingObservations) -> dict[str, Measurement]:
    """All numbers by name."""
    exact, found, roles, scores = (
        Measurement.of_exact,
        compare(observations),
        observations.roles,
        observations.scores,
    )
    base, standard = scores[BASE], found[roles["standard"]]
    numbers = {
        "items": exact(len(observations.items), "items"),
        "adapters": exact(len(found), "adapters"),
        "margin_base": _mean(over_items(base.margin), BYTE),
        "acc_base": _mean(over_items(base.acc), ""),
        "acc_norm_base": _mean(over_items(base.acc_norm), ""),
    }
    numbers |= {
        f"forgetting_{role}": _mean(found[name].forgetting, BYTE) for role, name in roles.items()
    }
    low, high = scores[roles["low_rate"]].margin, scores[roles["high_rate"]].margin
    numbers["forgetting_rate_gap"] = _mean(over_items(low - high), BYTE)
    lost = base.margin - scores[roles["standard"]].margin
    for suite, items in suites(observations).items():
        numbers[f"forgetting_{suite.removeprefix('lab_')}"] = _mean(over_items(lost[items]), BYTE)
    change = scores[roles["standard"]].acc - base.acc
    return numbers | {
        "acc_change_standard": _mean(over_items(change), ""),
        "mcnemar_p_standard": exact(standard.mcnemar_p),
        "adapters_that_forgot": exact(sum(map(forgot, found.values())), "adapters"),
        "kl_standard": _mean(standard.divergence, TOKEN),
        "kl_high_rate": _mean(found[roles["high_rate"]].divergence, TOKEN),
        "text_loss_base": _mean(_text_loss_of_base(observations), TOKEN),
        "text_loss_change_standard": _mean(standard.text_change, TOKEN),
        **{name: _mean(value, "") for name, value in _correlations(observations, found).items()},
        **{
            f"intruders_{role}": exact(intruders(observations, name), "directions")
            for role, name in roles.items()
        },
    }


def forgot(one: Compared) -> bool:
    """Whether an adapter's loss of margin is above chance."""
    return one.forgetting.value > 0 and one.adjusted_p < LEVEL


def _mean(mean: Mean | Correlation, unit: str) -> Measurement:
    return Measurement.of_estimate(mean.value, unit, stderr=mean.stderr, n=mean.n)


def _text_loss_of_base(observations: ForgettingObservations) -> Mean:
    from lab.stats.tokens import token_mean

    found = observations.models[BASE]
    return token_mean(found.losses.astype(np.float64), found.example_ids)


def _correlations(
    observations: ForgettingObservations, found: Mapping[str, Compared]
) -> dict[str, Correlation]:
    names, alike = list(found), of_one_shape(observations)
    norms = [one.norm for one in found.values()]
    return {
        "spearman_rate": forgetting_with(observations, alike, [found[name].rate for name in alike]),
        "spearman_norm": forgetting_with(observations, names, norms),
        "spearman_kl_norm": divergence_with(observations, names, norms),
    }


def findings(
    observations: ForgettingObservations, numbers: Mapping[str, Measurement]
) -> tuple[str, ...]:
    """Sentences that follow from the numbers, and turn with them."""
    found, roles = compare(observations), observations.roles
    n, q = present.number, present.quantity
    value = {name: float(m.value) for name, m in numbers.items()}  # type: ignore[arg-type]
    losers = [name for name, one in found.items() if forgot(one)]
    best = comparing.frontier(
        [one.learning.value for one in found.values()],
        [one.forgetting.value for one in found.values()],
    )
    names = list(found)
    standard = found[roles["standard"]]
    sees = "sees a change" if value["mcnemar_p_standard"] < LEVEL else "sees no change"
    apart = abs(value["text_loss_change_standard"] - value["kl_standard"])
    noise = 2 * (numbers["text_loss_change_standard"].stderr or 0.0)
    agree = "agree within" if apart <= noise else "differ by more than"
    return (
        f"The base answers {n(100 * value['acc_base'], 3)} % of {numbers['items'].value} items "
        f"rightly (chance: 25 %); its mean margin is {q(numbers['margin_base'])}.",
        f"{present.count(len(losers), 'adapter')} of {len(found)} lost margin beyond chance "
        f"(paired t over items, adjusted by Holm, {LEVEL}): {', '.join(losers) or 'none'}.",
        f"From {roles['low_rate']} to {roles['high_rate']} forgetting goes from "
        f"{q(numbers['forgetting_low_rate'])} to {q(numbers['forgetting_high_rate'])}. Over "
        f"adapters it {_relation(numbers['spearman_rate'])} the rate (Spearman "
        f"{n(value['spearman_rate'], 2)}) and {_relation(numbers['spearman_norm'])} the norm of "
        f"the update ({n(value['spearman_norm'], 2)}); the divergence "
        f"{_relation(numbers['spearman_kl_norm'])} the norm ({n(value['spearman_kl_norm'], 2)}).",
        f"Of {roles['standard']}, accuracy {sees}: {present.count(standard.lost, 'item')} lost and "
        f"{standard.won} won, McNemar's p {n(value['mcnemar_p_standard'], 2)}. Its margin changed "
        f"by {n(-standard.forgetting.value, 3)} ± {n(standard.forgetting.stderr, 2)} nats/byte.",
        f"On text that the base wrote, {roles['standard']} is {q(numbers['kl_standard'])} away "
        f"from it, and its loss rose by {q(numbers['text_loss_change_standard'])}: two estimates "
        f"of one divergence, which {agree} twice their noise.",
        f"Among {len(observations.matrices)} matrices with "
        f"{observations.models[BASE].similarities.shape[1]} leading directions each, "
        f"{roles['low_rate']} has {present.count(found[roles['low_rate']].intruders, 'intruder')}, "
        f"{roles['standard']} {standard.intruders}, {roles['high_rate']} "
        f"{found[roles['high_rate']].intruders}; the base compared with itself "
        f"{intruders(observations, BASE)}.",
        f"Nobody beats {', '.join(names[i] for i in best)}: each other adapter is met by one that "
        "learnt at least as much and forgot no more.",
    )


def _relation(correlation: Measurement) -> str:
    """How a rank correlation reads, given its noise."""
    value, stderr = float(correlation.value), correlation.stderr or 0.0  # type: ignore[arg-type]
    if abs(value) <= 2 * stderr:
        return "does not clearly follow"
    return "rises with" if value > 0 else "falls with"


def facts(
    ctx: Context, observations: ForgettingObservations, sweep_context: Mapping[str, Any]
) -> dict[str, Any]:
    """What a reader must know to repeat the run."""
    from lab.forgetting.suites import VERSION

    return environment(
        ctx,
        packages=("torch", "transformers", "peft"),
        model=ctx.config["model"],
        sweep_context=dict(sweep_context),
        taken_over=sum(run.reused for run in observations.runs.values()),
        suites_version=VERSION,
        config=dict(ctx.config),
    )
