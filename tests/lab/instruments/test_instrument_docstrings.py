"""python-docstrings: what is taken from a source tree, and what is not."""

import pytest

from lab.instruments import docstrings

SOURCE = '''
import this_module_does_not_exist
raise SystemExit("a module that is imported would end here")

def double(x: int, *, by: float = 2) -> int:
    """Twice x.

    More."""

def _private():
    """Not shown."""

def bare():
    pass

class Shape:
    """A shape."""
    def area(self, unit="m"):
        """Area in unit."""
        def inner():
            """Not shown either."""
    @classmethod
    def make(cls):
        """Area   in  UNIT."""

class _Hidden:
    def method(self):
        """Nor this."""

if True:
    async def late(*args, **kw): "Comes late."
'''


def tree(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_public_functions_with_their_first_line(tmp_path):
    pairs = docstrings.pairs(tree(tmp_path, {"geo/shapes.py": SOURCE}))
    assert [(p.module, p.package, p.signature, p.summary) for p in pairs] == [
        ("geo.shapes", "geo", "double(x, *, by=2)", "Twice x."),
        ("geo.shapes", "geo", "Shape.area(unit='m')", "Area in unit."),
        ("geo.shapes", "geo", "late(*args, **kw)", "Comes late."),
    ]


def test_a_summary_is_taken_once_from_the_first_path(tmp_path):
    one = 'def {}():\n    """Same words."""\n'
    files = {
        "b.py": one.format("second"),
        "a/__init__.py": one.format("first"),
        "c.py": one.format("third"),
    }
    assert [(p.module, p.signature) for p in docstrings.pairs(tree(tmp_path, files))] == [
        ("a", "first()")
    ]


def test_tests_and_vendored_trees_are_left_out(tmp_path):
    one = 'def f():\n    """{}"""\n'
    folders = ("test", "site-packages", "tkinter", "geo")
    files = {f"{name}/x.py": one.format(name) for name in folders}
    assert [p.summary for p in docstrings.pairs(tree(tmp_path, files))] == ["geo"]


def test_what_is_not_python_is_passed_over(tmp_path):
    files = {"bad.py": "def f(:\n", "good.py": 'def f():\n    """Fine."""\n'}
    assert [p.summary for p in docstrings.pairs(tree(tmp_path, files))] == ["Fine."]


def test_the_standard_library_gives_thousands_without_repeats():
    pairs = docstrings.pairs()
    assert len(pairs) > 2000
    words = [" ".join(p.summary.casefold().split()) for p in pairs]
    assert len(set(words)) == len(words)
    assert all("\n" not in p.summary and p.summary for p in pairs)


@pytest.mark.soak
def test_the_standard_library_gives_the_same_pairs_again():
    assert docstrings.pairs() == docstrings.pairs()
