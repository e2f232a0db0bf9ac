"""Experiment and gate read with different code; on what users write they must read the same."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gates.questions import question_log as judged_log
from gates.shared import documents
from lab import present
from lab.documentation.markdown import parse
from lab.questions import question_log
from lab.result import Measurement

ROOT = Path(__file__).resolve().parents[2]
lines = st.sampled_from(
    [
        "# Title", "## Idea", "## Sources", "### Deeper", "some words of text", "",
        "- [Key] Who, 2023. https://a.org/b",
        "- [Other-2] Who. https://a.org", "as [Key] says",
        "see [here](#idea) and [Key](https://a.org/x)",
        "it fell to {{FEAT-001.loss}}, {{FEAT-002.eval_loss}}",
        "`[Code] {{FEAT-9.x}} [a](b)` stays", "| a | [Key] |",
        "```\n# no title\n[no](link) [Nobody] {{FEAT-3.no}}\n```",
        "~~~text\n## no section\n```\n~~~",
        "#hashtag", "[lower] case", "```\nnever closed",
    ]
)  # fmt: skip


def spaced(texts: dict[str, str]) -> dict[str, list[str]]:
    return {key: text.split() for key, text in texts.items()}


@given(st.lists(lines, max_size=25).map("\n".join))
def test_concept_documents_are_read_alike(source: str) -> None:
    ours, theirs = parse("a.md", source), documents.read("a.md", source)
    assert ours.title == theirs.title
    assert list(ours.sections) == list(theirs.sections)
    assert list(ours.links) == documents.links(theirs)
    assert list(ours.citations) == documents.citations(theirs)
    assert ours.sources == documents.sources(theirs)
    names = [(item.feature, item.measurement) for item in ours.placeholders]
    assert names == documents.placeholders(theirs)


def test_the_shipped_documents_are_read_alike_to_the_word() -> None:
    for path in (ROOT / "docs/concepts").glob("*.md"):
        source = path.read_text("utf-8")
        ours, theirs = parse(path.name, source), documents.read(path.name, source)
        assert ours.title == theirs.title
        assert list(ours.sections) == list(theirs.sections)
        assert spaced(ours.sources) == spaced(documents.sources(theirs))
        if path.name == "TEMPLATE.md":
            # Its text is instructions in HTML comments, where only the gate's reader finds
            # citations and code. Neither judges more of the template than its sections.
            continue
        assert list(ours.citations) == documents.citations(theirs)
        for name, text in ours.sections.items():
            assert text.split() == " ".join(theirs.sections[name]).split()


@given(
    st.lists(
        st.sampled_from(
            ["# Questions", "## Track", "### Q-001 · Why?", "### Q-002 · Which · one?", "### Note",
             "- status: OPEN", "- why: so: and so", "- experiments: FEAT-001, FEAT-002",
             "- `OPEN`: nobody", "text", "", "- loose"]
        ),
        max_size=25,
    ).map("\n".join)
)  # fmt: skip
def test_questions_logs_are_read_alike(text: str) -> None:
    ours, theirs = question_log.parse(text), judged_log.read(text)
    assert [(q.id, q.text, list(q.fields)) for q in ours] == [
        (q["id"], q["text"], q["fields"]) for q in theirs
    ]
    assert [list(q.experiments) for q in ours] == [judged_log.tags(q) for q in theirs]


@pytest.mark.parametrize(
    ("text", "value", "right"),
    [
        ("2.607 ± 0.081 nats/token (n = 256)", 2.6071, True),
        ("2.607 ± 0.081 nats/token", 2.74, False),
        ("134,515,008 parameters", 134515008, True), ("134,515,008", 134.5, False),
        ("1.000e-05", 1e-5, True), ("-0.5000", 0.5, False), ("0", 0.0, True), ("0", 0.01, False),
        ("yes", True, True), ("yes", False, False), ("nf4", "nf4", True), ("fp4", "nf4", False),
        ("not measured", None, True), ("(not measured: F.m)", 1.0, False),
    ],
)  # fmt: skip
def test_a_shown_number_is_held_against_the_measured_one(
    *, text: str, value: object, right: bool
) -> None:
    assert documents.shows(text, value) is right


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        (1023, "bytes"),
        (1_456_496_640, "bytes"),
        (123_456, "bytes"),
        (5 << 21, "bytes"),
        (119.5, "s"),
        (441.2, "s"),
        (2.607, "nats/token"),
        (0.25, ""),
    ],
)
def test_the_report_and_the_gate_agree_on_units(value: float, unit: str) -> None:
    text = present.quantity(Measurement.of_estimate(value, unit, stderr=value / 50, n=2000))
    assert documents.shows(text, value, unit)
    assert not documents.shows(text, value * 1.02, unit)


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("1.000 MiB", 1.0, "bytes"),
        ("1.000 MiB", 2**20, "nats"),
        ("1.000 MiBs", 2**20, "bytes"),
        ("3.000 min", 3.0, "s"),
        ("1.000 nats, of 2 MiB", 2**20, "bytes"),
    ],
)
def test_a_unit_changes_a_value_only_where_it_is_its_own(
    text: str, value: float, unit: str
) -> None:
    assert not documents.shows(text, value, unit)
