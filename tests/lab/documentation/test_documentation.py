"""Reading and judging documents: every rule has a document that keeps it and one that breaks it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import present
from lab.contract import ContractError, Measurement, Result
from lab.documentation import experiment as documentation
from lab.documentation.markdown import Document, anchor, find_problems, is_report, parse

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


def all_problems(
    document: Document, template: Document = TEMPLATE, *, names: set[str], filled: bool, words: int
) -> list[str]:
    problems = find_problems(
        document,
        template,
        names=names,
        is_measured=lambda *_: filled,
        words_per_section=words,
    )
    return list(problems)


def problems_of(source: str, least: int = 4) -> list[str]:
    problems = find_problems(
        parse("good.md", source),
        TEMPLATE,
        names={"good.md", "other.md"},
        is_measured=lambda *name: name in MEASURED,
        words_per_section=least,
    )
    return list(problems)


def placeholders(document: Document) -> list[tuple[str, str]]:
    return [(item.feature, item.measurement) for item in document.placeholders]


def test_a_good_document_has_no_problem_and_the_right_counts() -> None:
    document = parse("good.md", GOOD)
    assert problems_of(GOOD) == []
    assert document.title == "Good" and list(document.sections) == ["Idea", "Sources"]
    assert document.links == ("#sources", "other.md", "https://example.org/x")
    assert document.citations == ("Paper",) and set(document.sources) == {"Paper"}
    assert placeholders(document) == [("FEAT-001", "loss")]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "## Idea",
            "## Thought",
            "sections are ['Thought', 'Sources']; expected ['Idea', 'Sources']",
        ),
        ("# Good\n", "Good\n", "there is no title"),
        ("It is short", "<!-- say it --> It is short", "was left in"),
        (
            "[Paper] Somebody, 2023. https",
            "[Paper] S. https",
            "section 'Sources' has 4 words; expected at least 5",
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
def test_each_rule_finds_what_breaks_it(old: str, new: str, problem: str) -> None:
    assert GOOD.count(old) == 1
    least = 5 if "at least 5" in problem else 4
    problems = problems_of(GOOD.replace(old, new), least)
    assert [text for text in problems if problem in text] != []


def test_rendering_fills_placeholders_and_nothing_else() -> None:
    text = parse("good.md", GOOD).fill(lambda feature, name: f"<{feature}|{name}>")
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
    for character, original in zip(document.prose, source, strict=True):
        assert character in {original, " "}
    assert document.fill(lambda feature, name: f"{{{{{feature}.{name}}}}}") == source
    for target in document.links:
        assert f"({target})" in source
    all_problems(document, names=set(), filled=False, words=1)


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
    ("source", "links", "citations", "names"),
    [
        ("[a][page] [b]\n\n[page]: p.md\n[b]: q.md", ["p.md", "q.md"], [], []),  # references
        ("<https://a.org/x> ![i](i.png)", ["https://a.org/x", "i.png"], [], []),
        ('[a](b.md "title") [over\ntwo lines](c.md)', ["b.md", "c.md"], [], []),
        (r"\[Key\] \[a](b.md) \{{F.m}} [Other]", [], ["Other"], []),  # escapes
        ("| a | [b](c.md) |\n|---|---|\n| [Key] | {{F.m}} |", ["c.md"], ["Key"], [("F", "m")]),
        ("- a\n\n  ```\n  [Key] {{F.m}}\n  ```\n- {{F.n}}", [], [], [("F", "n")]),  # nested code
        ("    [Key] {{F.m}}\n\ntext", [], [], []),  # indented code
        ("`` ` [Key] {{F.m}} `` {{F.n}}", [], [], [("F", "n")]),
        ("`[Key]\n{{F.m}}` {{F.n}}", [], [], [("F", "n")]),  # a code span over two lines
        ("<!-- [Key] [a](b.md)\n{{F.m}} -->\n\n<b>{{F.n}}</b>", [], [], [("F", "n")]),  # HTML
        ("> [Key] {{F.m}}\n> `{{F.n}}`\n> {{F.o}}", [], ["Key"], [("F", "m"), ("F", "o")]),
        ("![of {{F.m}}](i.png) [to {{F.n}}]({{F.o}})", ["i.png", "{{F.o}}"], [],
         [("F", "m"), ("F", "n")]),
        ("_{{F.m_x}}_ {{{F.n}}}", [], [], [("F", "m_x"), ("F", "n")]),
    ],
)  # fmt: skip
def test_odd_markdown_is_read_as_commonmark(
    source: str, links: list[str], citations: list[str], names: list[tuple[str, str]]
) -> None:
    document = parse("odd.md", source)
    assert list(document.links) == links
    assert list(document.citations) == citations
    assert placeholders(document) == names
    # Each span is that of its placeholder: filled with its own text, the source is unchanged.
    for item in document.placeholders:
        text = f"{{{{{item.feature}.{item.measurement}}}}}"
        assert source[item.start : item.end] == text


def test_headings_are_read_as_commonmark() -> None:
    source = "Title\n=====\n\nIdea `x` \n---\n\n> ## quoted\n\nwords\n\n## Sources ##\n\n- [A] b\n"
    document = parse("odd.md", source)
    assert document.title == "Title"
    assert list(document.sections) == ["Idea `x`", "Sources"]
    assert document.headings == ("Title", "Idea `x`", "quoted", "Sources")
    assert document.sections["Idea `x`"].split() == [">", "##", "quoted", "words"]
    assert document.sources == {"A": "b"}


@pytest.mark.parametrize(
    ("heading", "expected"),
    [("How it works", "how-it-works"), ("NF4, and why?", "nf4-and-why"), ("A-b c", "a-b-c")],
)
def test_anchors_are_those_of_github(heading: str, expected: str) -> None:
    assert anchor(heading) == expected


def test_a_folder_without_the_template_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A")
    with pytest.raises(ContractError, match=r"has no TEMPLATE\.md"):
        documentation.read_folder(tmp_path)


def test_a_published_report_is_left_out_and_an_edited_one_is_not(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    result = Result(
        experiment="lab.some",
        title="Some",
        question="Why?",
        hypothesis="h",
        method="m",
        headline=(),
        measurements={"n": Measurement.of_exact(7)},
    )
    present.write(out, result)
    report = (out / "report.md").read_text("utf-8")
    concepts = tmp_path / "concepts"
    concepts.mkdir()
    (concepts / "TEMPLATE.md").write_text(TEMPLATE.source, "utf-8")
    (concepts / "good.md").write_text(GOOD, "utf-8")
    (concepts / "published.md").write_text(report, "utf-8")
    assert [document.name for document in documentation.read_folder(concepts)[0]] == ["good.md"]
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
    documents, template = documentation.read_folder(concepts)
    assert [document.name for document in documents] == ["good.md", "published.md"]
    problems = all_problems(documents[1], template, names=set(), filled=True, words=1)
    # it does not pass for a concept document either
    assert any("sections are" in text for text in problems)


def test_the_shipped_documents_lack_nothing_but_their_numbers() -> None:
    documents, template = documentation.read_folder(ROOT / "docs/concepts")
    assert "qlora.md" in {document.name for document in documents}
    names = {document.name for document in documents}
    for document in documents:
        assert all_problems(document, template, names=names, filled=True, words=20) == []
        unfilled = all_problems(document, template, names=names, filled=False, words=20)
        assert len(unfilled) == len(document.placeholders) > 0


def test_sentences_turn_with_the_numbers() -> None:
    entry = documentation.index_entry(
        parse("good.md", GOOD), TEMPLATE, names={"other.md"}, results=MEASURED, words=4
    )
    good = documentation.findings(documentation.summarise([entry]))
    broken = documentation.findings(
        documentation.summarise([{**entry, "problems": ["x"], "filled": 0}])
    )
    assert "follows the template: 0 problems" in good[0] and "1 of 1 placeholders" in good[1]
    assert "BREAKS the template: 1 problem in" in broken[0] and "0 of 1 placeholders" in broken[1]


def test_the_caption_names_the_longest_section() -> None:
    def caption(idea: int, sources: int) -> str:
        source = f"# T\n\n## Idea\n\n{'w ' * idea}\n\n## Sources\n\n{'w ' * sources}\n"
        return documentation.figure([parse("a.md", source)]).caption

    assert caption(9, 3) == "'Idea' is the longest section: 9 of 12 words."
    assert caption(2, 3) == "'Sources' is the longest section: 3 of 5 words."
