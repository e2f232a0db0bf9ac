"""Labels of a function whose labels are known, and functions drawn from a small library."""

from __future__ import annotations

from collections import Counter

import pytest

from lab.contract import ContractError
from lab.representation_analysis.probe_measured import CLASSES, PART, STRING, ProbePlan
from lab.representation_analysis.probe_texts import labelled_tokens, sources

SOURCE = '''
class Box:
    @staticmethod
    def put(item, *rest, size: int = len("a:b"), key=lambda v: v) -> "Box":  # a: comment
        """Put "it" in."""
        text = f"{size!r} x"  # no "string"
        return text
'''
PLAN = ProbePlan(
    train=6,
    validation=2,
    test=4,
    tokens=40,
    signature=30,
    per_package=2,
    ridge=0.03,
    random_depths=2,
)


def of_class(text, classes, place):
    """Return the characters of a class, those of other classes as blanks."""
    return "".join(a if c == place else " " for a, c in zip(text, classes, strict=True)).split()


@pytest.fixture
def source(tmp_path):
    (tmp_path / "box.py").write_text(SOURCE)
    (found,) = sources(tmp_path / "box.py", "box")
    return found


def test_a_function_is_named_and_begins_with_def(source):
    assert (source.module, source.name) == ("box", "Box.put")
    assert source.text.startswith("def put(item")
    assert "\n    text =" in source.text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("name", ["put"]),
        ("parameter", ["item", "rest", "size", "key"]),
        ("value", ["int", 'len("a:b")', "lambda", "v:", "v", '"Box"']),
        ("punctuation", ["def", "(", ",", "*", ",", ":", "=", ",", "=", ")", "->", ":"]),
    ],
)
def test_parts_of_a_signature(source, name, expected):
    assert of_class(source.text, source.part, CLASSES[PART].index(name)) == expected


def test_the_body_begins_behind_the_colon(source):
    assert source.text[: source.signature_end].endswith('"Box":')


def test_strings_have_their_quotes_and_comments_are_code(source):
    inside = of_class(source.text, source.string, CLASSES[STRING].index("string"))
    assert inside == ['"a:b"', '"Box"', '"""Put', '"it"', 'in."""', 'f"{size!r}', 'x"']


def test_a_file_whose_lines_are_counted_in_two_ways_is_left_out(tmp_path):
    (tmp_path / "box.py").write_text(f"# a form feed: \f\n{SOURCE}")
    assert list(sources(tmp_path / "box.py", "box")) == []


def library(folder, packages=8):
    """Write packages of three functions each; in each two have the same first tokens."""
    for package in range(packages):
        texts = []
        for number in (0, 1, 1):
            body = f"    return 'package {package} number {number} of several'\n"
            texts.append(f"def f{package}{number}(a, b=1):\n{body}    # {len(texts)}\n")
        (folder / f"m{package}.py").write_text("".join(texts) + "def no_default(a):\n    pass\n")
    (folder / "test").mkdir()
    (folder / "test" / "m.py").write_text(texts[0])


def test_functions_are_split_by_package_and_no_two_are_alike(tmp_path, tiny):
    library(tmp_path)
    drawn = labelled_tokens(tiny.tokenizer, PLAN, 0, tmp_path)
    assert Counter(function.split for function in drawn.functions) == {
        "train": 6,
        "validation": 2,
        "test": 4,
    }
    splits = {}
    for function in drawn.functions:
        splits.setdefault(function.module, set()).add(function.split)
    assert all(len(own) == 1 for own in splits.values())
    assert "test" not in splits
    assert len({tuple(row) for row in drawn.ids.tolist()}) == len(drawn.ids)
    assert drawn.ids.shape == drawn.labels[PART].shape == drawn.labels[STRING].shape == (12, 40)


def test_another_seed_draws_other_functions(tmp_path, tiny):
    library(tmp_path)
    first, same, other = (
        labelled_tokens(tiny.tokenizer, PLAN, seed, tmp_path) for seed in (0, 0, 1)
    )
    assert first.functions == same.functions
    assert first.functions != other.functions


def test_labels_are_those_of_the_characters(tmp_path, tiny):
    """The tokenizer is one of bytes, so that each token is a character."""
    library(tmp_path)
    drawn = labelled_tokens(tiny.tokenizer, PLAN, 0, tmp_path)
    text = tiny.tokenizer.decode(drawn.ids[0])
    part = drawn.labels[PART][0]
    assert of_class(text, part, CLASSES[PART].index("parameter")) == ["a", "b"]
    assert of_class(text, part, CLASSES[PART].index("value")) == ["1"]


def test_a_library_that_is_too_small_is_refused(tmp_path, tiny):
    library(tmp_path, packages=3)
    with pytest.raises(ContractError, match="has 6 functions for the probes; expected 12"):
        labelled_tokens(tiny.tokenizer, PLAN, 0, tmp_path)
