"""The plan: every problem at once, each with its location, the value got and the one expected."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from toy import toy_plan

from phases.base import strict_json
from phases.errors import InvalidPlanError
from phases.plan.load import load_plan, module_file, parse_plan


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder with every file that `plan` refers to."""
    for path in (
        "gates/test_count.py",
        "gates/test_exit.py",
        "lab/__init__.py",
        "lab/count.py",
        "lab/config.yaml",
        "lab/talk/__main__.py",
        "docs/a.md",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    (tmp_path / "prd").mkdir()
    return tmp_path


def plan(**feature: Any) -> dict[str, Any]:
    """Return a valid plan of two phases with two features each; `feature` changes the first."""
    document = copy.deepcopy(toy_plan(phases=2))
    document["inputs"] = [
        {"name": "texts", "path": "docs"},
        {"name": "model", "path": "$PHASES_CACHE/model", "sha256": {"w.bin": "0" * 64}},
    ]
    document["phases"][0]["features"][0].update(feature)
    return document


def module(**changes: Any) -> dict[str, Any]:
    """Return the fields of a feature that runs a module."""
    return {"command": None, "module": "lab.count", "config": "lab/config.yaml", **changes}


def problems(root: Path, document: Any) -> list[str]:
    """Return the problems that `load_plan` reports; empty if the plan is valid."""
    if not isinstance(document, str):
        document = json.dumps(document)
    (root / "prd/plan.json").write_text(document)
    try:
        load_plan(root)
    except InvalidPlanError as error:
        assert error.exit_code == 2
        assert all(problem in str(error) for problem in error.problems)
        return error.problems
    return []


def test_a_valid_plan_is_loaded_and_round_trips(root: Path) -> None:
    document = plan(
        **module(
            inputs=["texts", "model"], publish={"note.md": "docs/note.md"}, seed=3, timeout_s=5
        )
    )
    document["phases"][0]["features"][0].pop("command")
    assert problems(root, document) == []
    loaded = load_plan(root)
    assert parse_plan(loaded.model_dump_json(by_alias=True).encode()) == loaded
    assert loaded.phase(2).features[0].id == "TOY-003"
    assert loaded.feature("TOY-004") == (loaded.phase(2), loaded.phase(2).features[1])
    assert loaded.input("model").is_cached
    assert not loaded.input("texts").is_cached
    for missing in (
        lambda: loaded.phase(9),
        lambda: loaded.feature("X"),
        lambda: loaded.input("x"),
    ):
        with pytest.raises(KeyError):
            missing()


FIRST = "phases[0].features[0]"
INVALID = [
    # The change of the first feature, the problem's beginning, what it also contains.
    ({"id": "-x"}, f"{FIRST}.id: got '-x'", "pattern"),
    ({"id": "a/b"}, f"{FIRST}.id: got 'a/b'", "pattern"),
    ({"id": "A" * 65}, f"{FIRST}.id: got ", "pattern"),
    ({"id": 7}, f"{FIRST}.id: got 7", "string"),
    ({"id": "TOY-002"}, "features: got 'TOY-002' 2 times", "each id once"),
    (
        {"title": "two\nlines"},
        f"{FIRST}.title: got 'two\\nlines'",
        "U+000A control character at position 4",
    ),
    ({"colour": "red"}, f"{FIRST}.colour: got 'red'", "Extra inputs are not permitted"),
    ({"command": None}, f"{FIRST}: got ", "exactly one of module and command"),
    (module(command="true"), f"{FIRST}: got ", "exactly one of module and command"),
    (module(config=None), f"{FIRST}: got ", "a module needs a config"),
    (module(module="lab.gone"), f"{FIRST}.module: got 'lab.gone'", "lab/gone.py"),
    (module(module="lab/count.py"), f"{FIRST}.module: got 'lab/count.py'", "pattern"),
    (module(config="lab/gone.yaml"), f"{FIRST}.config: got 'lab/gone.yaml'", "no such file"),
    (module(config="../x.yaml"), f"{FIRST}.config: got '../x.yaml'", "inside the repository"),
    ({"outputs": []}, f"{FIRST}.outputs: got []", "at least 1"),
    ({"outputs": ["/etc/passwd"]}, f"{FIRST}.outputs: got '/etc/passwd'", "inside the repository"),
    ({"outputs": ["a/../../b"]}, f"{FIRST}.outputs: got 'a/../../b'", "inside the repository"),
    ({"outputs": ["~/x"]}, f"{FIRST}.outputs: got '~/x'", "inside the repository"),
    ({"outputs": [".git/config"]}, f"{FIRST}.outputs: got '.git/config'", "inside the repository"),
    ({"publish": {"note.md": "note.md"}}, f"{FIRST}.publish: got 'note.md'", "below docs/"),
    (
        {"publish": {"note.md": "docs/../x"}},
        f"{FIRST}.publish: got 'docs/../x'",
        "inside the repository",
    ),
    ({"inputs": ["nothing"]}, f"{FIRST}.inputs: got 'nothing'", "model, texts"),
    ({"needs": ["TOY-009"]}, f"{FIRST}.needs: got 'TOY-009'", "this or an earlier phase"),
    ({"needs": ["TOY-003"]}, f"{FIRST}.needs: got 'TOY-003'", "this or an earlier phase"),
    ({"needs": ["TOY-001"]}, "phases[0].features: needs form a circle", "TOY-001"),
    ({"gate": {}}, f"{FIRST}.gate: got {{}}", "exactly one of"),
    (
        {"gate": {"pytest": "gates/test_count.py", "shell": "true"}},
        f"{FIRST}.gate: got ",
        "exactly one of",
    ),
    (
        {"gate": {"pytest": "gates/test_gone.py"}},
        f"{FIRST}.gate.pytest: got 'gates/test_gone.py'",
        "no such file",
    ),
    (
        {"gate": {"pytest": "lab/count.py"}},
        f"{FIRST}.gate.pytest: got 'lab/count.py'",
        "gates/test_NAME.py",
    ),
    (
        {"gate": {"pytest": "gates/../lab/test_x.py"}},
        f"{FIRST}.gate.pytest: got ",
        "gates/test_NAME.py",
    ),
    ({"exempt": ["everything"]}, f"{FIRST}.exempt[0]: got 'everything'", "object"),
    ({"exempt": [{"files": "*.md"}]}, f"{FIRST}.exempt[0].reason: got ", "required"),
    (
        {"exempt": [{"files": "../*", "reason": "x"}]},
        f"{FIRST}.exempt: got '../*'",
        "inside the repository",
    ),
    ({"timeout_s": 0}, f"{FIRST}.timeout_s: got 0", "greater than 0"),
    ({"timeout_s": "60"}, f"{FIRST}.timeout_s: got '60'", "number"),
    ({"seed": -1}, f"{FIRST}.seed: got -1", "greater than or equal to 0"),
    ({"seed": 1.5}, f"{FIRST}.seed: got 1.5", "integer"),
    ({"expect": {"minutes": 1}}, f"{FIRST}.expect.memory_gb: got ", "required"),
    ({"profile": "Big One"}, f"{FIRST}.profile: got 'Big One'", "pattern"),
]


@pytest.mark.parametrize(("change", "begin", "detail"), INVALID)
def test_a_problem_names_its_location_the_value_got_and_the_value_expected(
    root: Path, change: dict[str, Any], begin: str, detail: str
) -> None:
    assert problems(root, plan()) == []  # the control
    matching = [problem for problem in problems(root, plan(**change)) if problem.startswith(begin)]
    assert matching
    assert detail in matching[0]


def prediction(**change: Any) -> dict[str, Any]:
    fields = {"id": "p", "claim": "it is so", "measurement": "m", "comparator": "==", "value": 1}
    return {"predictions": [fields | change]}


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"comparator": "~"}, "Input should be"),
        ({"comparator": "within"}, "[low, high]"),
        ({"value": [0, 1]}, "[low, high]"),
        ({"comparator": "within", "value": [2, 1]}, "low <= high"),
        ({"comparator": "<", "value": "high"}, "== or != for text"),
        ({"value": None}, ""),
        ({"id": "Best LR"}, "pattern"),
    ],
)
def test_predictions_must_be_ones_that_can_be_scored(
    root: Path, change: dict[str, Any], detail: str
) -> None:
    for valid in (
        {},
        {"value": True},
        {"value": "adamw"},
        {"comparator": "within", "value": [1, 2.5]},
    ):
        assert problems(root, plan(**prediction(**valid))) == []
    lines = problems(root, plan(**prediction(**change)))
    assert any(f"{FIRST}.predictions[0]" in line and detail in line for line in lines)


