"""What the result says, word by word and number by number, from the rows compared anew."""

from __future__ import annotations

from typing import Any

from gates.shared import outputs
from gates.shared.documents import written
from gates.synthesis.reproduction import compared, earlier
from gates.synthesis.reproduction.compared import DIFFERENT, EQUAL, WITHIN

OUTCOMES = (DIFFERENT, WITHIN, EQUAL)
FLOOR = 1e-17
TITLES = {EQUAL: "bit-equal, shown at 1e-17", WITHIN: WITHIN, DIFFERENT: DIFFERENT}


def number(value: float) -> str:
    """Return a number as reports write it."""
    return written(value, 4)


def count(amount: int, noun: str) -> str:
    """Return a count with its noun."""
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"


def rows_of(feature: str) -> list[dict[str, Any]]:
    """Return the rows of a feature, with what the gate found of them."""
    stated = compared.document(feature)["rows"]
    return [
        row | of_gate for row, of_gate in zip(stated, compared.recomputed(feature), strict=True)
    ]


def rows() -> list[tuple[str, dict[str, Any]]]:
    """Return (feature, row) of all rows, those that did not reproduce first."""
    pairs = [(feature, row) for feature in earlier.drawn() for row in rows_of(feature)]
    return sorted(pairs, key=lambda pair: OUTCOMES.index(pair[1]["outcome"]))


def outcomes(feature: str) -> list[str]:
    """Return the outcomes of a feature's rows."""
    return [row["outcome"] for row in rows_of(feature)]


def measurements() -> dict[str, Any]:
    """Return all measurements."""
    found = [row for _, row in rows()]
    results = [row["outcome"] for row in found]
    drawn = earlier.drawn()
    documents = [compared.document(feature) for feature in drawn]
    reproduced = 0
    for feature, document in zip(drawn, documents, strict=True):
        of_feature = outcomes(feature)
        is_whole = bool(of_feature) and not document["failure"]
        reproduced += is_whole and DIFFERENT not in of_feature
    ways = [way for _, way in earlier.ways()]
    seconds = [earlier.byproduct(feature, "process")["seconds"] for feature in drawn]
    return {
        "features_drawn": len(drawn),
        "features_reproduced": reproduced,
        "features_failed": sum(bool(document["failure"]) for document in documents),
        "rows": len(found),
        "rows_not_reproduced": results.count(DIFFERENT),
        "rows_bit_equal": results.count(EQUAL),
        "rows_within_tolerance": results.count(WITHIN),
        "rows_promised": sum(row["is_promised"] for row in found),
        "values_compared": sum(row["values"] for row in found),
        "largest_difference": max((row["difference"] for row in found), default=None),
        "replayable_share": sum(way is not None for way in ways) / len(ways),
        "replay_seconds": float(sum(document["seconds"] for document in documents)),
        "run_seconds": float(sum(seconds)),
    }


#### sentences


def findings() -> list[str]:
    """Return all findings."""
    pairs = rows()
    results = [row["outcome"] for _, row in pairs]
    promised = sum(row["is_promised"] for _, row in pairs)
    sentences = [
        f"{count(results.count(DIFFERENT), 'row')} of {len(pairs):,} did not reproduce; "
        f"{results.count(EQUAL):,} are bit-equal, of {promised:,} that were promised to be, and "
        f"{results.count(WITHIN):,} agree within their tolerance."
    ]
    sentences += [_different(*pair) for pair in pairs if pair[1]["outcome"] == DIFFERENT]
    documents = {feature: compared.document(feature) for feature in earlier.drawn()}
    for feature, document in documents.items():
        if document["failure"]:
            sentences.append(f"{feature} was not computed again: {document['failure']}.")
    for feature, document in documents.items():
        if not document["failure"]:
            sentences.append(_feature(feature))
    return [*sentences, _draw(), *_passed_over()]


def _different(feature: str, row: dict[str, Any]) -> str:
    allowed = f"allowed are {number(row['tolerance'])}: {row['reason']}"
    if row["is_promised"]:
        allowed = "promised bit-equal"
    apart = number(row["difference"])
    return f"Not reproduced: {feature}, {row['quantity']}; it differs by {apart} ({allowed})."


