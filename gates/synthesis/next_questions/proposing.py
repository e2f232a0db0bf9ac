"""The next experiments computed again from the results, the receipts and the plan among the inputs.

A candidate is a dict with the fields of candidates.json. Independent of the lab's code.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from gates.shared import closed_form, deciding, outputs
from gates.shared.deciding import is_number
from gates.synthesis.next_questions import planned

TURNED = {"<": ">=", ">=": "<", ">": "<=", "<=": ">"}
READS_OTHERS = "it reads the results of other features: what changes them changes it"
NO_EQUALITY = "no interval decides that an estimate equals a value"


def features() -> dict[str, Path]:
    """Return feature -> its folder, in the order of their ids: the inputs that have a result."""
    folders = {}
    for name, path in sorted(outputs.inputs().items()):
        if (path / "result.json").is_file():
            folders[name] = path
    return folders


def read(path: Path) -> Any:
    """Return the content of a JSON file."""
    return json.loads(path.read_text("utf-8"))


def plan() -> dict[str, Any]:
    """Return the plan among the inputs."""
    document: dict[str, Any] = read(outputs.inputs()[planned.PLAN])
    return document


def planned_features() -> list[dict[str, Any]]:
    """Return all features of the plan."""
    listed = []
    for phase in plan()["phases"]:
        listed += phase["features"]
    return listed


def receipt_digest(folder: Path) -> str:
    """Return the digest of a feature's receipt."""
    return f"sha256:{hashlib.sha256((folder / 'receipt.json').read_bytes()).hexdigest()}"


def recompute() -> dict[str, Any]:
    """Return the scores, the candidates in their order, what has none, and all measurements."""
    results = {name: read(folder / "result.json") for name, folder in features().items()}
    # 1. Every prediction of a feature that is there.
    scored = []
    for feature in planned_features():
        for prediction in feature.get("predictions", []):
            if feature["id"] in results:
                measured = results[feature["id"]]["measurements"]
                outcome = deciding.score_prediction(prediction, measured)
                scored.append((feature["id"], prediction, outcome))

    # 2. What did not hold.
    candidates, unplanned = [], []
    for feature, prediction, outcome in scored:
        if outcome == "HELD":
            continue
        proposed = _propose(feature, prediction, outcome, results[feature])
        if isinstance(proposed, dict):
            candidates.append(proposed)
        else:
            unplanned.append([feature, prediction["id"], outcome, proposed])

    # 3. What is known least.
    widths = _widths(results, scored)
    candidates += _narrower(widths, candidates, results)

    # 4. Costs and order.
    for candidate in candidates:
        candidate["cost"] = _cost(candidate, results)
        candidate["bits_per_hour"] = None
        if candidate["cost"] is not None:
            rate = candidate["bits"] * 3600 / candidate["cost"]["seconds"]
            candidate["bits_per_hour"] = rate
    candidates.sort(key=_place)
    outcomes = [outcome for _, _, outcome in scored]
    return {
        "outcomes": outcomes,
        "candidates": candidates,
        "unplanned": unplanned,
        "measurements": _measurements(outcomes, candidates, unplanned, widths),
    }


def _place(candidate: dict[str, Any]) -> tuple[float, str, str]:
    """Return what orders candidates: most bits per hour first, then by their names."""
    name = f"{candidate['feature']}.{candidate['expected']['measurement']}"
    return -(candidate["bits_per_hour"] or 0.0), name, candidate["id"]


