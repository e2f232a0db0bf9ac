"""The pages of the site but the explorer: name of the file -> its HTML."""

from __future__ import annotations

from collections.abc import Mapping

from lab.present.numbers import count, interval, quantity
from lab.result import ContractError, Measurement
from lab.synthesis.evidence import confidence_interval
from lab.synthesis.retrospect import PredictionScore
from lab.synthesis.site.article import fold_sections, placeholders, render_article
from lab.synthesis.site.markup import (
    Cell,
    items,
    link,
    outcome_counts,
    outcome_mark,
    provenance,
    table,
    text,
    whole_page,
)
from lab.synthesis.site.measured import Concept, Feature, Question, Sources
from lab.verified import SAMPLE_ASSURANCE

BODY = "<body>\n"
FIRST_FINDINGS = 2  # of each feature, on the first page
OUTCOMES = ("MISSED", "INCONCLUSIVE", "HELD")  # in the order of reading


def all_pages(sources: Sources) -> dict[str, str]:
    """Return every page but the explorer and those that are copied."""
    pages = {
        "index.html": index_page(sources),
        "predictions.html": predictions_page(sources),
        "questions.html": questions_page(sources),
        "concepts.html": concepts_page(sources),
    }
    for feature in sources.features:
        pages[feature.href] = feature_page(sources, feature)
    for concept in sources.concepts:
        pages[concept.href] = concept_page(sources, concept)
    return pages


#### what the lab found


def index_page(sources: Sources) -> str:
    """Return the first page: what was missed, then each phase with its features."""
    outcomes = sources.outcomes
    missed = [score for score in sources.scores if score.outcome == "MISSED"]
    total = count(len(sources.scores), "prediction")
    main = (
        "<h1>What the lab found</h1>\n"
        f'<p class="lead">{count(len(sources.features), "feature")} made {total} before they '
        f"ran: {outcomes['HELD']} held, {outcomes['MISSED']} missed, "
        f"{outcomes['INCONCLUSIVE']} stayed open. A miss is a finding: it comes first.</p>\n"
        '<section aria-labelledby="missed">\n<h2 id="missed">Missed predictions</h2>\n'
    )
    if not missed:
        main += "<p>None of the predictions was missed.</p>\n"
    main += '<ol class="missed-list">\n'
    for score in missed:
        main += f"<li>{_missed(score)}</li>\n"
    main += f"</ol>\n<p>{link('predictions.html', 'All predictions')}</p>\n</section>\n"

    for number, phase in sources.phases.items():
        features = [feature for feature in sources.features if feature.phase == number]
        if not features:
            continue
        main += (
            f'<section aria-labelledby="phase-{number}">\n'
            f'<h2 id="phase-{number}">{text(phase.get("name", f"Phase {number}"))}</h2>\n'
            f'<p class="hint">{text(phase.get("goal", ""))}</p>\n'
        )
        for feature in features:
            main += _summary(feature)
        main += "</section>\n"
    main += _absent(sources)
    return whole_page(
        sources,
        name="index.html",
        title="What the lab found",
        main=main,
        shown=sources.features,
    )


def _missed(score: PredictionScore) -> str:
    prediction = score.prediction
    return (
        f"<strong>{text(prediction.claim)}</strong><br>{text(score.reason)} "
        f"({link(f'{prediction.feature}.html', prediction.feature)})"
    )


def _summary(feature: Feature) -> str:
    """Return one feature: its question, what it found first, its headline, its predictions."""
    result = feature.result
    findings = items(text(finding) for finding in result.findings[:FIRST_FINDINGS])
    rows = []
    for name in result.headline:
        rows.append((Cell(f"<code>{text(name)}</code>"), *_value(result.measurements[name])))
    return (
        f'<article class="card" aria-labelledby="{feature.id}">\n'
        f'<h3 id="{feature.id}">{link(feature.href, result.title)} '
        f'<span class="id">{feature.id}</span></h3>\n'
        f'<p class="question">{text(result.question)}</p>\n{findings}'
        f"{table(f'Headline of {feature.id}', ('measurement', 'value', '95 % interval'), rows)}"
        f"<p>Predictions: {outcome_counts(feature)}</p>\n</article>\n"
    )


def _value(measurement: Measurement) -> tuple[str, str]:
    """Return a measurement's value and its 95 % interval, in words."""
    bounds = confidence_interval(measurement)
    if measurement.exact:
        return quantity(measurement), "exact"
    if bounds is None:
        return quantity(measurement), "not known"
    return quantity(measurement), interval(measurement, *bounds)


def _absent(sources: Sources) -> str:
    """Return which features of the plan have no result here."""
    if not sources.absent:
        return ""
    names = items(f"{text(name)}: {text(title)}" for name, title in sources.absent)
    return (
        '<section aria-labelledby="absent">\n<h2 id="absent">Not among the results</h2>\n'
        f"<p>No result was given of these features of the plan; a waived feature has none.</p>\n"
        f"{names}</section>\n"
    )


def feature_page(sources: Sources, feature: Feature) -> str:
    """Return a feature's report, with its predictions and the questions that it asks."""
    figures = {figure.name: figure for figure in feature.figures}
    article = fold_sections(render_article(feature.report, figures=figures, links={}))
    asked = [question for question in sources.questions if feature.id in question.experiments]
    main = f'<p class="id">{feature.id} {outcome_counts(feature)}</p>\n{article}'
    if feature.page:
        main += (
            f'<p class="card">{link(feature.page, "Open the attention page")}: point at a token '
            "and see where each head looks.</p>\n"
        )
    if feature.scores:
        main += "<h2>Predictions</h2>\n" + _prediction_list(feature)
    if asked:
        main += "<h2>Questions</h2>\n" + items(
            f"{link(f'questions.html#{question.id}', question.id)} {text(question.text)}"
            for question in asked
        )
    return whole_page(
        sources, name=feature.href, title=feature.result.title, main=main, shown=[feature]
    )


