"""FEAT-008's numbers, tables and figures computed again from its arrays and adapters' evaluations.

numpy and scipy are imported inside, so a warm cache never loads them; what the arrays themselves
are worth is settled in gates/forgetting/model.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from gates.forgetting.items import FILES as ITEMS
from gates.forgetting.items import SUITES, items
from gates.shared import outputs, trials
from gates.shared.statistics import correlation, holm, mcnemar, mean, per_token
from gates.shared.stored import cached

EARLIER = ("FEAT-005", "FEAT-006", "FEAT-007")
SCORES, TEXT, MODELS = (
    "artifacts/scores.safetensors",
    "artifacts/text.jsonl",
    "artifacts/models.json",
)
BASE = "base"
ROLES = ("low_rate", "standard", "high_rate")
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


def config() -> dict[str, Any]:
    """Give the settings that the run says it used."""
    found: dict[str, Any] = outputs.result()["environment"]["config"]
    return found


def features() -> list[str]:
    """Give the earlier features among the inputs."""
    return [name for name in EARLIER if name in outputs.inputs()]


def adapters() -> dict[str, str]:
    """Give adapter -> name of the trial that the config says it is."""
    plan, found = config(), {}
    for name, settings in plan["adapters"].items():
        lora = {"use_rslora": False, **settings}
        training = {**plan["training"], "learning_rate": settings["learning_rate"]}
        seed = outputs.result()["environment"]["seed"]
        trial = {
            "lora": lora,
            "training": training,
            "examples": plan["examples"],
            "shuffled": False,
            "seed": seed,
        }
        found[name] = trials.name_of(trial)
    return found


def scale(name: str) -> float:
    """Give s of an adapter's ΔW = s·B·A."""
    lora = config()["adapters"][name]
    return float(
        lora["lora_alpha"] / (math.sqrt(lora["r"]) if lora.get("use_rslora") else lora["r"])
    )


def texts() -> list[dict[str, Any]]:
    """Give the texts that the base wrote: ids, and how many of them, at the end, were drawn."""
    return [json.loads(line) for line in (outputs.out() / TEXT).read_text("utf-8").splitlines()]


def arrays() -> dict[str, Any]:
    """Give the stored arrays by "MODEL.PART"; one that is not finite is refused."""
    import numpy as np
    from safetensors.numpy import load_file

    found: dict[str, Any] = load_file(outputs.out() / SCORES)
    for name, array in found.items():
        assert np.isfinite(array).all(), f"{name} holds a value that is not finite"
    return found


def found() -> dict[str, Any]:
    """Give what the arrays say.

    `numbers` (measurement → value), `tables` (rows), `figures` (series), `facts`.
    """
    read = (
        SCORES,
        MODELS,
        *ITEMS,
        *trials.files([*adapters().values(), BASE], ["evaluation.safetensors"]),
    )
    return dict(cached("forgetting", read, lambda: _found(_Run())))