def test_every_problem_is_reported_at_once(root: Path) -> None:
    document = plan(
        inputs=["nothing"],
        needs=["TOY-004"],
        outputs=["../x"],
        gate={"pytest": "gates/test_gone.py"},
    )
    document["phases"][1]["id"] = 3
    document["phases"][1]["features"][1]["id"] = "TOY-002"
    document["inputs"][0]["path"] = "gone"
    document["inputs"][1]["sha256"] = {}
    lines = problems(root, document)
    for begin in (
        "features: got 'TOY-002' 2 times",
        "phases[1].id: got 3; expected 2",
        f"{FIRST}.inputs: ",
        f"{FIRST}.needs: ",
        f"{FIRST}.outputs: ",
        f"{FIRST}.gate.pytest: ",
        "inputs[0].path: got 'gone'",
        "inputs[1].sha256: got none",
    ):
        assert sum(line.startswith(begin) for line in lines) == 1, begin
    assert len(lines) == 8
    document["phases"][0]["features"][0] |= {"id": 1, "title": 2, "colour": 3}
    document["project"] = ""
    assert len(problems(root, document)) == 4  # the schema's own problems come first, all of them


def test_a_circle_over_several_features_is_named(root: Path) -> None:
    document = plan(needs=["TOY-002"])
    document["phases"][0]["features"][1]["needs"] = ["TOY-001"]
    assert problems(root, document) == [
        "phases[0].features: needs form a circle among TOY-001, TOY-002"
    ]
    document["phases"][0]["features"][1]["needs"] = []
    assert problems(root, document) == []


