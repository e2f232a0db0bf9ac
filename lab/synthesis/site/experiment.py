"""FEAT-018, lab report site: every report, prediction, question and concept, and all trials.

run(ctx)
    read_sources     plan, results with their reports and figures, questions, concepts
    read_trials      stored trials, their updates' spectra, what their adapters answer
    write_site       artifacts/site/: pages, and the figures that they show
    store            artifacts/answers.json: the token ids of the answers
    numbers, report, tables, figures made from what was read
"""

from __future__ import annotations

import shutil

from lab.contract import Context, Experiment, Outcome, main
from lab.present.write import as_json
from lab.synthesis.site import figures, numbers, report, tables
from lab.synthesis.site.explorer import explorer_page
from lab.synthesis.site.measured import Sources, Trials
from lab.synthesis.site.pages import all_pages, stored_page
from lab.synthesis.site.sources import read_sources

EXPERIMENT = Experiment(
    title="Lab report site",
    question=(
        "What did this lab find, which of its predictions were missed, and what happens between "
        "the settings that were tried: does another seed change an answer as much as another rate?"
    ),
    hypothesis=(
        "Fewer than a quarter of all predictions are missed. Two seeds of the same setting give "
        "losses that are close and answers that are not: the held-out loss is a mean over "
        "thousands of tokens, a greedy answer follows from single ones."
    ),
    method=(
        "Nothing is trained. Every report, figure, prediction, question and concept text is put "
        "into one static site, numbers filled in from the results that were given; predictions are "
        "scored by the plan's rule. The explorer shows the trials that FEAT-005, FEAT-006 and "
        "FEAT-007 stored: their losses, the singular values of each update, computed from its "
        "factors, what FEAT-008 found that they forgot, and the greedy answers of base and adapter "
        "to the same held-out prompts, which are generated here. A cell is a setting without its "
        "seed; one that was not run is shown as not measured. The best cell is the one with true "
        "answers and the lowest mean held-out loss among those with at least two seeds, so its "
        "loss is low by choice too."
    ),
    headline=(
        "predictions_missed",
        "predictions_held",
        "predictions_inconclusive",
        "best_cell",
        "best_cell_loss",
        "seed_answers_equal_share",
        "trials",
        "pages",
    ),
    packages=("markdown-it-py", "torch", "transformers", "peft"),
)


def run(ctx: Context) -> Outcome:
    """Read, build, store, and return numbers, tables, findings and figures."""
    from lab.synthesis.site.trials import read_trials

    sources = read_sources(ctx)
    trials = read_trials(ctx)
    pages = {**all_pages(sources), "explorer.html": explorer_page(sources, trials)}
    write_site(ctx, sources, pages)
    store_answers(ctx, trials)
    measurements = numbers.measurements(sources, trials, ctx.out / "artifacts/site")
    ctx.progress(1, 1, f"{len(pages)} pages")
    return Outcome(
        measurements,
        tables=tables.tables(sources, trials),
        findings=report.findings(sources, trials, measurements),
        figures=figures.figures(sources, trials),
        environment={"receipts": {feature.id: feature.receipt for feature in sources.features}},
    )


def write_site(ctx: Context, sources: Sources, pages: dict[str, str]) -> None:
    """Write the pages, those that features stored, and the figures that they show."""
    site = ctx.out / "artifacts/site"
    site.mkdir(parents=True)
    for name, page in pages.items():
        (site / name).write_text(page, encoding="utf-8")
    for feature in sources.features:
        for figure in feature.figures:
            (site / figure.target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(figure.source, site / figure.target)
        if feature.page:
            page = (feature.folder / feature.page).read_text("utf-8")
            (site / feature.page).write_text(stored_page(sources, feature, page), encoding="utf-8")


def store_answers(ctx: Context, trials: Trials) -> None:
    """Write the token ids of every answer, the base's too."""
    document = {
        "prompts": len(trials.prompts),
        "base": trials.base_answers,
        "trials": {trial.name: trial.answers for trial in trials.trials},
    }
    (ctx.out / "artifacts/answers.json").write_bytes(as_json(document))


if __name__ == "__main__":
    main(EXPERIMENT, run)
