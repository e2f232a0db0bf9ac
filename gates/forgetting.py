"""FEAT-008's numbers, tables and figures computed again from its arrays and from the evaluations of its adapters.

numpy and scipy are imported inside, so a warm cache never loads them; what the arrays themselves are worth is settled
in gates/forgetting_model.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from gates import outputs, trials
from gates.forgetting_items import FILES as ITEMS
from gates.forgetting_items import SUITES, items
from gates.qlora_arrays import cached

EARLIER = ("FEAT-005", "FEAT-006", "FEAT-007")
SCORES, TEXT, MODELS = "artifacts/scores.safetensors", "artifacts/text.jsonl", "artifacts/models.json"
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
        trial = {"lora": lora, "training": training, "examples": plan["examples"], "shuffled": False, "seed": seed}
        found[name] = trials.name_of(trial)
    return found


def scale(name: str) -> float:
    """Give s of an adapter's ΔW = s·B·A."""
    lora = config()["adapters"][name]
    return float(lora["lora_alpha"] / (math.sqrt(lora["r"]) if lora.get("use_rslora") else lora["r"]))


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
    """Give what the arrays say: `numbers` (measurement → value), `tables` (rows), `figures` (series), `facts`."""
    read = (SCORES, MODELS, *ITEMS, *trials.files([*adapters().values(), BASE], ["evaluation.safetensors"]))
    return dict(cached("forgetting", read, lambda: _found(_Run())))


class _Run:
    """The arrays as per-item and per-token values, by model."""

    def __init__(self) -> None:
        import numpy as np

        stored, rows, known = arrays(), items(), features()
        self.suites = [row["suite"] for row in rows]
        gold = [row["gold"] for row in rows]
        self.margin, self.acc, self.norm_acc, self.kl, self.loss, self.owners = {}, {}, {}, {}, {}, {}
        self.norm, self.intruders = {}, {}
        for name in (BASE, *adapters()):
            found = stored[f"{name}.log_likelihoods"].astype(np.float64)
            assert found.shape == (len(rows), 4), f"{name}: {found.shape} log-likelihoods for {len(rows)} items"
            rate = found / [[len(choice) for choice in row["choices"]] for row in rows]
            others = [[v for i, v in enumerate(line) if i != g] for line, g in zip(rate.tolist(), gold, strict=True)]
            right = [line[g] for line, g in zip(rate.tolist(), gold, strict=True)]
            self.margin[name] = np.array([r - max(o) for r, o in zip(right, others, strict=True)])
            self.acc[name] = np.array([float(np.argmax(v) == g) for v, g in zip(found, gold, strict=True)])
            self.norm_acc[name] = np.array([float(np.argmax(v) == g) for v, g in zip(rate, gold, strict=True)])
            self.kl[name], self.loss[name] = (
                stored[f"{name}.{part}"].astype(np.float64) for part in ("divergences", "losses")
            )
            self.owners[name] = stored[f"{name}.owners"]
            self.norm[name] = math.sqrt(sum(value**2 for value in stored[f"{name}.norms"].tolist()))
            less = stored[f"{name}.similarities"] < config()["intruders"]["threshold"]
            self.intruders[name] = int(less.sum())
        before = trials.load(BASE, "evaluation", known)
        self.gain = {
            name: _per_token(before["losses"].astype(np.float64) - after["losses"], before["owners"])
            for name, after in ((n, trials.load(t, "evaluation", known)) for n, t in adapters().items())
        }
        self.rate = {name: settings["learning_rate"] for name, settings in config()["adapters"].items()}

    def lost(self, name: str) -> Any:
        return self.margin[BASE] - self.margin[name]

    def of(self, suite: str) -> list[int]:
        return [i for i, name in enumerate(self.suites) if name == suite]


