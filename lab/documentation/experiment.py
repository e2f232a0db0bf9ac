"""FEAT-002, documentation framework: are concept documents complete, and their numbers measured?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab import present
from lab.contract import (
    Context,
    ContractError,
    Inputs,
    Measurement,
    Result,
    Table,
    environment,
    main,
)
from lab.documentation.markdown import Document, is_report, parse, problems

QUESTION = (
    "Does every concept document say what it must, and is every number that it takes from "
    "this lab measured?"
)
HYPOTHESIS = (
    "Yes: each document has the template's sections, each link and citation leads somewhere, and "
    "each placeholder such as {{FEAT-001.eval_loss_true}} is filled from the result of a "
    "verified feature."
)
METHOD = (
    "Every document beside TEMPLATE.md is copied byte by byte, read with its code blanked out, and "
    "held against the template: sections and their order, words per section, links, citations "
    "against sources, placeholders against the results that were given. Whatever is wrong is "
    "listed, not repaired. The documents are then written once more with their placeholders "
    "filled. Reports that a feature published there are left out, told by the digest in their last "
    "line: their numbers come from a result already."
)
TEMPLATE = "TEMPLATE.md"
COUNTS = ("words", "sections", "links", "citations", "sources", "placeholders")


def run(ctx: Context) -> None:
    """Copy, check, render and index the documents of the input `concepts`."""
    documents, template = read(ctx.inputs.path("concepts"))
    measured = measurements_of(ctx.inputs)
    index = [
        judge(
            document,
            template,
            {d.name for d in documents},
            measured,
            ctx.config["words_per_section"],
        )
        for document in documents
    ]
    write(ctx.out, [template, *documents], measured, index)
    found = totals(index)
    result = Result(
        "lab.documentation.experiment",
        QUESTION,
        HYPOTHESIS,
        METHOD,
        found,
        tables=tables(index),
        findings=findings(found),
        environment=environment(ctx),
    )
    present.write(ctx.out, result, [figure(documents)])
    ctx.progress(1, 1, f"{len(documents)} documents")


def read(folder: Path) -> tuple[list[Document], Document]:
    """Give the concept documents of a folder, by name, and the template.

    Reports published there are left out.
    """
    texts = {path.name: path.read_text("utf-8") for path in sorted(folder.glob("*.md"))}
    found = {name: parse(name, text) for name, text in texts.items() if not is_report(text)}
    if TEMPLATE not in found:
        msg = f"{folder} holds no {TEMPLATE}; the documents are judged by it"
        raise ContractError(msg)
    template = found.pop(TEMPLATE)
    return list(found.values()), template


def measurements_of(inputs: Inputs) -> dict[tuple[str, str], Measurement]:
    """Give (feature, measurement) -> Measurement of all features among the inputs."""
    found = {}
    for name, entry in inputs.entries.items():
        if entry["kind"] == "feature" and (place := inputs.path(name) / "result.json").is_file():
            result = json.loads(place.read_text("utf-8"))
            found |= {
                (name, key): Measurement.from_json(raw)
                for key, raw in result["measurements"].items()
            }
    return found


def judge(
    document: Document,
    template: Document,
    names: set[str],
    measured: Mapping[tuple[str, str], Measurement],
    words_per_section: int,
) -> dict[str, Any]:
    """Give a document's index entry: its counts, placeholders filled, and its problems."""
    found = problems(document, template, names, lambda *place: place in measured, words_per_section)
    return {
        "name": document.name,
        "title": document.title,
        "words": document.words,
        **{count: len(getattr(document, count)) for count in COUNTS[1:]},
        "filled": sum(place in measured for place in document.placeholders),
        "problems": list(found),
    }


def write(
    out: Path,
    sources: list[Document],
    measured: Mapping[tuple[str, str], Measurement],
    index: list[dict[str, Any]],
) -> None:
    """Write documents/ (byte by byte), rendered/ (placeholders filled) and the index.

    The index is written as JSON and to be read.
    """

    def text_of(feature: str, name: str) -> str:
        found = measured.get((feature, name))
        return present.quantity(found) if found else f"(not measured: {feature}.{name})"

    for folder in ("documents", "rendered"):
        (out / folder).mkdir()
    for document in sources:
        (out / "documents" / document.name).write_text(document.source, "utf-8", newline="")
        if document.name != TEMPLATE:
            (out / "rendered" / document.name).write_text(
                document.filled(text_of), "utf-8", newline=""
            )
    (out / "index.json").write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n", "utf-8")
    lines = [
        f"- [{item['title']}](rendered/{item['name']}) · {item['words']} words" for item in index
    ]
    (out / "index.md").write_text("\n".join(["# Concepts", "", *lines]) + "\n", "utf-8")


def totals(index: list[dict[str, Any]]) -> dict[str, Measurement]:
    """Give the sums over all documents."""
    sums = {name: sum(item[name] for item in index) for name in (*COUNTS, "filled")}
    sums["problems"] = sum(len(item["problems"]) for item in index)
    return {
        name: Measurement.of_exact(value)
        for name, value in {"documents": len(index), **sums}.items()
    }


def tables(index: list[dict[str, Any]]) -> tuple[Table, ...]:
    """Give the counts per document, and what is wrong with it, if anything."""
    counts = Table(
        "Documents", ("name", *COUNTS), tuple((i["name"], *(i[c] for c in COUNTS)) for i in index)
    )
    wrong = tuple((item["name"], sentence) for item in index for sentence in item["problems"])
    return (counts, Table("Problems", ("name", "problem"), wrong)) if wrong else (counts,)


def findings(found: Mapping[str, Measurement]) -> tuple[str, ...]:
    """Give the sentences that the numbers support."""
    value: dict[str, Any] = {name: m.value for name, m in found.items()}
    holds = "keeps to" if value["problems"] == 0 else "BREAKS"
    return (
        f"The text of {present.count(value['documents'], 'document')} {holds} the template: "
        f"{present.count(value['problems'], 'problem')} in "
        f"{present.count(value['words'], 'word')}.",
        f"{value['filled']} of {value['placeholders']} placeholders hold a measured number; "
        f"{present.count(value['sources'], 'source')} are cited {value['citations']} times.",
    )


def figure(documents: list[Document]) -> present.Figure:
    """Show where the words of the documents are."""
    titles = list(dict.fromkeys(title for document in documents for title in document.sections))
    counts = [sum(len(d.sections.get(title, "").split()) for d in documents) for title in titles]
    longest = max(range(len(titles)), key=counts.__getitem__)
    return present.Figure(
        name="words_per_section",
        title="Where the words of the concept documents are",
        caption=(
            f"{titles[longest]!r} is the longest section: {counts[longest]} of {sum(counts)} words."
        ),
        x_label="section",
        y_label="words (code not counted)",
        series=(present.Series("words", titles, counts, kind="bar"),),
    )


if __name__ == "__main__":
    main(run)