def stored_page(sources: Sources, feature: Feature, page: str) -> str:
    """Return a page that a feature stored, with a line of the site above its own content.

    Its style, its program and the policy that allows them stay as they are.

    Raises:
        ContractError: it is no page of the lab.
    """
    head, body, content = page.partition(BODY)
    if not body:
        msg = f"{feature.id}: {feature.page} has no {BODY.strip()}; expected a page of lab/present"
        raise ContractError(msg)
    banner = ""
    if sources.is_sample:
        banner = f"<p><strong>{SAMPLE_ASSURANCE}</strong></p>"
    line = f"{link('index.html', sources.project)} · {provenance(feature)}"
    return f'{head}{body}<nav aria-label="Site">{banner}<p>{line}</p></nav>\n{content}'


#### predictions


def predictions_page(sources: Sources) -> str:
    """Return every prediction with its outcome; a choice of outcome works without a script."""
    outcomes = sources.outcomes
    choices = (
        f'<label><input type="radio" name="outcome" checked> all {len(sources.scores)}</label>'
    )
    for outcome in OUTCOMES:
        word = outcome.lower()
        choices += (
            f' <label><input type="radio" name="outcome" id="only-{word}"> '
            f"{outcomes[outcome]} {word}</label>"
        )
    main = (
        "<h1>Predictions</h1>\n"
        '<p class="lead">Written into the plan before the runs, and scored by its rule: with the '
        "95 % interval of an estimate, held on the claimed side, missed on the other, else "
        "inconclusive. An exact value is compared as it is.</p>\n"
        f'<fieldset class="filter"><legend>Show</legend>{choices}</fieldset>\n'
    )
    for feature in sources.features:
        if not feature.scores:
            continue
        main += (
            f"<h2>{link(feature.href, feature.result.title)} "
            f'<span class="id">{feature.id}</span></h2>\n'
        )
        main += _prediction_list(feature)
    return whole_page(
        sources,
        name="predictions.html",
        title="Predictions",
        main=main,
        shown=sources.features,
    )


def _prediction_list(feature: Feature) -> str:
    """Return a feature's predictions, the missed ones first."""
    entries = ""
    for score in sorted(feature.scores, key=lambda score: OUTCOMES.index(score.outcome)):
        prediction = score.prediction
        entries += (
            f'<li class="{score.outcome.lower()}">{outcome_mark(score.outcome)} '
            f"<strong>{text(prediction.claim)}</strong><br>\n"
            f"<span>{text(score.reason)}</span><br>\n"
            f'<span class="hint">Because: {text(prediction.source or "not stated")}</span></li>\n'
        )
    return f'<ul class="predictions">\n{entries}</ul>\n'


#### questions


def questions_page(sources: Sources) -> str:
    """Return the questions, who asks them, and the answer that each report proposes."""
    features = {feature.id: feature for feature in sources.features}
    main = (
        "<h1>Questions</h1>\n"
        '<p class="lead">What the lab wants to know. Below each question is what the reports '
        "propose: the first finding of each feature that asks it. Whether it answers the question "
        "is for the reader to say.</p>\n"
    )
    section = ""
    for question in sources.questions:
        if question.section != section:
            section = question.section
            main += f"<h2>{text(section)}</h2>\n"
        main += _question(question, features)
    return whole_page(
        sources, name="questions.html", title="Questions", main=main, shown=sources.features
    )


def _question(question: Question, features: Mapping[str, Feature]) -> str:
    answers = []
    for name in question.experiments:
        if name not in features:
            answers.append(f"{text(name)}: no result here yet")
        else:
            feature = features[name]
            finding = (*feature.result.findings, "no finding was drawn")[0]
            answers.append(f"{link(feature.href, name)}: {text(finding)}")
    return (
        f'<article class="card" id="{question.id}">\n'
        f'<h3>{text(question.text)} <span class="id">{question.id} · '
        f"{text(question.status)}</span></h3>\n"
        f'<p class="hint">{text(question.why)}</p>\n{items(answers)}</article>\n'
    )


#### concepts


def concepts_page(sources: Sources) -> str:
    """Return the list of concept texts."""
    main = (
        "<h1>Concepts</h1>\n"
        '<p class="lead">What one has to know to read the reports. A number that this lab measured '
        'looks <span class="measured">like this</span> and leads to its report.</p>\n'
    )
    main += items(
        f"{link(concept.href, concept.title)}<br><span class='hint'>"
        f"{count(len(placeholders(concept.source)), 'measured number')}</span>"
        for concept in sources.concepts
    )
    return whole_page(
        sources, name="concepts.html", title="Concepts", main=main, shown=sources.features
    )


def concept_page(sources: Sources, concept: Concept) -> str:
    """Return a concept text, its placeholders filled from the results."""
    features = {feature.id: feature for feature in sources.features}
    links = {f"{other.name}.md": other.href for other in sources.concepts}
    used = dict.fromkeys(name for name, _ in placeholders(concept.source))

    def fill(feature: str, name: str) -> str:
        if feature not in features or name not in features[feature].result.measurements:
            return f'<span class="measured">(not measured: {text(feature)}.{text(name)})</span>'
        measured = quantity(features[feature].result.measurements[name])
        return (
            f'<a class="measured" href="{features[feature].href}" '
            f'title="{text(feature)}.{text(name)}">{text(measured)}</a>'
        )

    return whole_page(
        sources,
        name=concept.href,
        title=concept.title,
        main=render_article(concept.source, figures={}, links=links, fill=fill),
        shown=[features[name] for name in used if name in features],
    )
