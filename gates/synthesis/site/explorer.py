"""What the explorer must hold: the data of its program, and the tables that need no script."""

from __future__ import annotations

import json
import statistics
from typing import Any

from gates.synthesis.site import given, measured_trials
from gates.synthesis.site.content import shell_words
from gates.synthesis.site.pages import DATA, source
from gates.synthesis.site.stated import count, number

SHADES = 5
ROW = ("batch", "steps", "examples", "shuffled", "rank", "alpha", "rslora")


def data() -> dict[str, Any]:
    """Return the data that the page carries; none without trials."""
    match = DATA.search(source("explorer.html"))
    if match is None:
        return {}
    document: dict[str, Any] = json.loads(match[1])
    return document


def expected_data() -> dict[str, Any]:
    """Return the data as recomputed from the inputs, with the stored answers as texts."""
    recomputed = measured_trials.recomputed()
    if not recomputed:
        return {}
    texts = measured_trials.texts()
    asked = []
    for example in measured_trials.prompts():
        messages = [message["content"] for message in example["messages"]]
        asked.append([messages[0], messages[-1]])
    return {
        "prompts": asked,
        "base": {"held_out": measured_trials.base_held_out(), "answers": texts["base"]},
        "trials": [fields | {"answers": texts[name]} for name, fields in recomputed.items()],
    }


def cells() -> dict[str, list[dict[str, Any]]]:
    """Return the trials of each cell."""
    by_cell: dict[str, list[dict[str, Any]]] = {}
    for trial in measured_trials.recomputed().values():
        by_cell.setdefault(trial["cell"], []).append(trial)
    return by_cell


def rates() -> list[float]:
    """Return the columns of the grid."""
    return sorted({trial["rate"] for trial in measured_trials.recomputed().values()})


def row_of(trial: dict[str, Any]) -> tuple[Any, ...]:
    """Return what all trials of a row share."""
    return tuple(trial[name] for name in ROW)


def rows() -> list[tuple[Any, ...]]:
    """Return the rows of the grid: true answers first, then the training with most trials."""
    every = [row_of(trial) for trial in measured_trials.recomputed().values()]
    trainings = [row[:3] for row in every]

    def order(row: tuple[Any, ...]) -> tuple[Any, ...]:
        return (row[3], -trainings.count(row[:3]), row[:3], row[4:])

    return sorted(set(every), key=order)


def mean_loss(cell: list[dict[str, Any]]) -> float:
    """Return the mean held-out loss of a cell."""
    return statistics.fmean(trial["held_out"] for trial in cell)


def cells_of_the_grid() -> list[str]:
    """Return the measured cells in the order of the grid."""
    places = {(row_of(cell[0]), cell[0]["rate"]): name for name, cell in cells().items()}
    names = []
    for row in rows():
        names += [places[row, rate] for rate in rates() if (row, rate) in places]
    return names


def grid() -> list[list[str]]:
    """Return the rows of the grid as texts: what they share, then a cell for each rate."""
    places = {(row_of(cell[0]), cell[0]["rate"]): cell for cell in cells().values()}
    table = []
    for row in rows():
        line = [_row_name(row)]
        for rate in rates():
            cell = places.get((row, rate))
            text = "not measured"
            if cell is not None:
                text = f"{number(mean_loss(cell), 3)} ({len(cell)})"
            line.append(text)
        table.append(line)
    return table


