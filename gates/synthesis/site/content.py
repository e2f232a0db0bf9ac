"""What each page must say, composed from the inputs, word by word."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from gates.synthesis.site import given, stated
from gates.synthesis.site.pages import words
from gates.synthesis.site.stated import count

ASSURANCE = "assurance: scripted (sample run, approved by no human)"
FIRST_FINDINGS = 2


def expected_words() -> dict[str, list[str]]:
    """Return page -> its words, of every page but the explorer and the stored ones."""
    texts = {
        "index.html": _shell(_index(), given.features()),
        "predictions.html": _shell(_predictions(), given.features()),
        "questions.html": _shell(_questions(), given.features()),
        "concepts.html": _shell(_concepts(), given.features()),
    }
    for feature in given.features():
        texts[f"{feature}.html"] = _shell(_feature(feature), [feature])
    for name, source in given.concepts().items():
        texts[f"concept-{name}.html"] = _shell([_concept(source)], _used(source))
    return {name: words(text) for name, text in texts.items()}


def expected_titles() -> dict[str, str]:
    """Return page -> what its title begins with, of all pages but the stored ones."""
    titles = {
        "index.html": "What the lab found",
        "predictions.html": "Predictions",
        "questions.html": "Questions",
        "concepts.html": "Concepts",
        "explorer.html": "Explorer",
    }
    for feature in given.features():
        titles[f"{feature}.html"] = given.result(feature)["title"]
    for name, source in given.concepts().items():
        titles[f"concept-{name}.html"] = given.concept_title(source)
    return titles


def stored_line(name: str) -> str:
    """Return the HTML of the line that the site puts above a page that a feature stored."""
    (feature,) = (key for key, page in given.STORED_PAGES.items() if page == name)
    line = html.escape(given.provenance(feature))
    line = re.sub("receipt (.*?), run", r"receipt <code>\1</code>, run", line, count=1)
    project = html.escape(given.plan().get("project", "LLM Learning Lab"))
    banner = ""
    if given.plan().get("sample") is True:
        banner = f"<p><strong>{ASSURANCE}</strong></p>"
    line = f'<p><a href="index.html">{project}</a> · {line}</p>'
    return f'<nav aria-label="Site">{banner}{line}</nav>\n'


def shell_words(main: Sequence[str], shown: Sequence[str]) -> list[str]:
    """Return the words of a page around its own."""
    return words(_shell(main, shown))


def _shell(main: Sequence[str], shown: Sequence[str]) -> str:
    banner = [ASSURANCE] if given.plan().get("sample") is True else []
    links = ["Findings", "Predictions", "Questions", "Concepts", "Explorer"]
    for name in given.stored_pages():
        links.append(name.removesuffix(".html").replace("_", " ").capitalize())
    footer = [given.provenance(feature) for feature in shown]
    if len(footer) != 1:
        footer = [f"Made from {len(footer)} results", *footer]
    project = given.plan().get("project", "LLM Learning Lab")
    return "\n".join(["Skip to the content", *banner, project, *links, *main, *footer])


def _index() -> list[str]:
    outcomes = given.outcomes()
    total = sum(outcomes.values())
    parts = [
        "What the lab found",
        f"{count(len(given.features()), 'feature')} made {count(total, 'prediction')} before they "
        f"ran: {outcomes['HELD']} held, {outcomes['MISSED']} missed, {outcomes['INCONCLUSIVE']} "
        "stayed open. A miss is a finding: it comes first.",
        "Missed predictions",
    ]
    if not outcomes["MISSED"]:
        parts.append("None of the predictions was missed.")
    for feature in given.features():
        for score in given.scores(feature):
            if score["outcome"] == "MISSED":
                parts += [score["claim"], score["reason"], feature]
    parts.append("All predictions")

    # Each phase that has a result.
    last_phase = None
    for feature in given.features():
        phase = given.planned()[feature][0]
        if phase["id"] != last_phase:
            last_phase = phase["id"]
            parts += [phase.get("name", f"Phase {last_phase}"), phase.get("goal", "")]
        parts += _summary(feature)
    if given.absent():
        parts += [
            "Not among the results",
            "No result was given of these features of the plan; a waived feature has none.",
        ]
        for name in given.absent():
            parts += [name, given.planned()[name][1].get("title", name)]
    return parts


def _summary(feature: str) -> list[str]:
    result = given.result(feature)
    parts = [result["title"], feature, result["question"]]
    parts += result["findings"][:FIRST_FINDINGS]
    parts.append("measurement value 95 % interval")
    for name in result["headline"]:
        measurement = result["measurements"][name]
        parts += [name, stated.quantity(measurement), stated.interval_cell(measurement)]
    return [*parts, "Predictions:", _counts(feature)]


def _counts(feature: str) -> str:
    outcomes = [score["outcome"] for score in given.scores(feature)]
    shown = []
    for outcome in ("MISSED", "HELD", "INCONCLUSIVE"):
        if outcome in outcomes:
            shown.append(f"{outcomes.count(outcome)} {outcome.lower()}")
    return " ".join(shown) or "no prediction"


def _feature(feature: str) -> list[str]:
    parts = [feature, _counts(feature), plain(given.report(feature))]
    if given.STORED_PAGES.get(feature) in given.stored_pages():
        parts.append("Open the attention page: point at a token and see where each head looks.")
    if given.scores(feature):
        parts += ["Predictions", *_scored(feature)]
    asked = [item for item in given.questions() if feature in item["experiments"]]
    if asked:
        parts.append("Questions")
    for question in asked:
        parts += [question["id"], question["text"]]
    return parts


def _scored(feature: str) -> list[str]:
    parts = []
    for outcome in given.OUTCOMES:
        for score in given.scores(feature):
            if score["outcome"] == outcome:
                parts += [outcome.lower(), score["claim"], score["reason"]]
                parts.append(f"Because: {score['source']}")
    return parts


def _predictions() -> list[str]:
    outcomes = given.outcomes()
    parts = [
        "Predictions",
        "Written into the plan before the runs, and scored by its rule: with the 95 % interval of "
        "an estimate, held on the claimed side, missed on the other, else inconclusive. An exact "
        "value is compared as it is.",
        f"Show all {sum(outcomes.values())}",
    ]
    parts += [f"{outcomes[outcome]} {outcome.lower()}" for outcome in given.OUTCOMES]
    for feature in given.features():
        if given.scores(feature):
            parts += [given.result(feature)["title"], feature, *_scored(feature)]
    return parts


def _questions() -> list[str]:
    parts = [
        "Questions",
        "What the lab wants to know. Below each question is what the reports propose: the first "
        "finding of each feature that asks it. Whether it answers the question is for the reader "
        "to say.",
    ]
    section = ""
    for question in given.questions():
        if question["section"] != section:
            section = question["section"]
            parts.append(section)
        parts += [question["text"], question["id"], question["status"], question["why"]]
        for name in question["experiments"]:
            finding = "no result here yet"
            if name in given.features():
                finding = (*given.result(name)["findings"], "no finding was drawn")[0]
            parts += [name, finding]
    return parts


def _concepts() -> list[str]:
    parts = [
        "Concepts",
        "What one has to know to read the reports. A number that this lab measured looks like this "
        "and leads to its report.",
    ]
    for source in given.concepts().values():
        numbers = count(len(given.placeholders(source)), "measured number")
        parts += [given.concept_title(source), numbers]
    return parts


def _concept(source: str) -> str:
    def fill(match: re.Match[str]) -> str:
        measurement = given.measured(match[1], match[2])
        if measurement is None:
            return f"(not measured: {match[1]}.{match[2]})"
        return stated.quantity(measurement)

    # Every other piece between backticks is code; so is every other one between fences.
    blocks = re.split(r"(^```.*?^```$)", source, flags=re.MULTILINE | re.DOTALL)
    for i in range(0, len(blocks), 2):
        pieces = blocks[i].split("`")
        pieces[::2] = [given.PLACEHOLDER.sub(fill, piece) for piece in pieces[::2]]
        blocks[i] = "`".join(pieces)
    return plain("".join(blocks))


def _used(source: str) -> list[str]:
    names = dict.fromkeys(name for name, _ in given.placeholders(source))
    return [name for name in names if name in given.features()]


def plain(markdown: str) -> str:
    """Return what a Markdown text says, without its marks; words and numbers alone count here."""
    text = re.sub(r"<!--.*?-->", "", markdown, flags=re.DOTALL)
    text = re.sub(r"!?\[([^\[\]]*)\]\([^()\s]*\)", r"\1", text)  # a link says its words
    text = re.sub(r"^(```|~~~).*$", "", text, flags=re.MULTILINE)
    return re.sub(r"^\d+\. ", "", text, flags=re.MULTILINE)
