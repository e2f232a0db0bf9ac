"""FEAT-002, documentation framework: are concept documents complete, and their numbers measured?

Path: the folder of documents -> `measure` (one index entry per document) -> `store` (copies,
rendered documents, index) -> `summarise` (the numbers) -> findings, tables and figure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import present
from lab.contract import (
    Context,
    ContractError,
    Experiment,
    Inputs,
    Measurement,
    Outcome,
    Table,
    main,
)
from lab.documentation.markdown import Document, find_problems, is_report, parse

EXPERIMENT = Experiment(
    title="Documentation framework",
    question=(
        "Does every concept document say what it must, and is every number that it takes from "
        "this lab measured?"
    ),
    hypothesis=(
        "Yes: each document has the template's sections, each link and citation leads somewhere, "
        "and each placeholder such as {{FEAT-001.eval_loss_true}} is filled from the result of a "
        "verified feature."
    ),
    method=(
        "Every document beside TEMPLATE.md is copied byte by byte, read as CommonMark without its "
        "code, and compared with the template: sections and their order, words per section, "
        "links, citations against sources, placeholders against the results that were given. "
        "Whatever is wrong is listed, not repaired. The documents are then written once more with "
        "their placeholders filled. Reports that a feature published there are left out, "
        "recognised by the digest in their last line: their numbers come from a result already."
    ),
    headline=("problems", "placeholders", "filled", "documents", "words"),
)
TEMPLATE = "TEMPLATE.md"
COUNTS = ("words", "sections", "links", "citations", "sources", "placeholders")

Results = Mapping[tuple[str, str], Measurement]  # (feature, measurement) -> its value


@dataclass(frozen=True)
class DocumentObservations:
    """The template, the documents in the order of their names, and an index entry of each."""

    template: Document
    documents: list[Document]
    index: list[dict[str, Any]]


def run(ctx: Context) -> Outcome:
    """Copy, check, render and index the documents of the input `concepts`."""
    results = load_results(ctx.inputs)
    observations = measure(ctx, results)
    store(ctx.out, observations, results)
    measurements = summarise(observations.index)
    ctx.progress(1, 1, f"{len(observations.documents)} documents")
    return Outcome(
        measurements,
        tables=tables(observations.index),
        findings=findings(measurements),
        figures=[figure(observations.documents)],
    )


def load_results(inputs: Inputs) -> Results:
    """Return the measurements of all features among the inputs."""
    results = {}
    for feature, entry in inputs.entries.items():
        if entry["kind"] != "feature":
            continue
        path = inputs.path(feature) / "result.json"
        if path.is_file():
            document = json.loads(path.read_text("utf-8"))
            for name, raw in document["measurements"].items():
                results[feature, name] = Measurement.from_json(raw)
    return results


def measure(ctx: Context, results: Results) -> DocumentObservations:
    """Read the documents and compare each with the template."""
    documents, template = read_folder(ctx.inputs.path("concepts"))
    names = {document.name for document in documents}
    words_per_section = ctx.config["words_per_section"]
    index = [
        index_entry(document, template, names=names, results=results, words=words_per_section)
        for document in documents
    ]
    return DocumentObservations(template, documents, index)


def read_folder(folder: Path) -> tuple[list[Document], Document]:
    """Return the concept documents of a folder, by name, and the template.

    Reports published there are left out.

    Raises:
        ContractError: there is no template.
    """
    documents = {}
    for path in sorted(folder.glob("*.md")):
        text = path.read_text("utf-8")
        if not is_report(text):
            documents[path.name] = parse(path.name, text)
    if TEMPLATE not in documents:
        msg = f"{folder} has no {TEMPLATE}; the documents are judged by it"
        raise ContractError(msg)
    template = documents.pop(TEMPLATE)
    return list(documents.values()), template


def index_entry(
    document: Document, template: Document, *, names: set[str], results: Results, words: int
) -> dict[str, Any]:
    """Return a document's counts and problems; `words` is what each section needs at least."""
    problems = find_problems(
        document,
        template,
        names=names,
        is_measured=lambda feature, name: (feature, name) in results,
        words_per_section=words,
    )
    filled = 0
    for placeholder in document.placeholders:
        filled += (placeholder.feature, placeholder.measurement) in results
    return {
        "name": document.name,
        "title": document.title,
        "words": document.words,
        "sections": len(document.sections),
        "links": len(document.links),
        "citations": len(document.citations),
        "sources": len(document.sources),
        "placeholders": len(document.placeholders),
        "filled": filled,
        "problems": list(problems),
    }


