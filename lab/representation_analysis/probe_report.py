"""The findings and tables of the probes: sentences that change with their numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lab import present
from lab.contract import Measurement, Table
from lab.representation_analysis.probe_measured import (
    CLASSES,
    PART,
    STRING,
    TASK,
    TEST,
    TRAIN,
    ProbeObservations,
)
from lab.representation_analysis.probe_numbers import (
    counts,
    packages,
    reading_of,
    table_counts,
)

WHAT = {
    PART: "the part of a signature that a token belongs to",
    STRING: "whether a token is inside a string",
}
NOT_RUN = "not run"
Measured = Mapping[str, Measurement]


def probe_findings(measurements: Measured) -> list[str]:
    """Return the sentences that the measurements support."""
    return [
        _reading_finding(measurements, PART),
        _reading_finding(measurements, STRING),
        _control_finding(measurements),
        _random_weights_finding(measurements),
    ]


def is_clear(difference: Measurement) -> bool:
    """Return whether a difference is above 0 by more than two standard errors."""
    return difference.number > 2 * (difference.stderr or 0)


def with_error(measurement: Measurement) -> str:
    """Return value and standard error: `0.980 ± 0.0042`."""
    return f"{present.number(measurement.value, 3)} ± {present.number(measurement.stderr, 2)}"


def _reading_finding(measurements: Measured, name: str) -> str:
    def shown(key: str) -> str:
        return with_error(measurements[f"probe_{name}_{key}"])

    tables = [measurements[f"probe_{name}_over_{table}"] for table in ("identity", "position")]
    verdict = "the probe is not clearly above both tables"
    if all(is_clear(difference) for difference in tables):
        verdict = "the stream says more than the token and its position, each alone"
    chance = present.number(measurements[f"probe_{name}_chance"].value, 3)
    functions = present.count(int(measurements["probe_functions_test"].number), "function")
    packages_tested = present.count(measurements[f"probe_{name}_accuracy"].n or 0, "package")
    return (
        f"At depth {measurements[f'probe_{name}_best_layer'].value}, which other functions chose, "
        f"a linear probe reads {WHAT[name]} with a balanced accuracy of {shown('accuracy')} on "
        f"{functions} of {packages_tested} that it was not fitted on; chance is {chance}. A table "
        f"of token types reaches {shown('identity')}, a table of positions {shown('position')}, "
        f"the probe on the embedding {shown('embedding')}: {verdict}."
    )


def _control_finding(measurements: Measured) -> str:
    selectivity = {name: measurements[f"probe_{name}_selectivity"] for name in CLASSES}
    verdict = "one of them may have learnt which token it is, and nothing else"
    if all(is_clear(difference) for difference in selectivity.values()):
        verdict = "knowing which token it is does not explain what the probes read"
    unseen = present.count(int(measurements["probe_tokens_unseen"].number), "token")
    return (
        "With a random class for each token type the same probes reach "
        f"{with_error(measurements[f'probe_{PART}_control'])} and "
        f"{with_error(measurements[f'probe_{STRING}_control'])} at these depths; nothing tells "
        f"them the class of {unseen}, whose types training does not have. That leaves a "
        f"selectivity of {with_error(selectivity[PART])} for the part and "
        f"{with_error(selectivity[STRING])} for the string: {verdict}."
    )


def _random_weights_finding(measurements: Measured) -> str:
    above = {name: measurements[f"probe_{name}_over_random_weights"] for name in CLASSES}
    verdict = "that training adds something is not clear of both"
    if all(is_clear(difference) for difference in above.values()):
        verdict = "the rest is owed to training"
    mixing = ""
    if all(_is_above_tokens(name, measurements) for name in CLASSES):
        mixing = ", more than the table of token types: mixing by chance already shows some of both"

    def best(name: str) -> str:
        layer = measurements[f"probe_{name}_random_weights_layer"].value
        return f"{with_error(measurements[f'probe_{name}_random_weights'])} (depth {layer})"

    return (
        f"With random weights the best depth reaches {best(PART)} for the part and {best(STRING)} "
        f"for the string{mixing}. The trained model is above that by {with_error(above[PART])} and "
        f"{with_error(above[STRING])}: {verdict}."
    )


def _is_above_tokens(name: str, measurements: Measured) -> bool:
    """Return whether random weights are above the table of token types by two errors."""
    control = measurements[f"probe_{name}_random_weights"]
    table = measurements[f"probe_{name}_identity"].number
    return control.number - 2 * (control.stderr or 0) > table


def probe_tables(observations: ProbeObservations) -> list[Table]:
    """Return the accuracies by depth, and the classes."""
    return [depth_table(observations), class_table(observations)]


def depth_table(observations: ProbeObservations) -> Table:
    """Return one row per depth: task, control task, selectivity and random weights."""
    readings = {name: reading_of(observations, name) for name in CLASSES}
    columns = ["depth"]
    for name in CLASSES:
        keys = ("probe", "control task", "selectivity", "random weights")
        columns += [f"{name}: {key}" for key in keys]
    rows = []
    for depth in range(len(readings[PART].task)):
        row: list[float | str] = [depth]
        for reading in readings.values():
            task, control = reading.task[depth], reading.control[depth]
            random = reading.random[depth].value if depth < len(reading.random) else NOT_RUN
            row += [task.value, control.value, task.minus(control).value, random]
        rows.append(tuple(row))
    return Table("Linear probes: balanced accuracy by depth", tuple(columns), tuple(rows))


def class_table(observations: ProbeObservations) -> Table:
    """Return one row per class: its tokens, and the share that is read at the best depth."""
    rows = []
    for name, classes in CLASSES.items():
        labels = observations.labels[name]
        own = labels[observations.rows(TEST), 1:]
        best = observations.predicted[name][TASK][reading_of(observations, name).best]
        hits = best[-len(own) :] == own
        read = _recalls(*counts(hits, own, packages(observations, TEST), len(classes)))
        known = _recalls(*table_counts(observations, name, observations.ids))
        training = labels[observations.rows(TRAIN), 1:]
        for place, label in enumerate(classes):
            in_training = int((training == place).sum())
            in_test = int((own == place).sum())
            rows.append((name, label, in_training, in_test, read[place], known[place]))
    columns = (
        "property",
        "class",
        "tokens of training",
        "tokens of the test",
        "read at the best depth (share)",
        "from the token alone (share)",
    )
    return Table("Linear probes: the classes", columns, tuple(rows))


def _recalls(hits: np.ndarray, totals: np.ndarray) -> list[float | None]:
    """Return the share of each class that is read rightly; None of one without tokens."""
    sums = zip(hits.sum(0).tolist(), totals.sum(0).tolist(), strict=True)
    return [hit / total if total else None for hit, total in sums]