def _feature(feature: str) -> str:
    of_feature, differs = outcomes(feature), compared.changes(feature)
    way = earlier.way_of(feature)
    commit = earlier.dependencies(feature)["git"]["gitCommit"][:12]
    sentence = (
        f"{feature} ({earlier.result(feature)['title']}), by {way} with the code of commit "
        f"{commit}: {of_feature.count(EQUAL):,} of {count(len(of_feature), 'row')} bit-equal, "
        f"{of_feature.count(WITHIN):,} within tolerance, {of_feature.count(DIFFERENT):,} not "
        "reproduced. "
    )
    if differs:
        return f"{sentence}This machine differs from its receipt's: {'; '.join(differs)}."
    return f"{sentence}This machine is that of its receipt, as far as the receipt says."


def _draw() -> str:
    origin = "zeros, as this run is by hand or a scratch run: it proves no draw"
    if earlier.started() != 64 * "0":
        origin = f"the hash of its STARTED entry, {earlier.started()}"
    features = count(len(earlier.order()), "feature")
    return f"{', '.join(earlier.drawn())} were drawn from {features} by {origin}."


def _passed_over() -> list[str]:
    stated = outputs.read_json("artifacts/draw.json")["candidates"]
    reasons = {candidate["feature"]: candidate["reason"] for candidate in stated}
    return [
        f"{name} cannot be computed again: {reasons[name]}."
        for name, way in earlier.ways()
        if way is None
    ]


#### tables and the figure


def tables() -> list[list[list[Any]]]:
    """Return the rows of all tables."""
    by_row = []
    for feature, row in rows():
        promise = f"within {row['tolerance']:g}: {row['reason']}"
        if row["is_promised"]:
            promise = EQUAL
        of_row = [feature, row["quantity"], row["file"], row["values"], promise]
        by_row.append([*of_row, row["difference"], row["outcome"]])
    by_feature = []
    for feature in earlier.drawn():
        of_feature = outcomes(feature)
        cells: list[Any] = [feature, earlier.result(feature)["title"], earlier.way_of(feature)]
        cells += [earlier.dependencies(feature)["git"]["gitCommit"], len(of_feature)]
        cells += [of_feature.count(DIFFERENT), compared.document(feature)["seconds"]]
        cells += [earlier.byproduct(feature, "process")["seconds"]]
        by_feature.append([*cells, "; ".join(compared.changes(feature)) or "none"])
    stated = outputs.read_json("artifacts/draw.json")["candidates"]
    by_place: list[list[Any]] = []
    for place, (name, way) in enumerate(earlier.ways(), start=1):
        shown = way or str(stated[place - 1]["reason"])
        by_place.append([place, name, shown, name in earlier.drawn()])
    return [by_row, by_feature, by_place]


def figure() -> dict[str, Any]:
    """Return points and caption of the figure."""
    found = [row for _, row in rows()]
    series: dict[str, dict[str, list[float]]] = {}
    for outcome, title in TITLES.items():
        places: list[float] = []
        for n, row in enumerate(found, start=1):
            if row["outcome"] == outcome:
                places.append(n)
        if places:
            heights = [max(found[int(n) - 1]["difference"], FLOOR) for n in places]
            series[title] = {"x": places, "y": heights}
    places = [float(n) for n, row in enumerate(found, start=1) if row["tolerance"] > 0]
    if places:
        heights = [found[int(n) - 1]["tolerance"] for n in places]
        series["tolerance on another machine"] = {"x": places, "y": heights}
    results = [row["outcome"] for row in found]
    largest = number(max(row["difference"] for row in found))
    caption = (
        f"{count(len(found), 'row')} of {', '.join(earlier.drawn())}: {results.count(EQUAL)} "
        f"bit-equal, {results.count(WITHIN)} within tolerance, {results.count(DIFFERENT)} not "
        f"reproduced. The largest difference is {largest}, relative to the largest value of its "
        "row."
    )
    return {"series": series, "caption": caption}
