"""FEAT-008's numbers, tables and figures recomputed from its arrays and adapters' evaluations.

numpy and scipy are imported inside functions, so a warm cache never loads them; the arrays
themselves are checked in gates/forgetting/model.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from gates.forgetting.items import FILES as ITEM_FILES
from gates.forgetting.items import SUITES, items
from gates.shared import outputs, stored, trials
from gates.shared.statistics import correlation, holm, mcnemar, mean, per_token
from gates.shared.stored import cached, config

EARLIER = ("FEAT-005", "FEAT-006", "FEAT-007")
SCORES = "artifacts/scores.safetensors"
TEXT = "artifacts/text.jsonl"
MODELS = "artifacts/models.json"
BASE = "base"
ROLES = ("low_rate", "standard", "high_rate")
LEVEL = 0.05  # of the adjusted paired t test
RECOMPUTED = (
    "items",
    "adapters",
    "margin_base",
    "acc_base",
    "acc_norm_base",
    *(f"forgetting_{role}" for role in ROLES),
    "forgetting_rate_gap",
    *(f"forgetting_{suite.removeprefix('lab_')}" for suite in SUITES),
    "acc_change_standard",
    "mcnemar_p_standard",
    "adapters_that_forgot",
    "kl_standard",
    "kl_high_rate",
    "text_loss_base",
    "text_loss_change_standard",
    "spearman_rate",
    "spearman_norm",
    "spearman_kl_norm",
    *(f"intruders_{role}" for role in ROLES),
)


def features() -> list[str]:
    """Return the earlier features among the inputs."""
    return [name for name in EARLIER if name in outputs.inputs()]


def adapters() -> dict[str, str]:
    """Return adapter -> name of the trial that the config says it is."""
    plan = config()
    seed = outputs.result()["environment"]["seed"]
    names = {}
    for name, settings in plan["adapters"].items():
        trial = {
            "lora": {"use_rslora": False, **settings},
            "training": {**plan["training"], "learning_rate": settings["learning_rate"]},
            "examples": plan["examples"],
            "shuffled": False,
            "seed": seed,
        }
        names[name] = trials.name_of(trial)
    return names


def scale(name: str) -> float:
    """Return s of an adapter's ΔW = s·B·A."""
    lora = config()["adapters"][name]
    divisor = lora["r"]
    if lora.get("use_rslora"):
        divisor = math.sqrt(lora["r"])
    return float(lora["lora_alpha"] / divisor)


def texts() -> list[dict[str, Any]]:
    """Return the texts that the base wrote: ids, and how many of them, at the end, were drawn."""
    return [json.loads(line) for line in (outputs.out() / TEXT).read_text("utf-8").splitlines()]


def arrays() -> dict[str, Any]:
    """Return the stored arrays by "MODEL.PART"; one that is not finite is refused."""
    return stored.arrays("scores")


def recomputed() -> dict[str, Any]:
    """Return what follows from the arrays.

    `numbers` (measurement -> value), `tables` (rows), `figures` (series), `findings` (what the
    sentences must name), `divergence_gaps` (adapter -> mean and standard error of the loss's rise
    less KL).
    """
    files = (
        SCORES,
        MODELS,
        *ITEM_FILES,
        *trials.files([*adapters().values(), BASE], ["evaluation.safetensors"]),
    )
    return dict(cached("forgetting", files, lambda: _recompute(_Run())))


