"""The explorer of stored trials: its data, its static tables, and the page around its program.

Without a script the grid, the table of cells and the table of trials remain. The program draws what
belongs to the chosen cell; which one is chosen is in the fragment of the address.
"""

from __future__ import annotations

import statistics
from typing import Any

from lab.present import page as page_frame
from lab.present.numbers import count, number, tick
from lab.synthesis.site.markup import (
    Cell,
    footer,
    read_file,
    scroll_box,
    shell,
    site_style,
    table,
    text,
)
from lab.synthesis.site.measured import Row, Sources, StoredTrial, Trials, mean_loss

DIGITS = 5  # significant digits of a number in the page's data
SHADES = 5  # classes of the held-out loss in the grid
NOT_MEASURED = "not measured"


def explorer_page(sources: Sources, trials: Trials) -> str:
    """Return the page."""
    shown_ids = {trial.feature for trial in trials.trials}
    shown = [feature for feature in sources.features if feature.id in shown_ids]
    if any(trial.forgetting for trial in trials.trials):
        shown += [feature for feature in sources.features if feature.id == "FEAT-008"]
    if not trials.trials:
        main = "<h1>Explorer</h1>\n<p>No result that was given has stored trials.</p>\n"
        return shell(
            sources,
            name="explorer.html",
            title="Explorer",
            main=main,
            footer=footer(shown),
            style=site_style(),
        )
    data = page_frame.script_data(document(trials))
    main = page_frame.fill(
        read_file("explorer.html"),
        {
            "lead": text(_lead(trials)),
            "grid": grid(trials),
            "legend": text(_legend(trials)),
            "cells": cells_table(trials),
            "trials": trials_table(trials),
        },
    )
    element = f'<script type="application/json" id="data">{data}</script>\n'
    return shell(
        sources,
        name="explorer.html",
        title="Explorer",
        main=main,
        footer=footer(shown) + element,
        style=site_style() + read_file("explorer.css"),
        program=read_file("explorer.js"),
    )


#### data


def document(trials: Trials) -> dict[str, Any]:
    """Return the data of the page as its program reads it."""
    return {
        "prompts": [[prompt.text, prompt.expected] for prompt in trials.prompts],
        "base": {
            "held_out": rounded(trials.base_held_out),
            "answers": [trials.texts[ids] for ids in trials.base_answers],
        },
        "trials": [_trial_document(trial, trials) for trial in trials.trials],
    }


def _trial_document(trial: StoredTrial, trials: Trials) -> dict[str, Any]:
    row = trial.row
    return {
        "name": trial.name,
        "cell": trial.cell,
        "feature": trial.feature,
        "identity": trial.identity,
        "file": trial.file,
        "sha256": trial.sha256,
        "batch": row.batch,
        "steps": row.steps,
        "examples": row.examples,
        "shuffled": row.shuffled,
        "rank": row.rank,
        "alpha": row.alpha,
        "rslora": row.rslora,
        "rate": trial.rate,
        "seed": trial.seed,
        "losses": [rounded(loss) for loss in trial.losses],
        "curve": [[done, rounded(loss)] for done, loss in trial.curve],
        "held_out": rounded(trial.held_out),
        "accuracy": rounded(trial.accuracy),
        "spectra": {
            kind: [rounded(value) for value in values] for kind, values in trial.spectra.items()
        },
        "stable_rank": rounded(trial.stable_rank),
        "norm": rounded(trial.norm),
        "forgetting": trial.forgetting and [rounded(value) for value in trial.forgetting],
        "answers": [trials.texts[ids] for ids in trial.answers],
    }


def rounded(value: float | None) -> float | None:
    """Return a number to DIGITS significant digits."""
    if value is None:
        return None
    return float(f"{value:.{DIGITS}g}")


#### what is there without a script


def _lead(trials: Trials) -> str:
    cells, rows, rates = trials.cells, trials.rows, trials.rates
    return (
        f"{count(len(trials.trials), 'stored trial')} in {count(len(cells), 'cell')}: a cell is a "
        f"setting, its trials differ in the seed alone. The grid has {len(rows)} rows and "
        f"{len(rates)} learning rates, so {len(rows) * len(rates) - len(cells)} cells were "
        f"{NOT_MEASURED}. Only what was run is shown."
    )