def _mean(values: Any) -> dict[str, Any]:
    count = len(values)
    centre = math.fsum(values) / count
    spread = math.sqrt(math.fsum((v - centre) ** 2 for v in values) / (count - 1) / count)
    return {"value": centre, "stderr": spread, "n": count}


def _per_token(values: Any, owners: Any) -> dict[str, Any]:
    """Give the mean over tokens with its standard error over owners: Cochran's linearised ratio of two sums."""
    sums: dict[int, list[float]] = {}
    for value, owner in zip(values.tolist(), owners.tolist(), strict=True):
        sums.setdefault(owner, []).append(value)
    groups, count = len(sums), len(values)
    mean = math.fsum(values) / count
    spread = math.fsum((math.fsum(group) - mean * len(group)) ** 2 for group in sums.values())
    return {"value": mean, "stderr": math.sqrt(groups / (groups - 1) * spread) / count, "n": groups}


def mcnemar(before: Any, after: Any) -> tuple[int, int, float]:
    """Give items lost, won, and twice the chance of so few of the rarer in as many throws of a coin."""
    lost = int(sum(a > b for a, b in zip(before, after, strict=True)))
    won = int(sum(a < b for a, b in zip(before, after, strict=True)))
    tail = sum(math.comb(lost + won, i) for i in range(min(lost, won) + 1)) / 2 ** (lost + won)
    return lost, won, min(1.0, 2 * tail)


def _holm(p_values: dict[str, float]) -> dict[str, float]:
    ordered, found, before = sorted(p_values, key=lambda name: p_values[name]), {}, 0.0
    for place, name in enumerate(ordered):
        before = found[name] = max(before, min(1.0, p_values[name] * (len(ordered) - place)))
    return found


def _ranks(values: Any) -> Any:
    """Give ranks along the last axis, equal values at the middle of theirs."""
    below = (values[..., None, :] < values[..., :, None]).sum(-1)
    upto = (values[..., None, :] <= values[..., :, None]).sum(-1)
    return (below + upto + 1) / 2


def _spearman(x: Sequence[float], y: Any) -> Any:
    import numpy as np

    a, b = _ranks(np.array(x)), _ranks(y)
    a, b = a - a.mean(), b - b.mean(-1, keepdims=True)
    scale = np.sqrt((a * a).sum() * (b * b).sum(-1))
    return np.where(scale > 0, (a * b).sum(-1) / np.where(scale > 0, scale, 1), 0.0)


def _correlation(x: Sequence[float], units: int, means: Callable[[Any], Any]) -> dict[str, Any]:
    """Give Spearman of x with means(units drawn [D, units]) -> [D, models], and its spread over 1000 draws."""
    import numpy as np

    drawn = np.random.default_rng(0).integers(0, units, (1000, units))
    value = float(_spearman(x, means(np.arange(units)[None]))[0])
    return {"value": value, "stderr": float(np.std(_spearman(x, means(drawn)), ddof=1)), "n": units}


def _found(run: _Run) -> dict[str, Any]:
    from scipy import stats

    names, roles = list(adapters()), config()["roles"]
    p_values = {}
    for name in names:
        moved = run.lost(name).any()
        p_values[name] = float(stats.ttest_rel(run.margin[BASE], run.margin[name]).pvalue) if moved else 1.0
    told: dict[str, Any] = {
        "lost": {name: _mean(run.lost(name)) for name in names},
        "p": _holm(p_values),
        "kl": {name: _per_token(run.kl[name], run.owners[name]) for name in names},
        "text": {name: _per_token(run.loss[name], run.owners[name]) for name in (BASE, *names)},
    }
    told["forgot"] = [name for name in names if told["lost"][name]["value"] > 0 and told["p"][name] < 0.05]
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
        "margin_base": _mean(run.margin[BASE]),
        "acc_base": _mean(run.acc[BASE]),
        "acc_norm_base": _mean(run.norm_acc[BASE]),
        **{f"forgetting_{role}": told["lost"][roles[role]] for role in ROLES},
        "forgetting_rate_gap": _mean(run.margin[low] - run.margin[high]),
        **{f"forgetting_{suite.removeprefix('lab_')}": _mean(run.lost(standard)[run.of(suite)]) for suite in SUITES},
        "acc_change_standard": _mean(run.acc[standard] - run.acc[BASE]),
        "mcnemar_p_standard": mcnemar(run.acc[BASE], run.acc[standard])[2],
        "adapters_that_forgot": len(told["forgot"]),
        "kl_standard": told["kl"][standard],
        "kl_high_rate": told["kl"][high],
        "text_loss_base": told["text"][BASE],
        "text_loss_change_standard": _per_token(run.loss[standard] - run.loss[BASE], run.owners[BASE]),
        **_correlations(run, standard),
        **{f"intruders_{role}": run.intruders[roles[role]] for role in ROLES},
    }