class _Run:
    """The arrays as per-item and per-token values, by model."""

    def __init__(self) -> None:
        import numpy as np

        stored, rows, known = arrays(), items(), features()
        self.suites = [row["suite"] for row in rows]
        gold = [row["gold"] for row in rows]
        self.margin, self.acc, self.norm_acc, self.kl, self.loss, self.example_ids = (
            {},
            {},
            {},
            {},
            {},
            {},
        )
        self.norm, self.intruders = {}, {}
        for name in (BASE, *adapters()):
            found = stored[f"{name}.log_likelihoods"].astype(np.float64)
            assert found.shape == (len(rows), 4), (
                f"{name}: {found.shape} log-likelihoods for {len(rows)} items"
            )
            rate = found / [[len(choice) for choice in row["choices"]] for row in rows]
            others = [
                [v for i, v in enumerate(line) if i != g]
                for line, g in zip(rate.tolist(), gold, strict=True)
            ]
            right = [line[g] for line, g in zip(rate.tolist(), gold, strict=True)]
            self.margin[name] = np.array([r - max(o) for r, o in zip(right, others, strict=True)])
            self.acc[name] = np.array(
                [float(np.argmax(v) == g) for v, g in zip(found, gold, strict=True)]
            )
            self.norm_acc[name] = np.array(
                [float(np.argmax(v) == g) for v, g in zip(rate, gold, strict=True)]
            )
            self.kl[name], self.loss[name] = (
                stored[f"{name}.{part}"].astype(np.float64) for part in ("divergences", "losses")
            )
            self.example_ids[name] = stored[f"{name}.example_ids"]
            self.norm[name] = math.sqrt(sum(value**2 for value in stored[f"{name}.norms"].tolist()))
            less = stored[f"{name}.similarities"] < config()["intruders"]["threshold"]
            self.intruders[name] = int(less.sum())
        before = trials.load(BASE, "evaluation", known)
        self.gain = {
            name: per_token(
                before["losses"].astype(np.float64) - after["losses"], before["example_ids"]
            )
            for name, after in (
                (n, trials.load(t, "evaluation", known)) for n, t in adapters().items()
            )
        }
        self.rate = {
            name: settings["learning_rate"] for name, settings in config()["adapters"].items()
        }

    def lost(self, name: str) -> Any:
        return self.margin[BASE] - self.margin[name]

    def of(self, suite: str) -> list[int]:
        return [i for i, name in enumerate(self.suites) if name == suite]


def _found(run: _Run) -> dict[str, Any]:
    from scipy import stats

    names, roles = list(adapters()), config()["roles"]
    p_values = {}
    for name in names:
        moved = run.lost(name).any()
        p_values[name] = (
            float(stats.ttest_rel(run.margin[BASE], run.margin[name]).pvalue) if moved else 1.0
        )
    told: dict[str, Any] = {
        "lost": {name: mean(run.lost(name)) for name in names},
        "p": holm(p_values),
        "kl": {name: per_token(run.kl[name], run.example_ids[name]) for name in names},
        "text": {name: per_token(run.loss[name], run.example_ids[name]) for name in (BASE, *names)},
    }
    told["forgot"] = [
        name for name in names if told["lost"][name]["value"] > 0 and told["p"][name] < 0.05
    ]
    return {
        "numbers": _numbers(run, told, roles),
        "tables": [_adapter_rows(run, told), _suite_rows(run)],
        "figures": _figures(run, told, roles),
        "facts": {"forgot": told["forgot"], "best": _best(run, told), "apart": _apart(run)},
    }


def _numbers(run: _Run, told: dict[str, Any], roles: dict[str, str]) -> dict[str, Any]:
    standard, low, high = roles["standard"], roles["low_rate"], roles["high_rate"]
    return {
        "items": len(run.suites),
        "adapters": len(adapters()),
        "margin_base": mean(run.margin[BASE]),
        "acc_base": mean(run.acc[BASE]),
        "acc_norm_base": mean(run.norm_acc[BASE]),
        **{f"forgetting_{role}": told["lost"][roles[role]] for role in ROLES},
        "forgetting_rate_gap": mean(run.margin[low] - run.margin[high]),
        **{
            f"forgetting_{suite.removeprefix('lab_')}": mean(run.lost(standard)[run.of(suite)])
            for suite in SUITES
        },
        "acc_change_standard": mean(run.acc[standard] - run.acc[BASE]),
        "mcnemar_p_standard": mcnemar(run.acc[BASE], run.acc[standard])[2],
        "adapters_that_forgot": len(told["forgot"]),
        "kl_standard": told["kl"][standard],
        "kl_high_rate": told["kl"][high],
        "text_loss_base": told["text"][BASE],
        "text_loss_change_standard": per_token(
            run.loss[standard] - run.loss[BASE], run.example_ids[BASE]
        ),
        **_correlations(run, standard),
        **{f"intruders_{role}": run.intruders[roles[role]] for role in ROLES},
    }


def _alike(standard: str) -> list[str]:
    """Give the adapters that differ from the standard one in the rate alone."""
    shapes = {
        n: {k: v for k, v in of.items() if k != "learning_rate"}
        for n, of in config()["adapters"].items()
    }
    return [name for name, shape in shapes.items() if shape == shapes[standard]]


