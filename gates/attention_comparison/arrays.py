"""FEAT-012's numbers recomputed from its stored arrays.

numpy and scipy are imported inside functions, so a warm cache never loads them. The arrays
themselves are checked in model.py and losses.py (from the weights) and in identities.py (without).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from gates.shared import outputs, stored, trials
from gates.shared.statistics import holm, jackknife_stderr, mean, per_token
from gates.shared.stored import config

EARLIER = ("FEAT-005",)
ARRAYS = "artifacts/arrays.safetensors"
PROMPTS = "artifacts/prompts.jsonl"
HEADS = "artifacts/heads.json"
FILES = (ARRAYS, PROMPTS, HEADS)
STATISTICS = ("sink", "entropy", "distance", "distance_without_sink", "induction")
LEVEL = 0.05
SEED = 0  # of the run: the plan's; the random sets of heads are drawn by it
PLANNED: dict[str, Any] = {
    "seeds": [0, 1, 2],
    "lora": {"r": 16, "lora_alpha": 32},
    "training": {
        "steps": 20,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "warmup_steps": 2,
        "schedule": "cosine",
    },
    "prompts": {
        "task": 16,
        "text": 16,
        "text_tokens": 40,
        "repeated": 6,
        "period": 16,
        "seed": 0,
    },
    "draws": 2,
    "snapshot_every": 2,
    "loss_examples": 48,
    "ablation": {"heads": 10, "draws": 6},
}
"""What of the settings makes the experiment what it is; none of it may be chosen by its result."""
RECOMPUTED = (
    "heads",
    "prompts",
    "random_updates",
    "js_adapter_off",
    "js_tuned",
    "js_seeds",
    "js_random",
    "js_task",
    "js_text",
    "task_excess",
    "shared_share",
    "random_ratio",
    "heads_above_seeds",
    "heads_above_random",
    "heads_moved",
    "most_moved_head",
    "js_most_moved",
    "top_share",
    "movement_depth",
    "seed_rank_correlation",
    *(f"{name}_base" for name in STATISTICS),
    *(f"{name}_shift" for name in STATISTICS),
    "loss_base",
    "loss_tuned",
    "ablation_moved_tuned",
    "ablation_random_tuned",
    "ablation_excess_tuned",
    "ablation_moved_base",
    "ablation_random_base",
    "ablation_excess_base",
    "ablation_interaction",
    "snapshots",
    "attention_half_step",
    "loss_half_step",
    "attention_lag",
    "attention_peak_step",
    "attention_overshoot",
    "first_step_moved",
    "first_step_loss",
    "early_late_correlation",
    "loss_attention_correlation",
)


def features() -> list[str]:
    """Return the earlier features among the inputs."""
    return [name for name in EARLIER if name in outputs.inputs()]


def settings_key() -> str:
    """Return a digest of the settings: what is computed from them is cached under it."""
    return hashlib.sha256(json.dumps(config(), sort_keys=True).encode()).hexdigest()[:16]


def planned_trials() -> list[str]:
    """Return the name of each seed's trial, as the settings have it."""
    settings = config()
    names = []
    for seed in settings["seeds"]:
        trial = {
            "lora": {"use_rslora": False, **settings["lora"]},
            "training": settings["training"],
            "examples": settings["examples"],
            "shuffled": False,
            "seed": seed,
        }
        names.append(trials.name_of(trial))
    return names


def steps() -> list[int]:
    """Return the steps of the snapshots."""
    every = config()["snapshot_every"]
    return list(range(every, config()["training"]["steps"] + 1, every))


def prompts() -> list[dict[str, Any]]:
    """Return all prompts: kind and ids."""
    return [json.loads(line) for line in (outputs.out() / PROMPTS).read_text("utf-8").splitlines()]


def compared() -> list[dict[str, Any]]:
    """Return the prompts whose patterns are compared."""
    return [prompt for prompt in prompts() if prompt["kind"] in ("task", "text")]


def heads() -> dict[str, Any]:
    """Return the sets of heads that were switched off, and the names of the trials."""
    document: dict[str, Any] = outputs.read_json(HEADS)
    return document


def shape() -> tuple[int, int]:
    """Return (layers, heads of a layer) of the model."""
    path = outputs.inputs()[config()["model"]] / "config.json"
    document = json.loads(path.read_text("utf-8"))
    return document["num_hidden_layers"], document["num_attention_heads"]


def head_name(head: int) -> str:
    """Return a head's name, such as L12H3."""
    layer, number = divmod(head, shape()[1])
    return f"L{layer}H{number}"