def store(out: Path, observations: DocumentObservations, results: Results) -> None:
    """Write documents/ (byte by byte), rendered/ (placeholders filled) and the index.

    The index is JSON for programs and Markdown for readers.
    """

    def text_of(feature: str, name: str) -> str:
        if (feature, name) not in results:
            return f"(not measured: {feature}.{name})"
        return present.quantity(results[feature, name])

    # 1. The sources, the template included.
    (out / "documents").mkdir()
    for document in (observations.template, *observations.documents):
        (out / "documents" / document.name).write_text(document.source, "utf-8", newline="")

    # 2. The rendered documents.
    (out / "rendered").mkdir()
    for document in observations.documents:
        rendered = document.fill(text_of)
        (out / "rendered" / document.name).write_text(rendered, "utf-8", newline="")

    # 3. The index.
    index = observations.index
    (out / "index.json").write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n", "utf-8")
    lines = ["# Concepts", ""]
    for entry in index:
        lines.append(f"- [{entry['title']}](rendered/{entry['name']}) · {entry['words']} words")
    (out / "index.md").write_text("\n".join(lines) + "\n", "utf-8")


def summarise(index: Sequence[Mapping[str, Any]]) -> dict[str, Measurement]:
    """Return the sums over all documents."""
    totals = {"documents": len(index)}
    for name in (*COUNTS, "filled"):
        totals[name] = sum(entry[name] for entry in index)
    totals["problems"] = sum(len(entry["problems"]) for entry in index)
    return {name: Measurement.of_exact(total) for name, total in totals.items()}


def tables(index: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Return the counts per document, and its problems, if there are any."""
    counts = tuple((entry["name"], *(entry[name] for name in COUNTS)) for entry in index)
    problems: list[tuple[str, str]] = []
    for entry in index:
        problems += [(entry["name"], problem) for problem in entry["problems"]]

    documents = Table("Documents", ("name", *COUNTS), counts)
    if not problems:
        return [documents]
    return [documents, Table("Problems", ("name", "problem"), tuple(problems))]


def findings(measurements: Mapping[str, Measurement]) -> tuple[str, ...]:
    """Return the sentences that the numbers support."""
    counts: dict[str, Any] = {name: m.value for name, m in measurements.items()}
    verdict = "follows" if counts["problems"] == 0 else "BREAKS"
    return (
        f"The text of {present.count(counts['documents'], 'document')} {verdict} the template: "
        f"{present.count(counts['problems'], 'problem')} in "
        f"{present.count(counts['words'], 'word')}.",
        f"{counts['filled']} of {counts['placeholders']} placeholders are filled with a measured "
        f"number; {present.count(counts['sources'], 'source')} are cited {counts['citations']} "
        "times.",
    )


def figure(documents: Sequence[Document]) -> present.Figure:
    """Show in which sections the words of the documents are."""
    words: dict[str, int] = {}  # section -> words of all documents
    for document in documents:
        for title, text in document.sections.items():
            words[title] = words.get(title, 0) + len(text.split())
    longest = max(words, key=words.__getitem__)
    return present.Figure(
        name="words_per_section",
        title="Words of the concept documents, by section",
        caption=(
            f"{longest!r} is the longest section: {words[longest]} of {sum(words.values())} words."
        ),
        x_label="section",
        y_label="words (code not counted)",
        series=(present.Series("words", tuple(words), tuple(words.values()), kind="bar"),),
    )


if __name__ == "__main__":
    main(EXPERIMENT, run)
