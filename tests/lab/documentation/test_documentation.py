"""Reading and judging documents: every rule has a document that keeps it and one that breaks it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import present
from lab.contract import ContractError, Measurement, Result
from lab.documentation import experiment as documentation
from lab.documentation.markdown import Document, anchor, is_report, parse, problems

ROOT = Path(__file__).resolve().parents[3]
TEMPLATE = parse(
    "TEMPLATE.md", "# Name\n\n## Idea\n\n<!-- say it -->\n\n## Sources\n\n<!-- list them -->\n"
)
GOOD = """# Good

## Idea

It is short [Paper]. See [the sources](#sources), [another](other.md) and
[a page](https://example.org/x).
It fell to {{FEAT-001.loss}}, as `[Unlisted] {{FEAT-009.none}}` in code may say.

```
## No heading, [no link](nowhere), [Nobody]
```

## Sources

- [Paper] Somebody, 2023. https://arxiv.org/abs/2305.14314
"""
MEASURED = {("FEAT-001", "loss"): Measurement.of_sample([2.0, 3.0], "nats")}


def faults(source: str, least: int = 4) -> list[str]:
    known = {"good.md", "other.md"}
    return list(
        problems(parse("good.md", source), TEMPLATE, known, lambda *place: place in MEASURED, least)
    )


def test_a_good_document_has_no_fault_and_the_right_counts() -> None:
    document = parse("good.md", GOOD)
    assert faults(GOOD) == []
    assert document.title == "Good" and list(document.sections) == ["Idea", "Sources"]
    assert document.links == ("#sources", "other.md", "https://example.org/x")
    assert document.citations == ("Paper",) and set(document.sources) == {"Paper"}
    assert document.placeholders == (("FEAT-001", "loss"),)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            "## Idea",
            "## Thought",
            "sections are ['Thought', 'Sources'], wanted ['Idea', 'Sources']",
        ),
        ("# Good\n", "Good\n", "there is no title"),
        ("It is short", "<!-- say it --> It is short", "was left in"),
        (
            "[Paper] Somebody, 2023. https",
            "[Paper] S. https",
            "section 'Sources' has 4 words, wanted at least 5",
        ),
        ("(#sources)", "(#nothing)", "link '#nothing' leads nowhere"),
        ("(other.md)", "(missing.md)", "link 'missing.md' leads nowhere"),
        ("(other.md)", "(../README.md)", "link '../README.md' leads nowhere"),
        ("(https://example.org/x)", "(http://example.org/x)", "leads nowhere"),
        ("[Paper]. See", "[Papre]. See", "[Papre] is cited and not among the sources"),
        ("[Paper]. See", ". See", "source [Paper] is never cited"),
        ("https://arxiv.org/abs/2305.14314", "see the library", "source [Paper] has no address"),
        ("- [Paper] Some", "* [Paper] Some", "there is no source"),
        ("FEAT-001.loss", "FEAT-001.lost", "{{FEAT-001.lost}} names nothing that was measured"),
        ("FEAT-001.loss", "FEAT-002.loss", "{{FEAT-002.loss}} names nothing that was measured"),
    ],
)
def test_each_rule_finds_what_breaks_it(old: str, new: str, fault: str) -> None:
    assert GOOD.count(old) == 1
    least = 5 if "at least 5" in fault else 4
    assert [text for text in faults(GOOD.replace(old, new), least) if fault in text] != []


def test_rendering_fills_placeholders_and_nothing_else() -> None:
    text = parse("good.md", GOOD).filled(lambda feature, name: f"<{feature}|{name}>")
    assert text == GOOD.replace("{{FEAT-001.loss}}", "<FEAT-001|loss>")


pieces = st.sampled_from(
    [
        "# a\n",
        "## b\n",
        "```\n",
        "~~~\n",
        "`",
        "text ",
        "[A]",
        "(x)",
        "{{F.m}}",
        "\n",
        "- [A] https://a.b\n",
        "<!--",
    ]
)


@given(st.lists(pieces, max_size=30).map("".join))
def test_any_text_can_be_read_and_code_never_speaks(source: str) -> None:
    document = parse("any.md", source)
    assert len(document.prose) == len(source) and document.prose.count("\n") == source.count("\n")
    assert all(kept in {was, " "} for kept, was in zip(document.prose, source, strict=True))
    assert document.filled(lambda feature, name: f"{{{{{feature}.{name}}}}}") == source
    for target in document.links:
        assert f"({target})" in source
    list(problems(document, TEMPLATE, set(), lambda *_: False, 1))


@given(
    st.lists(st.sampled_from(["words of a line", "[A](b.md)", "[Key]", "{{F-1.m}}"]), max_size=12)
)
def test_counts_follow_from_what_was_written(lines: list[str]) -> None:
    document = parse("made.md", "# T\n\n## S\n\n" + "\n".join(lines) + "\n")
    assert len(document.links) == lines.count("[A](b.md)")
    assert len(document.citations) == lines.count("[Key]")
    assert len(document.placeholders) == lines.count("{{F-1.m}}")
    assert document.words == 4 + sum(len(line.split()) for line in lines)


@pytest.mark.parametrize(
    ("heading", "wanted"),
    [("How it works", "how-it-works"), ("NF4, and why?", "nf4-and-why"), ("A-b c", "a-b-c")],
)
def test_anchors_are_those_of_github(heading: str, wanted: str) -> None:
    assert anchor(heading) == wanted


def test_a_folder_without_the_template_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A")
    with pytest.raises(ContractError, match=r"holds no TEMPLATE\.md"):
        documentation.read(tmp_path)


def test_a_published_report_is_left_out_and_an_edited_one_is_not(tmp_path: Path) -> None:
    made, concepts = tmp_path / "made", tmp_path / "concepts"
    made.mkdir()
    present.write(made, Result("lab.some", "Why?", "h", "m", {"n": Measurement.of_exact(7)}))
    report = (made / "report.md").read_text("utf-8")
    concepts.mkdir()
    (concepts / "TEMPLATE.md").write_text(TEMPLATE.source, "utf-8")
    (concepts / "good.md").write_text(GOOD, "utf-8")
    (concepts / "published.md").write_text(report, "utf-8")
    assert [document.name for document in documentation.read(concepts)[0]] == ["good.md"]
    assert is_report(report) and "| 7 |" in report
    for edited in (
        report.replace("| 7 |", "| 8 |"),
        report + "More.\n",
        report[: report.rfind("<!--")],
        "",
        GOOD,
    ):
        assert not is_report(edited)
    (concepts / "published.md").write_text(report.replace("| 7 |", "| 8 |"), "utf-8")
    documents, template = documentation.read(concepts)
    assert [document.name for document in documents] == ["good.md", "published.md"]
    found = list(problems(documents[1], template, set(), lambda *_: True, 1))
    # it does not pass for a concept document either
    assert any("sections are" in text for text in found)


def test_the_shipped_documents_lack_nothing_but_their_numbers() -> None:
    documents, template = documentation.read(ROOT / "docs/concepts")
    assert "qlora.md" in {document.name for document in documents}
    for document in documents:
        assert (
            list(problems(document, template, {d.name for d in documents}, lambda *_: True, 20))
            == []
        )
        without = list(
            problems(document, template, {d.name for d in documents}, lambda *_: False, 20)
        )
        assert len(without) == len(document.placeholders) > 0


def test_sentences_turn_with_the_numbers() -> None:
    index = [documentation.judge(parse("good.md", GOOD), TEMPLATE, {"other.md"}, MEASURED, 4)]
    kept = documentation.findings(documentation.totals(index))
    broken = documentation.findings(
        documentation.totals([{**index[0], "problems": ["x"], "filled": 0}])
    )
    assert "keeps to the template: 0 problems" in kept[0] and "1 of 1 placeholders" in kept[1]
    assert "BREAKS the template: 1 problem in" in broken[0] and "0 of 1 placeholders" in broken[1]


def test_the_caption_names_the_longest_section() -> None:
    def caption(idea: int, sources: int) -> str:
        source = f"# T\n\n## Idea\n\n{'w ' * idea}\n\n## Sources\n\n{'w ' * sources}\n"
        return documentation.figure([Document("a.md", source, source)]).caption

    assert caption(9, 3) == "'Idea' is the longest section: 9 of 12 words."
    assert caption(2, 3) == "'Sources' is the longest section: 3 of 5 words."