class Run:
    """The arrays in double precision. H heads, P compared prompts, N tokens."""

    def __init__(self) -> None:
        import numpy as np

        self.arrays = {}
        for name, array in stored.arrays("arrays").items():
            self.arrays[name] = array.astype(np.float64)
        self.layers, self.per_layer = shape()
        self.kinds = [prompt["kind"] for prompt in compared()]
        self.tuned = self.arrays["tuned.divergence"].mean(0)  # [H, P]
        self.seeds = self.arrays["between_seeds.divergence"].mean(0)
        self.random = self.arrays["random.divergence"].mean(0)
        self.examples = self.arrays["token_examples"].astype(int)
        self.steps = [0, *steps()]
        assert self.tuned.shape == (self.layers * self.per_layer, len(self.kinds))

    def of_kind(self, kind: str) -> list[int]:
        """Return the indices of a kind's prompts."""
        return [i for i, name in enumerate(self.kinds) if name == kind]

    def shift(self, name: str, group: str = "tuned") -> Any:
        """Return the models' mean minus the base of a statistic, [H, P]."""
        return self.arrays[f"{group}.{name}"].mean(0) - self.arrays[f"base.{name}"]

    def p_values(self, values: Any, null: Any) -> list[float]:
        """Return per head the adjusted p of values > null, paired by prompt; [H, P] each."""
        from scipy import stats

        plain = {}
        for head, (one, other) in enumerate(zip(values, null, strict=True)):
            plain[str(head)] = 1.0
            if (one - other).std() > 0:
                test = stats.ttest_rel(one, other, alternative="greater")
                plain[str(head)] = float(test.pvalue)
        adjusted = holm(plain)
        return [adjusted[str(head)] for head in range(len(plain))]

    def rises(self, model: str) -> dict[str, Any]:
        """Return what a model's loss is, and what it rises by without each set of heads."""
        losses = self.arrays[f"ablation.{model}"]  # [1 + 1 + draws, N]
        changes = losses - losses[0]
        moved = per_token(changes[1], self.examples)
        random = changes[2:].mean(1).tolist()
        return {
            "intact": per_token(losses[0], self.examples),
            "moved": moved,
            "random": random,
            "excess": [moved["value"] - value for value in random],
        }

    def course(self) -> dict[str, list[float]]:
        """Return fall of the loss, movement of attention and of the null, at step 0 and later."""
        losses = self.arrays["snapshots.losses"].mean(1)
        counts = [0]
        pairs = zip(
            self.arrays["snapshots.divergence"],
            self.arrays["snapshots_random.divergence"],
            strict=True,
        )
        for trained, random in pairs:
            counts.append(sum(p < LEVEL for p in self.p_values(trained, random)))
        return {
            "fall": (losses[0] - losses).tolist(),
            "attention": [0.0, *self.arrays["snapshots.divergence"].mean((1, 2)).tolist()],
            "random": [0.0, *self.arrays["snapshots_random.divergence"].mean((1, 2)).tolist()],
            "moved": counts,
        }


def numbers(run: Run) -> dict[str, Any]:
    """Return every measurement but `replay_gap`, which needs the adapters."""
    return _movement(run) | _heads(run) | _statistics(run) | _ablation(run) | _time(run)


def jackknifed(count: int, compute: Callable[[list[int]], float | None]) -> dict[str, Any]:
    """Return a number over all units, and its standard error by leaving out each."""
    value = compute(list(range(count)))
    without = [compute([i for i in range(count) if i != left]) for left in range(count)]
    values = [one for one in without if one is not None]
    if value is None or len(values) < count:
        return {"value": value, "stderr": None, "n": count}
    return {"value": value, "stderr": jackknife_stderr(values), "n": count}


def _movement(run: Run) -> dict[str, Any]:
    by_prompt = {
        name: getattr(run, name).mean(0) for name in ("tuned", "seeds", "random")
    }  # [P] each
    tuned, seeds, random = by_prompt["tuned"], by_prompt["seeds"], by_prompt["random"]
    found: dict[str, Any] = {
        "heads": run.layers * run.per_layer,
        "prompts": len(run.kinds),
        "random_updates": len(run.arrays["random.divergence"]),
        "js_adapter_off": float(run.arrays["adapter_off.divergence"].max()),
    }
    for name, values in by_prompt.items():
        found[f"js_{name}"] = mean(values.tolist())
    task = mean(tuned[run.of_kind("task")].tolist())
    text = mean(tuned[run.of_kind("text")].tolist())
    found |= {"js_task": task, "js_text": text}
    found["task_excess"] = {
        "value": task["value"] - text["value"],
        "stderr": math.hypot(task["stderr"], text["stderr"]),
        "n": min(task["n"], text["n"]),
    }
    found["shared_share"] = jackknifed(
        len(tuned), lambda units: float(1 - seeds[units].sum() / tuned[units].sum() / 2)
    )
    found["random_ratio"] = jackknifed(
        len(tuned), lambda units: float(tuned[units].sum() / random[units].sum())
    )
    return found