def _correlations(run: _Run, standard: str) -> dict[str, Any]:
    import numpy as np

    names, plan = list(adapters()), config()["adapters"]
    shape = {key: value for key, value in plan[standard].items() if key != "learning_rate"}
    alike = [n for n in names if {k: v for k, v in plan[n].items() if k != "learning_rate"} == shape]
    norms = [run.norm[name] for name in names]
    texts = int(run.owners[BASE].max()) + 1
    counts = np.array([(run.owners[BASE] == t).sum() for t in range(texts)])
    sums = np.array([[run.kl[n][run.owners[n] == t].sum() for n in names] for t in range(texts)])  # [texts, models]

    def lost(of: Sequence[str]) -> Callable[[Any], Any]:
        table = np.stack([run.lost(name) for name in of], 1)  # [items, models]
        return lambda drawn: table[drawn].mean(1)

    return {
        "spearman_rate": _correlation([run.rate[n] for n in alike], len(run.suites), lost(alike)),
        "spearman_norm": _correlation(norms, len(run.suites), lost(names)),
        "spearman_kl_norm": _correlation(
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
            means = [_mean(part[name][at]) for part in (run.margin, run.acc, run.norm_acc)]
            p = mcnemar(run.acc[BASE][at], run.acc[name][at])[2]
            rows.append([name, suite, *(mean[key] for mean in means for key in ("value", "stderr")), p])
    return rows


def _best(run: _Run, told: dict[str, Any]) -> list[str]:
    """Give the adapters that none beats in learning and forgetting."""
    points = {name: (run.gain[name]["value"], -told["lost"][name]["value"]) for name in adapters()}
    return [
        name
        for name, mine in points.items()
        if not any(other != mine and other[0] >= mine[0] and other[1] >= mine[1] for other in points.values())
    ]


def _apart(run: _Run) -> dict[str, list[float]]:
    """Give adapter -> mean and standard error of (rise of the loss on the base's text) − KL, which is 0 in the mean."""
    found = {}
    for name in adapters():
        mean = _per_token(run.loss[name] - run.loss[BASE] - run.kl[name], run.owners[name])
        found[name] = [mean["value"], mean["stderr"]]
    return found


def _figures(run: _Run, told: dict[str, Any], roles: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Give figure -> label -> the x and y of its series."""
    gain, lost = ({n: v["value"] for n, v in of.items()} for of in (run.gain, told["lost"]))
    edge = sorted(_best(run, told), key=lambda name: gain[name])
    bars = {roles[role]: [_mean(run.lost(roles[role])[run.of(suite)]) for suite in SUITES] for role in ROLES}
    return {
        "frontier": {
            **{name: [[gain[name]], [lost[name]]] for name in adapters()},
            "not beaten": [[gain[name] for name in edge], [lost[name] for name in edge]],
        },
        "divergence": {name: [[run.norm[name]], [told["kl"][name]["value"]]] for name in adapters()},
        "suites": {name: [list(SUITES), [bar["value"] for bar in of]] for name, of in bars.items()},
    }