def _legend(trials: Trials) -> str:
    edges = shade_edges(trials)
    base = ""
    if trials.base_held_out is not None:
        base = f" The base without an adapter: {number(trials.base_held_out, 3)}."
    return (
        "Mean held-out loss in nats/token over the seeds of a cell, and how many there are. "
        f"The darker, the lower: the shades change at {', '.join(number(e, 3) for e in edges)}."
        f"{base}"
    )


def shade_edges(trials: Trials) -> list[float]:
    """Return the losses at which the shades of the grid change: quantiles over its cells."""
    means = sorted({rounded(mean_loss(cell)) or 0.0 for cell in trials.cells.values()})
    if len(means) < 2:
        return means
    return statistics.quantiles(means, n=SHADES)


def grid(trials: Trials) -> str:
    """Return the grid: a row per training and adapter, a column per learning rate."""
    by_place = {(cell[0].row, cell[0].rate): name for name, cell in trials.cells.items()}
    edges = shade_edges(trials)
    head = "".join(f'<th scope="col">{tick(rate)}</th>' for rate in trials.rates)
    body = ""
    for row in trials.rows:
        body += f'<tr><th scope="row">{text(row_name(row))}</th>'
        for rate in trials.rates:
            name = by_place.get((row, rate))
            if name is None:
                body += f'<td class="unmeasured">{NOT_MEASURED}</td>'
                continue
            cell = trials.cells[name]
            mean = mean_loss(cell)
            shade = SHADES - sum(mean > edge for edge in edges)
            body += (
                f'<td class="shade-{shade}"><a href="#{text(name)}" data-cell="{text(name)}">'
                f"{number(mean, 3)} <small>({len(cell)})</small></a></td>"
            )
        body += "</tr>\n"
    corner = '<th scope="col">training · adapter</th>'
    return scroll_box(
        "Held-out loss of every cell",
        f'<table id="grid"><thead><tr>{corner}{head}</tr></thead>\n<tbody>\n{body}</tbody></table>',
    )


def row_name(row: Row) -> str:
    """Return what the trials of a row have in common, in words."""
    answers = ", shuffled answers" if row.shuffled else ""
    scale = ", rsLoRA" if row.rslora else ""
    return (
        f"{row.steps} steps of {row.batch}, {row.examples} examples{answers} · "
        f"rank {row.rank}, α {row.alpha:g}{scale}"
    )


def cells_table(trials: Trials) -> str:
    """Return one row per cell; its id is the fragment that opens the cell."""
    body = ""
    for name, cell in sorted(trials.cells.items(), key=lambda item: mean_loss(item[1])):
        first = cell[0]
        losses = [trial.held_out for trial in cell]
        spread = number(max(losses) - min(losses), 3) if len(cell) > 1 else "one seed"
        columns = (
            row_name(first.row),
            tick(first.rate),
            number(mean_loss(cell), 4),
            spread,
            ", ".join(str(trial.seed) for trial in cell),
        )
        cells = "".join(f"<td>{text(column)}</td>" for column in columns)
        body += f'<tr id="{text(name)}">{cells}</tr>\n'
    titles = ("training · adapter", "learning rate", "held-out loss", "largest − smallest", "seeds")
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    return scroll_box(
        "Every cell that was measured",
        f'<table id="cells"><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table>',
    )


def trials_table(trials: Trials) -> str:
    """Return one row per trial: where its description is stored, and its digests."""
    rows = []
    for trial in sorted(trials.trials, key=lambda trial: trial.name):
        forgetting = NOT_MEASURED
        if trial.forgetting is not None:
            forgetting = f"{number(trial.forgetting[0], 3)} ± {number(trial.forgetting[1], 2)}"
        digests = f"identity {trial.identity}, file sha256 {trial.sha256}"
        rows.append(
            (
                Cell(f"{text(trial.feature)} <code>{text(trial.file)}</code>"),
                number(trial.held_out, 4),
                number(trial.stable_rank, 3),
                forgetting,
                Cell(f'<code id="trial-{text(trial.name)}">{text(digests)}</code>'),
            )
        )
    columns = ("stored in", "held-out loss", "stable rank", "forgetting (nats/byte)", "digests")
    return table("Every stored trial", columns, rows, css="trials")