def _heads(run: Run) -> dict[str, Any]:
    import numpy as np
    from scipy import stats

    by_head = run.tuned.mean(1)
    above_seeds = [p < LEVEL for p in run.p_values(run.tuned, run.seeds)]
    above_random = [p < LEVEL for p in run.p_values(run.tuned, run.random)]
    layers = np.repeat(np.arange(run.layers), run.per_layer)
    each_seed = run.arrays["tuned.divergence"]  # [S, H, P]
    top = config()["ablation"]["heads"]
    furthest = int(by_head.argmax())

    def top_share(units: list[int]) -> float:
        values = sorted(run.tuned[:, units].mean(1).tolist())
        return math.fsum(values[-top:]) / math.fsum(values)

    def depth(units: list[int]) -> float:
        weights = run.tuned[:, units].mean(1)
        return float(np.average(layers, weights=weights) / (run.layers - 1))

    def rank_correlation(units: list[int]) -> float:
        values = each_seed[:, :, units].mean(2)
        pairs = list(itertools.combinations(values, 2))
        return sum(float(stats.spearmanr(a, b).statistic) for a, b in pairs) / len(pairs)

    count = len(run.kinds)
    return {
        "heads_above_seeds": sum(above_seeds),
        "heads_above_random": sum(above_random),
        "heads_moved": sum(a and b for a, b in zip(above_seeds, above_random, strict=True)),
        "most_moved_head": head_name(furthest),
        "js_most_moved": mean(run.tuned[furthest].tolist()),
        "top_share": jackknifed(count, top_share),
        "movement_depth": jackknifed(count, depth),
        "seed_rank_correlation": jackknifed(count, rank_correlation),
    }


def _statistics(run: Run) -> dict[str, Any]:
    found = {}
    for name in STATISTICS:
        found[f"{name}_base"] = mean(run.arrays[f"base.{name}"].mean(0).tolist())
        found[f"{name}_shift"] = mean(run.shift(name).mean(0).tolist())
    return found


def _ablation(run: Run) -> dict[str, Any]:
    tuned, base = run.rises("tuned"), run.rises("base")
    interaction = [a - b for a, b in zip(tuned["excess"], base["excess"], strict=True)]
    found = {"ablation_interaction": outputs.sample(interaction)}
    for model, values in {"tuned": tuned, "base": base}.items():
        found[f"loss_{model}"] = values["intact"]
        found[f"ablation_moved_{model}"] = values["moved"]
        found[f"ablation_random_{model}"] = outputs.sample(values["random"])
        found[f"ablation_excess_{model}"] = outputs.sample(values["excess"])
    return found


def half_step(at: Sequence[int], values: Sequence[float]) -> float | None:
    """Return where a broken line through (step, value) first reaches half of its end."""
    half = values[-1] / 2
    if half <= 0:
        return None
    for (x, y), (next_x, next_y) in itertools.pairwise(zip(at, values, strict=True)):
        if next_y >= half:
            return x + (half - y) / (next_y - y) * (next_x - x)
    return None


def _time(run: Run) -> dict[str, Any]:
    import numpy as np
    from scipy import stats

    course = run.course()
    trained = run.arrays["snapshots.divergence"]  # [K, H, P]
    losses = run.arrays["snapshots.losses"]  # [1 + K, N]

    def attention_half(units: list[int]) -> float | None:
        return half_step(run.steps, [0.0, *trained[:, :, units].mean((1, 2)).tolist()])

    def loss_half(units: list[int]) -> float | None:
        tokens = np.isin(run.examples, units)
        means = losses[:, tokens].mean(1)
        return half_step(run.steps, (means[0] - means).tolist())

    def early_late(units: list[int]) -> float:
        values = trained[:, :, units].mean(2)
        return float(stats.spearmanr(values[0], values[-1]).statistic)

    def overshoot(units: list[int]) -> float:
        values = trained[:, :, units].mean((1, 2))
        return float(values.max() / values[-1] - 1)

    attention = jackknifed(len(run.kinds), attention_half)
    loss = jackknifed(int(run.examples.max()) + 1, loss_half)
    lag: dict[str, Any] = {"value": None, "stderr": None, "n": None}
    if attention["value"] is not None and loss["value"] is not None:
        lag = {"value": attention["value"] - loss["value"], "stderr": None}
        lag["n"] = min(attention["n"], loss["n"])
        if attention["stderr"] is not None and loss["stderr"] is not None:
            lag["stderr"] = math.hypot(attention["stderr"], loss["stderr"])
    begun = [fall > 0 and fall >= course["fall"][-1] / 10 for fall in course["fall"]]
    return {
        "snapshots": len(trained),
        "attention_half_step": attention,
        "loss_half_step": loss,
        "attention_lag": lag,
        "attention_peak_step": run.steps[int(np.argmax(course["attention"]))],
        "attention_overshoot": jackknifed(len(run.kinds), overshoot),
        "first_step_moved": _first(run.steps, [count > 0 for count in course["moved"]]),
        "first_step_loss": _first(run.steps, begun),
        "early_late_correlation": jackknifed(len(run.kinds), early_late),
        "loss_attention_correlation": {
            "value": float(np.corrcoef(course["fall"], course["attention"])[0, 1]),
            "n": len(run.steps),
        },
    }


def _first(at: Sequence[int], holds: Sequence[bool]) -> int | None:
    return next((step for step, true in zip(at, holds, strict=True) if true), None)
