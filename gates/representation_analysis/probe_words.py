"""FEAT-015's sentences, tables and figures of the probes, written again from recomputed numbers."""

from __future__ import annotations

from typing import Any

from gates.representation_analysis import probe_numbers, probe_texts
from gates.representation_analysis.probe_model import PREDICTIONS
from gates.representation_analysis.probe_texts import CLASSES
from gates.shared.documents import written
from gates.shared.statistics import jackknife_stderr
from gates.shared.stored import cached

TABLES = {
    "Linear probes: balanced accuracy by depth": [
        "depth",
        "part: probe",
        "part: control task",
        "part: selectivity",
        "part: random weights",
        "string: probe",
        "string: control task",
        "string: selectivity",
        "string: random weights",
    ],
    "Linear probes: the classes": [
        "property",
        "class",
        "tokens of training",
        "tokens of the test",
        "read at the best depth (share)",
        "from the token alone (share)",
    ],
}
FIGURES = {
    "probe_part": "Reading the part of a signature",
    "probe_string": "Reading whether a token is inside a string",
}
WHAT = {
    "part": "the part of a signature that a token belongs to",
    "string": "whether a token is inside a string",
}


def counted(number: int, noun: str) -> str:
    """Return `1 package`, `2 packages`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _value(name: str) -> Any:
    return probe_numbers.values()[name]


def _with_error(name: str) -> str:
    """Return value and standard error: 0.980 ± 0.0042."""
    fields = probe_numbers.measurements()[name]
    return f"{written(fields['value'])} ± {written(fields['stderr'], 2)}"


def _is_clear(name: str) -> bool:
    """Return whether a difference is above 0 by more than two standard errors."""
    fields = probe_numbers.measurements()[name]
    return bool(fields["value"] > 2 * fields["stderr"])


#### findings


def findings() -> list[str]:
    """Return the findings of the probes, in their order."""
    return [_of_reading("part"), _of_reading("string"), _of_control(), _of_random_weights()]


def _of_reading(prop: str) -> str:
    name = f"probe_{prop}"
    verdict = "the probe is not clearly above both tables"
    if _is_clear(f"{name}_over_identity") and _is_clear(f"{name}_over_position"):
        verdict = "the stream says more than the token and its position, each alone"
    functions = counted(_value("probe_functions_test"), "function")
    packages = counted(probe_numbers.measurements()[f"{name}_accuracy"]["n"], "package")
    return (
        f"At depth {_value(f'{name}_best_layer')}, which other functions chose, a linear probe "
        f"reads {WHAT[prop]} with a balanced accuracy of {_with_error(f'{name}_accuracy')} on "
        f"{functions} of {packages} that it was not fitted on; chance is "
        f"{written(_value(f'{name}_chance'))}. A table of token types reaches "
        f"{_with_error(f'{name}_identity')}, a table of positions "
        f"{_with_error(f'{name}_position')}, the probe on the embedding "
        f"{_with_error(f'{name}_embedding')}: {verdict}."
    )


def _of_control() -> str:
    verdict = "one of them may have learnt which token it is, and nothing else"
    if all(_is_clear(f"probe_{prop}_selectivity") for prop in CLASSES):
        verdict = "knowing which token it is does not explain what the probes read"
    return (
        "With a random class for each token type the same probes reach "
        f"{_with_error('probe_part_control')} and {_with_error('probe_string_control')} at these "
        "depths; nothing tells them the class of "
        f"{counted(_value('probe_tokens_unseen'), 'token')}, whose types training does not have. "
        f"That leaves a selectivity of {_with_error('probe_part_selectivity')} for the "
        f"part and {_with_error('probe_string_selectivity')} for the string: {verdict}."
    )


def _of_random_weights() -> str:
    verdict = "that training adds something is not clear of both"
    if all(_is_clear(f"probe_{prop}_over_random_weights") for prop in CLASSES):
        verdict = "the rest is owed to training"
    mixing = ", more than the table of token types: mixing by chance already shows some of both"
    best = {}
    for prop in CLASSES:
        name = f"probe_{prop}_random_weights"
        control = probe_numbers.measurements()[name]
        if control["value"] - 2 * control["stderr"] <= _value(f"probe_{prop}_identity"):
            mixing = ""
        best[prop] = f"{_with_error(name)} (depth {_value(f'{name}_layer')})"
    return (
        f"With random weights the best depth reaches {best['part']} for the part and "
        f"{best['string']} for the string{mixing}. The trained model is above that by "
        f"{_with_error('probe_part_over_random_weights')} and "
        f"{_with_error('probe_string_over_random_weights')}: {verdict}."
    )


#### tables


def tables() -> dict[str, list[list[Any]]]:
    """Return title -> rows."""

    def compute() -> dict[str, list[list[Any]]]:
        return dict(zip(TABLES, (_depth_rows(), _class_rows()), strict=True))

    return dict(cached(f"probe tables {probe_texts.key()}", [PREDICTIONS], compute))


def _depth_rows() -> list[list[Any]]:
    curves = {prop: probe_numbers.by_depth(prop) for prop in CLASSES}
    rows = []
    for depth in range(len(curves["part"]["task"])):
        row: list[Any] = [depth]
        for of in curves.values():
            task, control = of["task"][depth][0], of["control"][depth][0]
            row += [task, control, task - control]
            row.append(of["random"][depth][0] if depth < len(of["random"]) else "not run")
        rows.append(row)
    return rows


def _class_rows() -> list[list[Any]]:
    rows = []
    for prop, classes in CLASSES.items():
        best = probe_numbers.chosen_depths(prop)[0]
        hits, own = probe_numbers.right(prop, "task", best, "test")
        known, _ = probe_numbers.table_right(prop, "identity")
        training = probe_texts.labels(prop)[probe_texts.rows("train"), 1:]
        for place, name in enumerate(classes):
            here = own == place
            shares: list[float | None] = [None, None]
            if here.any():
                shares = [float(hits[here].mean()), float(known[here].mean())]
            rows.append([prop, name, int((training == place).sum()), int(here.sum()), *shares])
    return rows


#### figures


def figures() -> dict[str, dict[str, Any]]:
    """Return figure -> title, caption, axes, scales and all series with their values."""

    def compute() -> dict[str, dict[str, Any]]:
        return {f"probe_{prop}": _figure(prop) for prop in CLASSES}

    return dict(cached(f"probe figures {probe_texts.key()}", [PREDICTIONS], compute))


def _figure(prop: str) -> dict[str, Any]:
    curves = probe_numbers.by_depth(prop)
    count = len(curves["task"])
    below, above = [], []
    for value, *left_out in curves["task"]:
        below.append(value - jackknife_stderr(left_out))
        above.append(value + jackknife_stderr(left_out))
    identity, position = (probe_numbers.table(prop, kind)[0] for kind in ("identity", "position"))
    series = [
        _series("probe", [one[0] for one in curves["task"]]) | {"band": [below, above]},
        _series("control task", [one[0] for one in curves["control"]]),
        _series("random weights", [one[0] for one in curves["random"]]),
        _series("token alone", [identity] * count) | {"style": "dashed"},
        _series("position alone", [position] * count) | {"style": "dotted"},
    ]
    return {
        "title": FIGURES[f"probe_{prop}"],
        "caption": _caption(prop),
        "x_label": "depth (layers before it)",
        "y_label": "balanced accuracy",
        "x_scale": "linear",
        "y_scale": "linear",
        "series": series,
    }


def _series(label: str, values: list[float]) -> dict[str, Any]:
    return {
        "label": label,
        "x": list(range(len(values))),
        "y": values,
        "band": None,
        "kind": "line",
        "style": "solid",
        "group": None,
    }


def _caption(prop: str) -> str:
    name = f"probe_{prop}"
    depths = len(probe_numbers.by_depth(prop)["random"])
    return (
        "Balanced accuracy of linear probes on functions of other packages; chance is "
        f"{written(_value(f'{name}_chance'))}. At depth {_value(f'{name}_best_layer')}, which "
        f"other functions chose: {_with_error(f'{name}_accuracy')}, control task "
        f"{_with_error(f'{name}_control')}; token alone {_with_error(f'{name}_identity')}, "
        f"position alone {_with_error(f'{name}_position')}, random weights at most "
        f"{_with_error(f'{name}_random_weights')} in the first {depths} "
        f"depth{'' if depths == 1 else 's'}. The band is one standard error over packages on each "
        "side."
    )