@pytest.mark.parametrize(
    ("path", "sha256", "detail"),
    [
        ("$PHASES_CACHE/../x", {"a": "0" * 64}, "inside the repository"),
        ("/etc", {}, "inside the repository"),
        ("docs", {"a.md": "0" * 64}, "git names its content"),
        ("$PHASES_CACHE/x", {"a": "0" * 63}, "pattern"),
        ("$PHASES_CACHE/x", {}, "digests of the input's files"),
    ],
)
def test_inputs_are_pinned_or_tracked(
    root: Path, path: str, sha256: dict[str, str], detail: str
) -> None:
    document = plan()
    document["inputs"][0] = {"name": "texts", "path": path, "sha256": sha256}
    lines = problems(root, document)
    assert any(line.startswith("inputs[0].") and detail in line for line in lines), lines


def test_a_module_may_be_a_package_that_can_be_run(root: Path) -> None:
    assert problems(root, plan(**module(module="lab.talk"))) == []
    assert module_file(root, "lab.talk") == root / "lab/talk/__main__.py"
    assert module_file(root, "lab") is None


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ('{"schema": 1, "schema": 1}', "duplicate key"),
        ('{"schema": NaN}', "NaN is not a number of JSON"),
        ('{"a": 1e999}', "too large"),
        ("{", "line 1, column 2"),
        ("", "line 1, column 1"),
        ("\x00", "line 1"),
        ("[" * 200, "nested deeper than 32"),
        ('"' + "x" * (1 << 20) + '"', "at most 1048576"),
        ('{"schema": 2}', "schema: got 2"),
        ("[]", "the document: got []"),
        ('{"schema": true}', "schema: got True"),
        ('{"schema": 1.0}', "schema: got 1.0"),
    ],
)
def test_what_is_no_plan_at_all(root: Path, text: str, detail: str) -> None:
    assert any(detail in line for line in problems(root, text))


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (os.mkfifo, "a FIFO"),
        (Path.mkdir, "a folder"),
        (lambda path: path.symlink_to(path.name), "a link that leads to no file"),
        (lambda path: path.symlink_to("nothing"), "a link that leads to no file"),
    ],
)
def test_a_plan_that_is_no_regular_file(
    root: Path, make: Callable[[Path], None], kind: str
) -> None:
    make(root / "prd/plan.json")
    with pytest.raises(InvalidPlanError, match=f"got {kind}; expected a regular file"):
        load_plan(root)