def _correlations(run: _Run, standard: str) -> dict[str, Any]:
    import numpy as np

    names, alike = list(adapters()), _alike(standard)
    norms = [run.norm[name] for name in names]
    texts = int(run.example_ids[BASE].max()) + 1
    counts = np.array([(run.example_ids[BASE] == t).sum() for t in range(texts)])
    # [texts, models]
    sums = np.array(
        [[run.kl[n][run.example_ids[n] == t].sum() for n in names] for t in range(texts)]
    )

    def lost(of: Sequence[str]) -> Callable[[Any], Any]:
        table = np.stack([run.lost(name) for name in of], 1)  # [items, models]
        return lambda drawn: table[drawn].mean(1)

    return {
        "spearman_rate": correlation([run.rate[n] for n in alike], len(run.suites), lost(alike)),
        "spearman_norm": correlation(norms, len(run.suites), lost(names)),
        "spearman_kl_norm": correlation(
            norms, texts, lambda drawn: sums[drawn].sum(1) / counts[drawn].sum(1)[:, None]
        ),
    }


def _adapter_rows(run: _Run, told: dict[str, Any]) -> list[list[Any]]:
    return [
        [
            name,
            run.rate[name],
            run.norm[name],
            run.gain[name]["value"],
            told["lost"][name]["value"],
            told["lost"][name]["stderr"],
            told["p"][name],
            *mcnemar(run.acc[BASE], run.acc[name]),
            told["kl"][name]["value"],
            told["text"][name]["value"],
            run.intruders[name],
        ]
        for name in adapters()
    ]


def _suite_rows(run: _Run) -> list[list[Any]]:
    rows = []
    for name in (BASE, *adapters()):
        for suite in SUITES:
            at = run.of(suite)
            means = [mean(part[name][at]) for part in (run.margin, run.acc, run.norm_acc)]
            p = mcnemar(run.acc[BASE][at], run.acc[name][at])[2]
            rows.append(
                [name, suite, *(part[key] for part in means for key in ("value", "stderr")), p]
            )
    return rows


def _best(run: _Run, told: dict[str, Any]) -> list[str]:
    """Give the adapters that none beats in learning and forgetting."""
    points = {name: (run.gain[name]["value"], -told["lost"][name]["value"]) for name in adapters()}
    return [
        name
        for name, mine in points.items()
        if not any(
            other != mine and other[0] >= mine[0] and other[1] >= mine[1]
            for other in points.values()
        )
    ]


def _apart(run: _Run) -> dict[str, list[float]]:
    """Give adapter -> mean and standard error of (rise of the loss on the base's text) − KL.

    It is 0 in the mean.
    """
    found = {}
    for name in adapters():
        rise = per_token(run.loss[name] - run.loss[BASE] - run.kl[name], run.example_ids[name])
        found[name] = [rise["value"], rise["stderr"]]
    return found


def _figures(run: _Run, told: dict[str, Any], roles: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Give figure -> label -> the x and y of its series."""
    names, alike = list(adapters()), _alike(roles["standard"])
    norm, told_kl = run.norm, {name: told["kl"][name]["value"] for name in names}
    gain, lost = ({n: v["value"] for n, v in of.items()} for of in (run.gain, told["lost"]))
    bars = {
        roles[role]: [mean(run.lost(roles[role])[run.of(suite)]) for suite in SUITES]
        for role in ("standard", "high_rate")
    }

    def points(x: dict[str, float], y: dict[str, float]) -> dict[str, Any]:
        joined = {f"{alike[0]} to {alike[-1]}": [[x[n] for n in alike], [y[n] for n in alike]]}
        return joined | {n: [[x[n]], [y[n]]] for n in names if n not in alike}

    return {
        "frontier": points(gain, lost),
        "divergence": points(norm, told_kl),
        "suites": {name: [list(SUITES), [bar["value"] for bar in of]] for name, of in bars.items()},
    }
