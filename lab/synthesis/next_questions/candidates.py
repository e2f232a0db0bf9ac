"""From predictions that did not hold, and from wide intervals, to next experiments. Pure.

| kind       | what is asked                          | what is expected of the answer     |
|------------|----------------------------------------|------------------------------------|
| missed     | is it so again with a changed setting? | what was measured                  |
| open       | as many repeats as would have decided  | the side on which the number is    |
| unrepeated | a first spread                         | the side on which the number is    |
| wide       | where in its interval is the number?   | within the interval that is known  |

How many repeats decide follows from the measured standard deviation, stderr · √n: the fewest k with
t(0.975, k - 1) · sd / √k below the distance to the claim, as if the number stayed where it is. It
is planning after the fact, with an sd from few repeats that is itself uncertain.

What an answer tells is counted in bits. One that halves an interval tells 1 bit. A question with
the answers yes and no tells H(p) = -p log2 p - (1 - p) log2 (1 - p) bits, with p from Student's t
around the measured number; 1 bit where nothing is known, as of a changed setting.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lab.config import Config
from lab.result import Measurement, Result
from lab.synthesis.evidence import confidence_interval, is_number, t_quantile
from lab.synthesis.next_questions.measured import (
    Candidate,
    Change,
    Claim,
    Kind,
    Repeats,
    Unplanned,
    Width,
)
from lab.synthesis.retrospect import Prediction, PredictionScore

OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}
REPEATED = "repeats"  # the word for what n counts where no setting of the feature says it


def propose(
    scores: Iterable[PredictionScore], results: Mapping[str, Result], config: Config
) -> tuple[list[Candidate], list[Unplanned]]:
    """Return a candidate for each prediction that did not hold, or why there is none."""
    candidates, unplanned = [], []
    for score in scores:
        if score.outcome == "HELD":
            continue
        proposal = _proposal(score, results[score.prediction.feature], config)
        if isinstance(proposal, Candidate):
            candidates.append(proposal)
        else:
            prediction = score.prediction
            unplanned.append(Unplanned(prediction.feature, prediction.id, score.outcome, proposal))
    return candidates, unplanned


def _proposal(score: PredictionScore, result: Result, config: Config) -> Candidate | str:
    """Return the candidate of a prediction, or the reason that there is none."""
    prediction = score.prediction
    settings = result.environment.get("config", {})
    # 1. What no run of this feature decides.
    if "features" in settings:
        return "it reads the results of other features: what changes them changes it"
    measurement = result.measurements.get(prediction.measurement)
    if measurement is None or measurement.value is None:
        return f"there is no number {prediction.measurement}"

    # 2. A miss: again, with a changed setting.
    if score.outcome == "MISSED":
        return Candidate(
            kind=Kind.MISSED,
            feature=prediction.feature,
            id=prediction.id,
            claimed=Claim(prediction.measurement, prediction.comparator, prediction.value),
            measured=measurement,
            expected=contradict(prediction, measurement.value),
            bits=1.0,
            change=find_change(settings, config),
        )

    # 3. What is open: the claim itself, or that the best leads at all.
    claim = Claim(prediction.measurement, prediction.comparator, prediction.value)
    if prediction.margin is not None:
        claim = Claim(prediction.margin, ">", 0)
        measurement = result.measurements.get(prediction.margin)
    if measurement is None or not is_number(measurement.value):
        return f"there is no number {claim.measurement}"
    if claim.comparator in ("==", "!="):
        return "no interval decides that an estimate equals a value"
    return _repeat(prediction, claim, measurement, settings=settings, config=config)


def _repeat(
    prediction: Prediction,
    claim: Claim,
    measured: Measurement,
    *,
    settings: Mapping[str, Any],
    config: Config,
) -> Candidate:
    """Return the candidate that decides an open claim by more repeats."""
    value = measured.number
    word = repeats_word(settings, measured.n, config["repeats"])
    stderr, n = measured.stderr, measured.n
    kind, bits = Kind.UNREPEATED, 1.0
    repeats = Repeats(word, None, config["first_repeats"])
    if stderr is not None and n is not None and n >= 2:
        kind = Kind.OPEN
        deviation = stderr * math.sqrt(n)
        needed = fewest_repeats(distance(claim, value), deviation, config["most_repeats"])
        repeats = Repeats(word, n, needed)
        bits = entropy(probability(claim, value, stderr, n - 1))
    return Candidate(
        kind=kind,
        feature=prediction.feature,
        id=prediction.id,
        claimed=claim,
        measured=measured,
        expected=side_of(claim, value),
        bits=bits,
        repeats=repeats,
    )


def narrow(
    widths: Sequence[Width],
    candidates: Sequence[Candidate],
    results: Mapping[str, Result],
    config: Config,
) -> list[Candidate]:
    """Return candidates that halve the widest intervals; what others repeat already is left out."""
    repeated = {one.name for one in candidates if one.repeats is not None}
    narrower: list[Candidate] = []
    for width in widths:
        name = f"{width.feature}.{width.measurement}"
        if name in repeated or len(narrower) == config["widest"]:
            continue
        result = results[width.feature]
        measured = result.measurements[width.measurement]
        assert measured.stderr is not None and measured.n is not None  # it has an interval
        deviation = measured.stderr * math.sqrt(measured.n)
        needed = fewest_repeats(width.half / 2, deviation, config["most_repeats"])
        settings = result.environment.get("config", {})
        word = repeats_word(settings, measured.n, config["repeats"])
        low, high = measured.number - width.half, measured.number + width.half
        narrower.append(
            Candidate(
                kind=Kind.WIDE,
                feature=width.feature,
                id=width.measurement,
                claimed=None,
                measured=measured,
                expected=Claim(width.measurement, "within", [low, high]),
                bits=1.0,
                repeats=Repeats(word, measured.n, needed),
            )
        )
    return narrower


def find_widths(
    results: Mapping[str, Result], predictions: Iterable[Prediction]
) -> tuple[Width, ...]:
    """Return the widths of all headline numbers that have an interval, the widest first.

    The scale is the value that a prediction claims of the number, or the width of the range that it
    claims; else the number itself. What has the scale 0 is left out.
    """
    claimed = {(one.feature, one.measurement): one.value for one in predictions}
    widths = []
    for feature, result in results.items():
        for name in result.headline:
            measurement = result.measurements[name]
            bounds = confidence_interval(measurement)
            if bounds is None or measurement.exact:
                continue
            scale = abs(measurement.number)
            limit = claimed.get((feature, name))
            if isinstance(limit, list):
                scale = abs(limit[1] - limit[0])
            elif is_number(limit) and limit != 0:
                scale = abs(limit)
            if scale > 0:
                widths.append(Width(feature, name, (bounds[1] - bounds[0]) / 2, scale))
    return tuple(sorted(widths, key=lambda width: -width.relative))


def rank(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Return the candidates, those first that tell most per hour, what is out of reach last."""
    return tuple(sorted(candidates, key=lambda one: (-one.bits_per_hour, one.name, one.id)))