def expected_words() -> list[str]:
    """Return the words of the page without those that its program adds."""
    shown = [name for name in given.features() if name in _features_with_trials()]
    if not measured_trials.recomputed():
        return shell_words(["Explorer", "No result that was given has stored trials."], shown)
    if any(trial["forgetting"] for trial in measured_trials.recomputed().values()):
        shown.append(measured_trials.SCORED)
    by_cell, columns, lines = cells(), rates(), grid()
    trials = measured_trials.recomputed()
    edges = statistics.quantiles(
        sorted({float(f"{mean_loss(cell):.5g}") for cell in by_cell.values()}), n=SHADES
    )
    base = number(measured_trials.base_held_out(), 3)
    main = [
        "Explorer of the measured trials",
        f"{count(len(trials), 'stored trial')} in {count(len(by_cell), 'cell')}: a cell is a "
        f"setting, its trials differ in the seed alone. The grid has {len(lines)} rows and "
        f"{len(columns)} learning rates, so {len(lines) * len(columns) - len(by_cell)} cells were "
        "not measured. Only what was run is shown.",
        "Curves, spectra and answers of a cell are drawn by a script that is part of this page. "
        "Without it the grid and the tables below remain.",
        "Held-out loss of every cell",
        "Mean held-out loss in nats/token over the seeds of a cell, and how many there are. The "
        "darker, the lower: the shades change at "
        f"{', '.join(number(edge, 3) for edge in edges)}. The base without an adapter: {base}.",
        "training · adapter",
        *map(_tick, columns),
    ]
    for line in lines:
        main += line
    return shell_words([*main, *_cells_table(), *_trials_table()], shown)


def _features_with_trials() -> set[str]:
    return {trial["feature"] for trial in measured_trials.recomputed().values()}


def _cells_table() -> list[str]:
    parts = [
        "Every cell that was measured",
        "The lowest mean held-out loss first, in nats/token. The base model is the same for all; "
        "learning rates are peaks of the schedule.",
        "training · adapter learning rate held-out loss largest − smallest seeds",
    ]
    for cell in sorted(cells().values(), key=mean_loss):
        losses = [trial["held_out"] for trial in cell]
        spread = number(max(losses) - min(losses), 3) if len(cell) > 1 else "one seed"
        parts += [_row_name(row_of(cell[0])), _tick(cell[0]["rate"]), number(mean_loss(cell), 4)]
        parts += [spread, ", ".join(str(seed) for seed in sorted(t["seed"] for t in cell))]
    return parts


def _trials_table() -> list[str]:
    parts = [
        "Every stored trial, with its digests",
        "Show the table",
        "stored in held-out loss stable rank forgetting (nats/byte) digests",
    ]
    for name in sorted(measured_trials.recomputed()):
        trial = measured_trials.recomputed()[name]
        forgetting = "not measured"
        if trial["forgetting"]:
            lost, stderr, _ = trial["forgetting"]
            forgetting = f"{number(lost, 3)} ± {number(stderr, 2)}"
        parts += [trial["feature"], trial["file"], number(trial["held_out"], 4)]
        parts += [number(trial["stable_rank"], 3), forgetting]
        parts += [f"identity {trial['identity']}, file sha256 {trial['sha256']}"]
    return parts


def _row_name(row: tuple[Any, ...]) -> str:
    batch, steps, examples, shuffled, rank, alpha, rslora = row
    answers = ", shuffled answers" if shuffled else ""
    scale = ", rsLoRA" if rslora else ""
    training = f"{steps} steps of {batch}, {examples} examples{answers}"
    return f"{training} · rank {rank}, α {alpha:g}{scale}"


def _tick(rate: float) -> str:
    """Return a rate as the columns have it: 0.001, 2e-4."""
    if rate >= 1e-3:
        return f"{rate:g}"
    mantissa, exponent = f"{rate:.5e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def same_data(actual: Any, expected: Any) -> bool:
    """Return whether data agree: numbers to what rounding to five digits and float32 change."""
    if isinstance(expected, dict):
        return (
            isinstance(actual, dict)
            and set(actual) == set(expected)
            and all(same_data(actual[key], value) for key, value in expected.items())
        )
    if isinstance(expected, list):
        return (
            isinstance(actual, list)
            and len(actual) == len(expected)
            and all(map(same_data, actual, expected))
        )
    if isinstance(expected, bool) or not isinstance(expected, int | float):
        return type(actual) is type(expected) and bool(actual == expected)
    is_number = isinstance(actual, int | float) and not isinstance(actual, bool)
    return is_number and abs(actual - expected) <= 1e-3 * abs(expected) + 1e-5