class _Run:
    """The arrays as values per item [items] and per token [N], by model."""

    def __init__(self) -> None:
        self.names = list(adapters())
        self.rate = {
            name: settings["learning_rate"] for name, settings in config()["adapters"].items()
        }
        self._read_items()
        self._read_scores()
        self._read_learning()

    def _read_items(self) -> None:
        rows = items()
        self.suites = [row["suite"] for row in rows]
        self.gold = [row["gold"] for row in rows]
        self.lengths = [[len(choice) for choice in row["choices"]] for row in rows]  # ASCII

    def _read_scores(self) -> None:
        """Read each model's arrays and score its items."""
        import numpy as np

        self.margin: dict[str, Any] = {}
        self.acc: dict[str, Any] = {}
        self.acc_norm: dict[str, Any] = {}
        self.kl: dict[str, Any] = {}
        self.loss: dict[str, Any] = {}
        self.example_ids: dict[str, Any] = {}
        self.norm: dict[str, float] = {}
        self.intruders: dict[str, int] = {}
        parts = arrays()
        threshold = config()["intruders"]["threshold"]
        for name in (BASE, *self.names):
            log_likelihoods = parts[f"{name}.log_likelihoods"].astype(np.float64)
            shape = log_likelihoods.shape
            assert shape == (len(self.gold), 4), (
                f"{name}: {shape} log-likelihoods for {len(self.gold)} items"
            )
            self._score_items(name, log_likelihoods)
            self.kl[name] = parts[f"{name}.divergences"].astype(np.float64)
            self.loss[name] = parts[f"{name}.losses"].astype(np.float64)
            self.example_ids[name] = parts[f"{name}.example_ids"]
            norms = parts[f"{name}.norms"].tolist()
            self.norm[name] = math.sqrt(sum(value**2 for value in norms))
            self.intruders[name] = int((parts[f"{name}.similarities"] < threshold).sum())

    def _score_items(self, name: str, log_likelihoods: Any) -> None:
        """Judge log-likelihoods [items, 4] item by item."""
        import numpy as np

        per_byte = log_likelihoods / self.lengths
        margins, hits, hits_norm = [], [], []
        for plain, normed, gold in zip(log_likelihoods, per_byte, self.gold, strict=True):
            values = normed.tolist()
            right = values.pop(gold)
            margins.append(right - max(values))
            hits.append(float(np.argmax(plain) == gold))
            hits_norm.append(float(np.argmax(normed) == gold))
        self.margin[name] = np.array(margins)
        self.acc[name] = np.array(hits)
        self.acc_norm[name] = np.array(hits_norm)

    def _read_learning(self) -> None:
        """Read the held-out losses and compute what each adapter took off them."""
        import numpy as np

        earlier = features()
        before = trials.load(BASE, "evaluation", earlier)
        self.gain = {}
        for name, trial in adapters().items():
            after = trials.load(trial, "evaluation", earlier)
            gain = before["losses"].astype(np.float64) - after["losses"]
            self.gain[name] = per_token(gain, before["example_ids"])

    def lost(self, name: str) -> Any:
        """Return the margin that an adapter lost, [items]."""
        return self.margin[BASE] - self.margin[name]

    def indices(self, suite: str) -> list[int]:
        """Return the indices of a suite's items."""
        return [i for i, name in enumerate(self.suites) if name == suite]


class _Summary:
    """What several numbers, tables and figures need: means and tests by adapter."""

    def __init__(self, run: _Run) -> None:
        from scipy import stats

        p_values = {}
        for name in run.names:
            p_values[name] = 1.0
            if run.lost(name).any():
                test = stats.ttest_rel(run.margin[BASE], run.margin[name])
                p_values[name] = float(test.pvalue)
        self.p = holm(p_values)
        self.lost = {name: mean(run.lost(name)) for name in run.names}
        self.kl = {name: per_token(run.kl[name], run.example_ids[name]) for name in run.names}
        self.text = {
            name: per_token(run.loss[name], run.example_ids[name]) for name in (BASE, *run.names)
        }
        self.forgot = [
            name for name in run.names if self.lost[name]["value"] > 0 and self.p[name] < LEVEL
        ]


def _recompute(run: _Run) -> dict[str, Any]:
    summary = _Summary(run)
    roles = config()["roles"]
    return {
        "numbers": _numbers(run, summary, roles),
        "tables": [_adapter_rows(run, summary), _suite_rows(run)],
        "figures": _figures(run, summary, roles),
        "findings": {"forgot": summary.forgot, "frontier": _frontier(run, summary)},
        "divergence_gaps": _divergence_gaps(run),
    }


def _numbers(run: _Run, summary: _Summary, roles: dict[str, str]) -> dict[str, Any]:
    standard, low, high = roles["standard"], roles["low_rate"], roles["high_rate"]
    # 1. Items and accuracies.
    numbers: dict[str, Any] = {
        "items": len(run.suites),
        "adapters": len(run.names),
        "margin_base": mean(run.margin[BASE]),
        "acc_base": mean(run.acc[BASE]),
        "acc_norm_base": mean(run.acc_norm[BASE]),
        "acc_change_standard": mean(run.acc[standard] - run.acc[BASE]),
        "mcnemar_p_standard": mcnemar(run.acc[BASE], run.acc[standard])[2],
    }
    # 2. Margin lost.
    numbers["forgetting_rate_gap"] = mean(run.margin[low] - run.margin[high])
    numbers["adapters_that_forgot"] = len(summary.forgot)
    for suite in SUITES:
        lost = run.lost(standard)[run.indices(suite)]
        numbers[f"forgetting_{suite.removeprefix('lab_')}"] = mean(lost)
    for role in ROLES:
        numbers[f"forgetting_{role}"] = summary.lost[roles[role]]
        numbers[f"intruders_{role}"] = run.intruders[roles[role]]
    # 3. The base's text.
    rise = run.loss[standard] - run.loss[BASE]
    numbers["kl_standard"] = summary.kl[standard]
    numbers["kl_high_rate"] = summary.kl[high]
    numbers["text_loss_base"] = summary.text[BASE]
    numbers["text_loss_change_standard"] = per_token(rise, run.example_ids[BASE])
    return numbers | _correlations(run, standard)


