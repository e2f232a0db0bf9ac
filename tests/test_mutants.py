"""What is changed in a file to make its mutants, and what is left as it is."""

from __future__ import annotations

import pytest


def changed_lines(code: str) -> set[str]:
    """Return the lines that some mutant has and the file has not."""
    from tests.mutation.mutants import make_mutants

    lines = set()
    for mutant in make_mutants("a.py", code):
        lines |= set(mutant.code.splitlines()) - set(code.splitlines())
    return lines


def test_comparisons_numbers_strings_and_arguments_are_changed() -> None:
    code = 'def f(a):\n    return g(a > 1, "x")\n'
    assert changed_lines(code) == {
        '    return g(a >= 1, "x")',
        '    return g(a > 2, "x")',
        '    return g(a > 1, "XXxXX")',
        '    return g(a > 1, "X")',
        '    return g(None, "x")',
        "    return g(a > 1, None)",
        '    return g("x")',
        "    return g(a > 1, )",
    }


@pytest.mark.parametrize(
    "code",
    [
        "import a",
        'def f(a: str = b, *, c: "d") -> "e":\n    """Do it."""\n    return a',
        "@dataclass(frozen=True)\nclass A:\n    a: int",
        'raise A("there is no b here")',
        'raise A(f"got {b[:12]}; expected {c[:12]} there")',
        'a("there is no b "\n  f"in {c[:12]}")',
        "len(a, 1)",
    ],
)
def test_what_no_test_should_notice_is_left(code: str) -> None:
    lines = changed_lines(f"{code}\n")
    # A whole argument may still be left out, so that there is no message at all.
    assert all("None" in line or "()" in line for line in lines), lines


def test_a_mutant_names_its_line_and_its_function() -> None:
    from tests.mutation.mutants import make_mutants

    method = "    @property\n    def c(self):\n        def d():\n            return 2\n"
    code = f"A = 1\n\n\nclass B:\n{method}"
    found = {(mutant.line, mutant.function) for mutant in make_mutants("a.py", code)}
    assert found == {(1, None), (8, "B.c")}