def _propose(
    feature: str, prediction: dict[str, Any], outcome: str, result: dict[str, Any]
) -> dict[str, Any] | str:
    """Return the candidate of a prediction that did not hold, or why there is none."""
    settings = result["environment"].get("config", {})
    name, comparator, limit = (prediction[key] for key in ("measurement", "comparator", "value"))
    measured = result["measurements"].get(name)
    if "features" in settings:
        return READS_OTHERS
    if measured is None or measured["value"] is None:
        return f"there is no number {name}"
    candidate = {
        "feature": feature,
        "id": prediction["id"],
        "claimed": {"measurement": name, "comparator": comparator, "value": limit},
        "measured": measured,
        "change": None,
        "repeats": None,
    }
    if outcome == "MISSED":
        expected = _against(name, comparator, limit, measured["value"])
        change = _change(settings)
        return candidate | {"kind": "missed", "expected": expected, "change": change, "bits": 1.0}

    # Open: a claim about the best of several asks whether it leads at all.
    if prediction.get("margin") is not None:
        name, comparator, limit = prediction["margin"], ">", 0
        measured = result["measurements"].get(name)
    if measured is None or not is_number(measured["value"]):
        return f"there is no number {name}"
    if comparator in ("==", "!="):
        return NO_EQUALITY
    claim = {"measurement": name, "comparator": comparator, "value": limit}
    candidate |= {"claimed": claim, "measured": measured}
    return candidate | _open(claim, measured, settings)


def _open(
    claim: dict[str, Any], measured: dict[str, Any], settings: dict[str, Any]
) -> dict[str, Any]:
    """Return kind, expectation, repeats and bits of a claim that is not decided."""
    name, comparator, limit = claim["measurement"], claim["comparator"], claim["value"]
    value, stderr, n = measured["value"], measured.get("stderr"), measured.get("n")
    ends = limit if comparator == "within" else [limit]
    # 1. The side on which the number is.
    expected = claim
    if comparator == "within":
        if value < ends[0]:
            expected = {"measurement": name, "comparator": "<", "value": ends[0]}
        elif value > ends[1]:
            expected = {"measurement": name, "comparator": ">", "value": ends[1]}
    elif (comparator in ("<", "<=")) != (value < limit):
        expected = {"measurement": name, "comparator": TURNED[comparator], "value": limit}
    answer = {"expected": expected}

    # 2. Without a spread: a first one.
    word = _word(settings, n)
    if stderr is None or not n or n < 2:
        repeats = {"word": word, "before": None, "needed": planned.FIRST}
        return answer | {"kind": "unrepeated", "repeats": repeats, "bits": 1.0}

    # 3. With one: as many as decide.
    nearest = min(abs(value - end) for end in ends)
    repeats = {"word": word, "before": n, "needed": _enough(nearest, stderr, n)}
    bits = _entropy(_chance(comparator, ends, value, stderr, n))
    return answer | {"kind": "open", "repeats": repeats, "bits": bits}


def _against(name: str, comparator: str, limit: Any, value: Any) -> dict[str, Any]:
    """Return the claim that a run decided in the place of the one that missed."""
    if comparator == "within":
        end, side = (limit[0], "<") if value < limit[0] else (limit[1], ">")
        return {"measurement": name, "comparator": side, "value": end}
    if comparator in ("==", "!="):
        stated = value if comparator == "==" else limit
        return {"measurement": name, "comparator": "==", "value": stated}
    return {"measurement": name, "comparator": TURNED[comparator], "value": limit}


def _widths(results: dict[str, Any], scored: list[Any]) -> list[tuple[float, str, str, float]]:
    """Return (share, feature, measurement, half-width) of headline numbers, the widest first."""
    widths = []
    for feature, result in results.items():
        for name in result["headline"]:
            measured = result["measurements"][name]
            ends = deciding.confidence_interval(measured)
            if ends is None or measured.get("exact"):
                continue
            scale = abs(measured["value"])
            for owner, prediction, _ in scored:
                if (owner, prediction["measurement"]) == (feature, name):
                    scale = _scale(prediction["value"], measured["value"])
            half = (ends[1] - ends[0]) / 2
            if scale > 0:
                widths.append((half / scale, feature, name, half))
    return sorted(widths, key=lambda width: -width[0])


def _scale(limit: Any, value: float) -> float:
    """Return what a width is a share of: the claimed range or value, else the number itself."""
    if isinstance(limit, list):
        return float(abs(limit[1] - limit[0]))
    if is_number(limit) and limit != 0:
        return abs(limit)
    return abs(value)