def _same_shape(standard: str) -> list[str]:
    """Return the adapters that differ from the standard one in the rate alone."""
    shapes = {}
    for name, settings in config()["adapters"].items():
        shapes[name] = {k: v for k, v in settings.items() if k != "learning_rate"}
    return [name for name, shape in shapes.items() if shape == shapes[standard]]


def _correlations(run: _Run, standard: str) -> dict[str, Any]:
    import numpy as np

    # 1. Forgetting against rate and norm, over resampled items.
    def mean_lost(names: Sequence[str]) -> Callable[[Any], Any]:
        table = np.stack([run.lost(name) for name in names], 1)  # [items, models]
        return lambda indices: table[indices].mean(1)

    same_shape = _same_shape(standard)
    rates = [run.rate[name] for name in same_shape]
    norms = [run.norm[name] for name in run.names]
    count = len(run.suites)
    correlations = {
        "spearman_rate": correlation(rates, count, mean_lost(same_shape)),
        "spearman_norm": correlation(norms, count, mean_lost(run.names)),
    }

    # 2. Divergence against norm, over resampled texts.
    text_count = int(run.example_ids[BASE].max()) + 1
    counts, sums = [], []
    for text in range(text_count):
        counts.append((run.example_ids[BASE] == text).sum())
        sums.append([run.kl[name][run.example_ids[name] == text].sum() for name in run.names])
    tokens = np.array(counts)  # [texts]
    totals = np.array(sums)  # [texts, models]

    def mean_kl(indices: Any) -> Any:
        return totals[indices].sum(1) / tokens[indices].sum(1)[:, None]  # [D, models]

    correlations["spearman_kl_norm"] = correlation(norms, text_count, mean_kl)
    return correlations


def _adapter_rows(run: _Run, summary: _Summary) -> list[list[Any]]:
    rows = []
    for name in run.names:
        rows.append(
            [
                name,
                run.rate[name],
                run.norm[name],
                run.gain[name]["value"],
                summary.lost[name]["value"],
                summary.lost[name]["stderr"],
                summary.p[name],
                *mcnemar(run.acc[BASE], run.acc[name]),
                summary.kl[name]["value"],
                summary.text[name]["value"],
                run.intruders[name],
            ]
        )
    return rows


def _suite_rows(run: _Run) -> list[list[Any]]:
    rows = []
    for name in (BASE, *run.names):
        for suite in SUITES:
            indices = run.indices(suite)
            row: list[Any] = [name, suite]
            for values in (run.margin, run.acc, run.acc_norm):
                part = mean(values[name][indices])
                row += [part["value"], part["stderr"]]
            row.append(mcnemar(run.acc[BASE][indices], run.acc[name][indices])[2])
            rows.append(row)
    return rows


def _frontier(run: _Run, summary: _Summary) -> list[str]:
    """Return the adapters that none beats in learning and forgetting."""
    points = {}
    for name in run.names:
        points[name] = (run.gain[name]["value"], -summary.lost[name]["value"])

    def is_beaten(point: tuple[float, float]) -> bool:
        return any(
            other != point and other[0] >= point[0] and other[1] >= point[1]
            for other in points.values()
        )

    return [name for name, point in points.items() if not is_beaten(point)]


def _divergence_gaps(run: _Run) -> dict[str, list[float]]:
    """Return adapter -> mean and standard error of (rise of the loss on the base's text) − KL.

    Its expectation is 0.
    """
    gaps = {}
    for name in run.names:
        gap = run.loss[name] - run.loss[BASE] - run.kl[name]
        rise = per_token(gap, run.example_ids[name])
        gaps[name] = [rise["value"], rise["stderr"]]
    return gaps


def _figures(run: _Run, summary: _Summary, roles: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Return figure -> label -> the x and y of its series, and of bars the ends of their band."""
    joined = _same_shape(roles["standard"])

    def series(x: dict[str, float], y: dict[str, float]) -> dict[str, Any]:
        line = f"{joined[0]} to {joined[-1]}"
        by_label = {line: [[x[name] for name in joined], [y[name] for name in joined]]}
        for name in run.names:
            if name not in joined:
                by_label[name] = [[x[name]], [y[name]]]
        return by_label

    # 1. One point per adapter.
    gain = {name: run.gain[name]["value"] for name in run.names}
    lost = {name: summary.lost[name]["value"] for name in run.names}
    kl = {name: summary.kl[name]["value"] for name in run.names}

    # 2. One bar per suite.
    bars = {}
    for role in ("standard", "high_rate"):
        by_item = run.lost(roles[role])
        lost_in = [mean(by_item[run.indices(suite)]) for suite in SUITES]
        means = [one["value"] for one in lost_in]
        lows = [one["value"] - one["stderr"] for one in lost_in]
        highs = [one["value"] + one["stderr"] for one in lost_in]
        bars[roles[role]] = [list(SUITES), means, lows, highs]
    return {"frontier": series(gain, lost), "divergence": series(run.norm, kl), "suites": bars}