def test_not_utf8_and_no_or_two_plans(root: Path) -> None:
    (root / "prd/plan.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidPlanError, match="not UTF-8"):
        load_plan(root)
    (root / "prd/second.json").write_text("{}")
    with pytest.raises(
        InvalidPlanError, match=r"got plan\.json, second\.json; expected exactly one"
    ):
        load_plan(root)
    for path in (root / "prd").glob("*.json"):
        path.unlink()
    with pytest.raises(InvalidPlanError, match=r"got no \*\.json file; expected exactly one"):
        load_plan(root)


#### any JSON at all

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


Location = tuple[str | int, ...]
"""Keys and indices that lead to a value of a document."""


def locations(node: Any, location: Location = ()) -> list[Location]:
    """Return every location below a node, its own included."""
    members: Iterable[tuple[str | int, Any]] = ()
    if isinstance(node, dict):
        members = node.items()
    elif isinstance(node, list):
        members = enumerate(node)
    result = [location]
    for key, value in members:
        result += locations(value, (*location, key))
    return result


def replace(document: Any, location: Location, value: Any) -> Any:
    """Return the document with another value at one location."""
    if not location:
        return value
    key, *rest = location
    result = copy.copy(document)
    result[key] = replace(document[key], tuple(rest), value)
    return result


@given(data=st.data(), value=JSON)
@settings(deadline=None, max_examples=200)
def test_any_value_at_any_location_is_accepted_or_refused_in_words(
    data: st.DataObject, value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.getbasetemp() / "any-json"
    (root / "prd").mkdir(parents=True, exist_ok=True)
    document = plan(**prediction())
    location = data.draw(st.sampled_from(locations(document)))
    for problem in problems(root, replace(document, location, value)):
        assert problem.strip()
        assert len(problem) < 10_000


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@settings(deadline=None)
def test_any_bytes_are_refused_in_words(data: bytes) -> None:
    with pytest.raises((ValidationError, strict_json.StrictJsonError)):
        parse_plan(data)


#### case I-48: variables that reach the gate

RESERVED = (
    "PYTEST_ADDOPTS",
    "PYTEST_PLUGINS",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "DYLD_INSERT_LIBRARIES",
    "GIT_DIR",
    "PHASES_OUT",
    "HOME",
    "PATH",
    "TMPDIR",
    "BASH_ENV",
    "ENV",
)


@pytest.mark.parametrize("name", RESERVED)
def test_i_48_a_plan_cannot_set_what_decides_a_gate(root: Path, name: str) -> None:
    document = toy_plan(env={name: "x", "OMP_NUM_THREADS": "2", "MY_PATH": "x", "PHASE": "1"})
    [problem] = problems(root, document)
    assert problem.startswith(f"defaults.env: got {name}; expected none that decides")