# Claims


def contradict(prediction: Prediction, value: Any) -> Claim:
    """Return what a run showed that decided against a prediction."""
    name, comparator, limit = prediction.measurement, prediction.comparator, prediction.value
    if comparator == "within":
        if value < limit[0]:
            return Claim(name, "<", limit[0])
        return Claim(name, ">", limit[1])
    if comparator == "==":
        return Claim(name, "==", value)
    if comparator == "!=":
        return Claim(name, "==", limit)
    return Claim(name, OPPOSITE[comparator], limit)


def side_of(claim: Claim, value: float) -> Claim:
    """Return the claim if a number is on its side, else its opposite."""
    limit = claim.value
    if claim.comparator == "within":
        if value < limit[0]:
            return Claim(claim.measurement, "<", limit[0])
        if value > limit[1]:
            return Claim(claim.measurement, ">", limit[1])
        return claim
    is_below = value < limit
    if is_below == claim.comparator.startswith("<"):
        return claim
    return Claim(claim.measurement, OPPOSITE[claim.comparator], limit)


def distance(claim: Claim, value: float) -> float:
    """Return how far a number is from where the claim's verdict changes, in its own unit."""
    limits = claim.value if claim.comparator == "within" else [claim.value]
    return min(abs(value - float(limit)) for limit in limits)


# Repeats and settings


def fewest_repeats(half: float, deviation: float, most: int) -> int | None:
    """Return the fewest repeats, at least 2, whose 95 % interval is narrower than ± `half`.

    deviation: the standard deviation between repeats, in the same unit. None above `most`.
    """
    counts = range(2, most + 1)

    def is_enough(k: int) -> bool:
        return t_quantile(k - 1) * deviation < half * math.sqrt(k)

    # the interval narrows with each repeat
    index = bisect.bisect_left(counts, 1, key=is_enough)
    return counts[index] if index < len(counts) else None


def repeats_word(
    settings: Mapping[str, Any], n: int | None, names: Iterable[Mapping[str, str]]
) -> str:
    """Return the word for what n counts: the first setting that is as large, or as long."""
    for name in names:
        if n is None or n < 2:
            break
        if size_of(lookup(settings, name["path"])) == n:
            return name["word"]
    return REPEATED


def find_change(settings: Mapping[str, Any], config: Config) -> Change:
    """Return the first setting that can be changed; without one, the seed."""
    for name in config["settings"]:
        value = lookup(settings, name["path"])
        if isinstance(value, int):
            return Change(name["word"], value, value * config["factor"])
    return Change("seed")


def lookup(settings: Any, path: str | int) -> Any:
    """Return what a path such as `second.r` or `ranks.0` names; None if there is nothing.

    A number is itself.
    """
    if isinstance(path, int):
        return path
    for part in path.split("."):
        if isinstance(settings, Mapping):
            settings = settings.get(part)
        elif isinstance(settings, (list, tuple)) and part.isdigit() and int(part) < len(settings):
            settings = settings[int(part)]
        else:
            return None
    return settings


def size_of(value: Any) -> int | None:
    """Return a whole number as it is, and of a list or a mapping its length."""
    if isinstance(value, int):
        return value
    if isinstance(value, (list, tuple, Mapping)):
        return len(value)
    return None


# What an answer tells


def probability(claim: Claim, value: float, stderr: float, df: int) -> float:
    """Return the chance that a claim is true, by Student's t around the measured number."""
    from scipy.special import stdtr

    def below(limit: float) -> float:
        if stderr == 0:
            return float(value < limit)
        return float(stdtr(df, (limit - value) / stderr))

    if claim.comparator == "within":
        low, high = claim.value
        return below(high) - below(low)
    if claim.comparator.startswith("<"):
        return below(claim.value)
    return 1 - below(claim.value)


def entropy(p: float) -> float:
    """Return H(p) in bits."""
    return -sum(share * math.log2(share) for share in (p, 1 - p) if share > 0)
