"""The figures of the probes. Their captions are made from the numbers shown."""

from __future__ import annotations

from collections.abc import Mapping

from lab import present
from lab.contract import Measurement
from lab.instruments.probing import Accuracy
from lab.representation_analysis.probe_measured import CLASSES, PART, STRING, ProbeObservations
from lab.representation_analysis.probe_numbers import reading_of
from lab.representation_analysis.probe_report import with_error
from lab.stats.jackknife import jackknife_stderr

TITLES = {
    PART: "Reading the part of a signature",
    STRING: "Reading whether a token is inside a string",
}


def probe_figures(
    observations: ProbeObservations, measurements: Mapping[str, Measurement]
) -> list[present.Figure]:
    """Return a figure per property: accuracy by depth with its controls."""
    return [probe_figure(observations, measurements, name) for name in CLASSES]


def probe_figure(
    observations: ProbeObservations, measurements: Mapping[str, Measurement], name: str
) -> present.Figure:
    """Show the balanced accuracy of one property by depth, and what it is compared with."""
    reading = reading_of(observations, name)
    depths = range(len(reading.task))
    identity = [reading.identity.value] * len(depths)
    position = [reading.position.value] * len(depths)
    random_depths = range(len(reading.random))
    series = (
        present.Series("probe", depths, _values(reading.task), band=_band(reading.task)),
        present.Series("control task", depths, _values(reading.control)),
        present.Series("random weights", random_depths, _values(reading.random)),
        present.Series("token alone", depths, identity, style="dashed"),
        present.Series("position alone", depths, position, style="dotted"),
    )

    def shown(key: str) -> str:
        return with_error(measurements[f"probe_{name}_{key}"])

    chance = present.number(measurements[f"probe_{name}_chance"].value, 3)
    return present.Figure(
        name=f"probe_{name}",
        title=TITLES[name],
        caption=(
            f"Balanced accuracy of linear probes on functions of other packages; chance is "
            f"{chance}. At depth {reading.best}, which other functions chose: {shown('accuracy')}, "
            f"control task {shown('control')}; token alone {shown('identity')}, position alone "
            f"{shown('position')}, random weights at most {shown('random_weights')} in the first "
            f"{present.count(len(reading.random), 'depth')}. The band is one standard error over "
            "packages on each side."
        ),
        x_label="depth (layers before it)",
        y_label="balanced accuracy",
        series=series,
    )


def _values(accuracies: list[Accuracy]) -> list[float]:
    return [accuracy.value for accuracy in accuracies]


def _band(accuracies: list[Accuracy]) -> tuple[list[float], list[float]]:
    """Return the accuracies one standard error lower, and higher."""
    below, above = [], []
    for accuracy in accuracies:
        stderr = jackknife_stderr(accuracy.left_out.tolist())
        below.append(accuracy.value - stderr)
        above.append(accuracy.value + stderr)
    return below, above