def _narrower(
    widths: list[tuple[float, str, str, float]],
    candidates: list[dict[str, Any]],
    results: dict[str, Any],
) -> list[dict[str, Any]]:
    """Return candidates that halve the widest intervals that no other candidate repeats."""
    repeated = set()
    for one in candidates:
        if one["repeats"] is not None:
            repeated.add((one["feature"], one["expected"]["measurement"]))
    free = [width for width in widths if width[1:3] not in repeated][: planned.WIDEST]
    narrower = []
    for _, feature, name, half in free:
        result = results[feature]
        measured = result["measurements"][name]
        n = measured["n"]
        limits = [measured["value"] - half, measured["value"] + half]
        word = _word(result["environment"].get("config", {}), n)
        needed = _enough(half / 2, measured["stderr"], n)
        narrower.append(
            {
                "kind": "wide",
                "feature": feature,
                "id": name,
                "claimed": None,
                "measured": measured,
                "expected": {"measurement": name, "comparator": "within", "value": limits},
                "bits": 1.0,
                "change": None,
                "repeats": {"word": word, "before": n, "needed": needed},
            }
        )
    return narrower


#### repeats, settings, bits


def _enough(half: float, stderr: float, n: int) -> int | None:
    """Return the fewest repeats whose interval is narrower than ± half; None if out of reach."""
    import numpy as np
    from scipy.special import stdtrit

    counts = np.arange(2, planned.MOST + 1)
    halves = stdtrit(counts - 1, 0.975) * stderr * np.sqrt(n / counts)
    enough = counts[halves < half]
    return int(enough[0]) if len(enough) else None


def _chance(comparator: str, ends: list[float], value: float, stderr: float, n: int) -> float:
    """Return the chance of a claim by Student's t around the number; with stderr 0, 0 or 1."""
    from scipy.special import stdtr

    below = []
    for end in ends:
        if stderr > 0:
            below.append(float(stdtr(n - 1, (end - value) / stderr)))
        else:
            below.append(float(value < end))
    if comparator == "within":
        return below[1] - below[0]
    return below[0] if comparator in ("<", "<=") else 1 - below[0]


def _entropy(p: float) -> float:
    """Return the bits of a yes or no of that chance."""
    if not 0 < p < 1:
        return 0.0
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p)


def setting(settings: Any, path: Any) -> Any:
    """Return what a dotted path names in a config, or None; a number is itself."""
    if not isinstance(path, str):
        return path
    for part in path.split("."):
        try:
            settings = settings[int(part) if isinstance(settings, list) else part]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return settings


def _count(value: Any) -> Any:
    """Return how many a setting is: a number itself, a list or mapping its entries."""
    return len(value) if isinstance(value, (list, dict)) else value


def _word(settings: dict[str, Any], n: int | None) -> str:
    """Return what n counts."""
    for path, word in planned.REPEATS:
        if n is not None and n >= 2 and _count(setting(settings, path)) == n:
            return word
    return "repeats"


def _change(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the setting that is changed."""
    for path, word in planned.SETTINGS:
        before = setting(settings, path)
        if isinstance(before, int):
            return {"word": word, "before": before, "after": planned.FACTOR * before}
    return {"word": "seed", "before": None, "after": None}


#### costs


def _cost(candidate: dict[str, Any], results: dict[str, Any]) -> dict[str, Any] | None:
    """Return seconds, bytes and rule of a candidate; None if it is out of reach."""
    feature, repeats, change = candidate["feature"], candidate["repeats"], candidate["change"]
    if repeats is not None and repeats["needed"] is None:
        return None
    longer = 1.0
    if change is not None and change["before"]:
        longer = change["after"] / change["before"]
    settings = results[feature]["environment"].get("config", {})

    # 1. Trainings, of as many seeds.
    trains = repeats is None or repeats["word"] == "seeds"
    if trains and feature in planned.TRAININGS and planned.HARDWARE in results:
        seeds = _count(setting(settings, "seeds")) or 1
        if repeats is not None:
            seeds = repeats["needed"]
        seconds, peak = _one_seed(feature, settings, results)
        source = f"models of {planned.HARDWARE}"
        return {"seconds": longer * seeds * seconds, "bytes": peak, "source": source}

    # 2. All else, as the verified run.
    process = _process(features()[feature])
    if repeats is not None:
        longer = repeats["needed"] / (repeats["before"] or 1)
    return {
        "seconds": longer * process["seconds"],
        "bytes": float(process["peakMemoryBytes"]),
        "source": f"receipt of {feature}",
    }


def _one_seed(
    feature: str, settings: dict[str, Any], results: dict[str, Any]
) -> tuple[float, float]:
    """Return the seconds of a seed's trainings and the bytes of the largest."""
    here = results[planned.HARDWARE]["environment"]["machine"]
    sizes = _sizes(read(features()[planned.HARDWARE] / "artifacts/configs/base.json"))
    seconds, peaks = 0.0, []
    for times, examples, batch, rank, method in planned.TRAININGS[feature]:
        step = closed_form.Step(
            method=method,
            batch=setting(settings, batch),
            sequence=setting(settings, "data.max_tokens"),
            rank=setting(settings, rank),
            on_gpu=False,
        )
        steps = _count(setting(settings, times)) * setting(settings, examples) / step.batch
        seconds += steps * closed_form.step_seconds(sizes, step, here["rates"], here["time_fit"])
        peaks.append(closed_form.step_bytes(sizes, step, here["memory_fit"]))
    return seconds, max(peaks)


def _sizes(config: dict[str, Any]) -> closed_form.Sizes:
    """Return the sizes of a Llama, its parameters counted: tied embedding, matrices, norms."""
    assert config["model_type"] == "llama"
    assert config["tie_word_embeddings"] is True
    bare = closed_form.sizes_of(config, 0)
    norms = (2 * bare.layers + 1) * bare.d
    return closed_form.sizes_of(config, bare.vocabulary * bare.d + bare.linear + norms)


def _process(folder: Path) -> dict[str, Any]:
    """Return what a receipt says of the process."""
    products = read(folder / "receipt.json")["predicate"]["runDetails"]["byproducts"]
    (process,) = [item["content"] for item in products if item["name"] == "process"]
    return dict(process)


#### measurements


def _measurements(
    outcomes: list[str],
    candidates: list[dict[str, Any]],
    unplanned: list[Any],
    widths: list[tuple[float, str, str, float]],
) -> dict[str, Any]:
    """Return name -> value of every measurement."""
    kinds = [candidate["kind"] for candidate in candidates]
    payable = [candidate for candidate in candidates if candidate["cost"] is not None]
    hours = [candidate["cost"]["seconds"] / 3600 for candidate in payable]
    numbers: dict[str, Any] = {
        "predictions": len(outcomes),
        "predictions_missed": outcomes.count("MISSED"),
        "predictions_inconclusive": outcomes.count("INCONCLUSIVE"),
        "candidates": len(candidates),
        "candidates_missed": kinds.count("missed"),
        "candidates_open": kinds.count("open") + kinds.count("unrepeated"),
        "candidates_wide": kinds.count("wide"),
        "out_of_reach": len(candidates) - len(payable),
        "unplanned": len(unplanned),
    }
    texts = ("widest", "widest_relative", "best", "best_bits_per_hour")
    numbers |= dict.fromkeys((*texts, "cheapest_hours", "dearest_hours", "first_five_hours"))
    if widths:
        share, feature, name, _ = widths[0]
        numbers |= {"widest": f"{feature}.{name}", "widest_relative": share}
    if payable:
        best = payable[0]
        numbers |= {
            "best": f"{best['feature']}.{best['expected']['measurement']}",
            "best_bits_per_hour": best["bits_per_hour"],
            "cheapest_hours": min(hours),
            "dearest_hours": max(hours),
            "first_five_hours": sum(hours[:5]),
        }
    return numbers
