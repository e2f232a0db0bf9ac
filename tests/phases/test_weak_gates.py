"""`plan` names the gates that cannot judge anything, and never an honest one."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy import (
    EXIT_GATE,
    GATE,
    SHELL_EXIT_GATE,
    SHELL_GATE,
    Toy,
    toy_plan,
    with_shell_gates,
)

from phases.plan.load import load_plan
from phases.plan.weak_gates import find_weak_gates
from phases.plan.weak_pytest import NO_ASSERTION, NO_CHECK, NO_NUMBER, pytest_weakness
from phases.plan.weak_shell import (
    ALWAYS_SUCCEEDS,
    HIDES_FAILURES,
    ONLY_EXISTENCE,
    shell_weakness,
)

ROOT = Path(__file__).resolve().parents[2]

#### shell commands

WEAK_COMMANDS = {
    # always succeeds
    "true": ALWAYS_SUCCEEDS,
    ":": ALWAYS_SUCCEEDS,
    "exit 0": ALWAYS_SUCCEEDS,
    "true;": ALWAYS_SUCCEEDS,
    "echo 'python check.py && fine'": ALWAYS_SUCCEEDS,
    'echo "judged $PHASES_OUT" > /dev/null': ALWAYS_SUCCEEDS,
    "echo a; true && :": ALWAYS_SUCCEEDS,
    'echo "$(python check.py)"': ALWAYS_SUCCEEDS,
    # looks only whether files exist
    "test -f x": ONLY_EXISTENCE,
    "test ! -e x": ONLY_EXISTENCE,
    "test -d artifacts -a -s artifacts/x.json": ONLY_EXISTENCE,
    "[ -s x ]": ONLY_EXISTENCE,
    '[ -s "$PHASES_OUT/result.json" ]': ONLY_EXISTENCE,
    "[[ -e ${PHASES_OUT}/x ]]": ONLY_EXISTENCE,
    "ls x": ONLY_EXISTENCE,
    "ls 'a b' >/dev/null 2>&1": ONLY_EXISTENCE,
    "stat result.json": ONLY_EXISTENCE,
    "cat result.json > /dev/null": ONLY_EXISTENCE,
    'test -n "$(ls artifacts)"': ONLY_EXISTENCE,
    '[ -n "$(ls -A $PHASES_OUT)" ]': ONLY_EXISTENCE,
    "cd artifacts && test -f x && [ -s y ]": ONLY_EXISTENCE,
    "test -f x || test -f y": ONLY_EXISTENCE,
    "test -f x; test -f y": ONLY_EXISTENCE,
    "[ -s x ] && echo ok": ONLY_EXISTENCE,
    "python check.py; test -f x": ONLY_EXISTENCE,
    # hides failures
    "python check.py || true": HIDES_FAILURES,
    "python check.py||:": HIDES_FAILURES,
    "python check.py > log.txt || echo 'it failed'": HIDES_FAILURES,
    "python check.py; true": HIDES_FAILURES,
    "python check.py ; exit 0": HIDES_FAILURES,
    "python check.py && python more.py || exit 0": HIDES_FAILURES,
    "python check.py; echo done": HIDES_FAILURES,
    "python check.py 2>&1 | cat": HIDES_FAILURES,
    "grep -q '; exit 1' x || true": HIDES_FAILURES,
    "test -f x || true": HIDES_FAILURES,
    "test $(cat n) -gt 3 || true": HIDES_FAILURES,
    f"{SHELL_GATE} || true": HIDES_FAILURES,
}

HONEST_COMMANDS = [
    SHELL_GATE,
    SHELL_EXIT_GATE,
    "python check.py",
    "python check.py && echo ok",
    "test -f x && python check.py",
    "ls x && grep -q 42 x",
    "true || false | python check.py && diff a b",
    "grep -q 42 out.txt",
    "grep -q 'x || true' out.txt",
    'grep -q "; true" out.txt',
    r"grep -q \; true",
    "grep -qF '|| true' \"a b\" && diff a b",
    "python check.py '||' true",
    "python check.py # || true",
    "python check.py \\|\\| true",
    'test "$(wc -l < a)" = 5',
    'test -n "$(grep 42 a)"',
    'test "$(ls | wc -l; true)" = 5',
    "true '$(' ; python check.py ')'",
    "true '\"' ; python check.py '\"'",
    "$(python check.py)",
    "test $(cat n) -gt 3",
    "test 3 -gt $N",
    "test x -nt y",
    "test -f x -a 3 -gt $N",
    '[ "$(ls artifacts | wc -l)" -eq 3 ]',
    "[ -s x ] && [ $N = 3 ]",
    "sha256sum -c digests",
    "diff a b",
    "cat n | python check.py",
    "echo 42 | diff - n",
    "set -e; python check.py; echo ok",
    "python check.py || exit 1; echo ok",
    "python check.py && exit 0; exit 1",
    "python check.py; exit",
    "python check.py; exit $?",
    "trap 'exit 1' EXIT; true",
    "exec python check.py; true",
    "for f in *; do grep -q 42 $f || exit 1; done; true",
    "if grep -q 42 x; then true; else false; fi",
    "if python check.py; then exit 0; fi; exit 1",
    "! grep -q error log.txt",
    "(python check.py)",
    "{ python check.py; }",
    "python check.py || { echo failed; exit 1; }",
    # not understood
    "",
    "   ",
    ";",
    "true &&",
    "|| true",
    "true & python check.py",
    "echo 'a",
    'echo "$(cat "a")"',
    "echo $((1 + 1))",
    "echo `python check.py`",
    "true > $PHASES_OUT/x",
    "true <<< x",
]


@pytest.mark.parametrize("command", WEAK_COMMANDS)
def test_a_weak_command_is_named(command: str) -> None:
    assert shell_weakness(command) == WEAK_COMMANDS[command]


@pytest.mark.parametrize("command", HONEST_COMMANDS)
def test_an_honest_command_is_not_named(command: str) -> None:
    assert shell_weakness(command) is None


SIMPLE_COMMANDS = st.sampled_from(
    ["true", "exit 0", "exit 1", "test -f x", "[ $A = 1 ]", '[ "|| true" = "$B" ]', "echo '; true'"]
)
OPERATORS = st.sampled_from([" && ", "||", "; ", " | "])


@given(SIMPLE_COMMANDS, st.lists(st.tuples(OPERATORS, SIMPLE_COMMANDS), max_size=4))
@settings(max_examples=40, deadline=None)
def test_a_real_shell_agrees(first: str, others: list[tuple[str, str]]) -> None:
    """Check that a command that is named succeeds whatever its honest parts find."""
    command = first + "".join(operator + simple for operator, simple in others)
    if shell_weakness(command) is None:
        return
    # Where it looks whether files exist, they do.
    command = command.replace("test -f x", "test -d /")
    for a, b in itertools.product(("0", "1"), ("0", "|| true")):
        environment = {"PATH": os.environ["PATH"], "A": a, "B": b}
        process = subprocess.run(
            ["/bin/sh", "-c", command], env=environment, capture_output=True, check=False
        )
        assert process.returncode == 0, f"{command} with A={a}, B={b}"


#### pytest files

IMPORTS = (
    "import json, os, pathlib, pytest, unittest\nOUT = pathlib.Path(os.environ['PHASES_OUT'])\n"
)

WEAK_FILES = {
    "empty": ("", NO_CHECK),
    "only a helper": ("def total():\n    assert json.loads('1') == 1", NO_CHECK),
    "pass": ("def test_a():\n    pass", NO_ASSERTION),
    "no assertion": ("def test_a():\n    json.loads((OUT / 'a').read_text())", NO_ASSERTION),
    "compares and forgets to assert": (
        "def test_a():\n    return float((OUT / 'a').read_text()) == 3",
        NO_ASSERTION,
    ),
    "assert True": ("def test_a():\n    assert True", NO_NUMBER),
    "exists": ("def test_a():\n    assert (OUT / 'result.json').exists()", NO_NUMBER),
    "exists, by os.path": ("def test_a():\n    assert os.path.isfile(OUT / 'a')", NO_NUMBER),
    "raises where none is": (
        "def test_a():\n    if not (OUT / 'a').is_file():\n        raise AssertionError('none')",
        NO_NUMBER,
    ),
    "fails where none is": (
        "def test_a():\n    if not (OUT / 'a').is_file():\n        pytest.fail('none')",
        NO_NUMBER,
    ),
    "size": ("def test_a():\n    assert (OUT / 'a').stat().st_size > 100", NO_NUMBER),
    "how many": ("def test_a():\n    assert len(list(OUT.iterdir())) == 3", NO_NUMBER),
    "names": ("def test_a():\n    assert {p.name for p in OUT.iterdir()} == {'a'}", NO_NUMBER),
    "a word": (
        "def test_a():\n    '''Check 1 word.'''\n"
        "    assert 'accuracy' in (OUT / 'a').read_text('utf-8')",
        NO_NUMBER,
    ),
    "words": (
        "def test_a():\n    text = (OUT / 'a').read_text()\n    assert len(text) > 10\n"
        "    assert 'accuracy' in text and 'loss' in text",
        NO_NUMBER,
    ),
    "parametrized": (
        "@pytest.mark.parametrize('name', ['a', 'b'])\n"
        "def test_a(name):\n    assert (OUT / name).exists()",
        NO_NUMBER,
    ),
    "class": ("class TestA:\n    def test_a(self):\n        assert OUT.exists()", NO_NUMBER),
    "unittest": (
        "class Checks(unittest.TestCase):\n"
        "    def test_a(self):\n        self.assertTrue((OUT / 'a').exists())",
        NO_NUMBER,
    ),
    "helper of the file": (
        "def files():\n    return list(OUT.glob('*.json'))\ndef test_a():\n    assert files()",
        NO_NUMBER,
    ),
    "helper of gates": (
        "from gates.shared import outputs\ndef test_a():\n    assert outputs.has('a')",
        NO_NUMBER,
    ),
    "fixture": (
        "@pytest.fixture\ndef path():\n    return OUT / 'a'\ndef test_a(path):\n"
        "    assert path.exists()",
        NO_NUMBER,
    ),
    "integrity only": (
        "from gates.shared.outputs import test_digests\ndef test_a():\n    assert OUT.exists()",
        NO_NUMBER,
    ),
    "number that no check reads": (
        "def total():\n    return json.loads((OUT / 'a').read_text())\n"
        "def test_a():\n    assert (OUT / 'a').exists()",
        NO_NUMBER,
    ),
}

HONEST_FILES = {
    "counts again": (
        "def test_a():\n    words = pathlib.Path(os.environ['PHASES_CACHE']).read_text().split()\n"
        "    assert (OUT / 'count.txt').read_text().strip() == str(len(words))"
    ),
    "looks for what it counted": (
        "def expected():\n    return str(sum(len(p.read_text()) for p in OUT.glob('*')))\n"
        "def test_a():\n    assert expected() in (OUT / 'count.txt').read_text()"
    ),
    "compares sets": (
        "def lines(name):\n    return set((OUT / name).read_text().splitlines())\n"
        "def test_a():\n    assert not lines('a') ^ lines('b')"
    ),
    "every line of its source": (
        "def test_a():\n    text = (OUT / 'sorted').read_text()\n"
        "    for line in open('source'):\n        assert line.strip() in text"
    ),
    "begins with what it counted": (
        "def test_a():\n    n = len(list(OUT.iterdir()))\n"
        "    assert (OUT / 'a').read_text().startswith(str(n))"
    ),
    "parses": "def test_a():\n    assert json.loads((OUT / 'a').read_text()) == [1]",
    "float": "def test_a():\n    assert float((OUT / 'a').read_text()) < 3",
    "one of two": (
        "def test_a():\n    assert OUT.exists()\n"
        "def test_b():\n    assert json.load(open(OUT / 'a'))['n'] == 3"
    ),
    "text": "def test_a():\n    assert (OUT / 'a').read_text() == 'three\\n'",
    "bytes": "def test_a():\n    assert (OUT / 'a').read_bytes() == (OUT / 'b').read_bytes()",
    "number as a word": "def test_a():\n    assert 'total: 14' in (OUT / 'a').read_text()",
    "numbers as words": (
        "LINES = ('total: 14', 'mean: 2')\ndef test_a():\n"
        "    text = (OUT / 'a').read_text()\n    assert all(line in text for line in LINES)"
    ),
    "regular expression": "import re\ndef test_a():\n    assert re.search('x', open('a').read())",
    "library": "def test_a():\n    import numpy as np\n    assert np.loadtxt(OUT / 'a').mean() < 1",
    "approx": "def test_a():\n    assert json.load(open('a')) == pytest.approx(3)",
    "program": (
        "import subprocess\n"
        "def test_a():\n    subprocess.run(['sha256sum', '-c', 'digests'], check=True)"
    ),
    "unknown assertion": "import x\ndef test_a():\n    x.assert_close(OUT / 'a')",
    "helper": "def n():\n    return json.load(open('a'))\ndef test_a():\n    assert n() == 1",
    "helper of gates": (
        "from gates.shared import outputs\ndef test_a():\n    assert outputs.number('a') == 3"
    ),
    "helper of a helper of gates": (
        "import gates.shared.more\ndef test_a():\n    assert gates.shared.more.twice('a') == 6"
    ),
    "assertion of gates": (
        "from gates.shared.outputs import assert_three\ndef test_a():\n    assert_three('a')"
    ),
    "check of gates": "from gates.shared.outputs import test_three",
    "check of gates, renamed": "from gates.shared.outputs import assert_three as test_four",
    "check from elsewhere": "from elsewhere import test_three",
    "every check of gates": "from gates.shared.outputs import *",
    "assigned check": "from gates.shared import outputs\ntest_a = outputs.test_three",
    "made check": "for name in 'ab':\n    globals()[f'test_{name}'] = lambda: 1 / 0",
    "conditional check": (
        "if OUT.exists():\n    def test_a():\n        assert json.load(open('a')) == 3"
    ),
    "fixture": (
        "@pytest.fixture\ndef total():\n    return json.load(open('a'))\n"
        "def test_a(total):\n    assert total == 3"
    ),
    "fixture of another name": (
        "@pytest.fixture(name='total')\ndef read_total():\n    return json.load(open('a'))\n"
        "def test_a(total):\n    assert total == 3"
    ),
    "automatic fixture": (
        "@pytest.fixture(autouse=True)\ndef check_total():\n    assert json.load(open('a')) == 3\n"
        "def test_a():\n    pass"
    ),
    "module": "TOTAL = json.load(open('a'))\ndef test_a():\n    assert TOTAL == 3",
    "unittest": (
        "class Checks(unittest.TestCase):\n"
        "    def setUp(self):\n        self.total = json.load(open('a'))\n"
        "    def test_a(self):\n        self.assertEqual(self.total, 3)"
    ),
    "class of gates": "from gates.shared import outputs\nclass TestA(outputs.Base):\n    pass",
    "property": (
        "from gates.shared import outputs\ndef test_a():\n    assert outputs.Result('a').total == 3"
    ),
    "decimals": "import decimal\ndef test_a():\n    assert decimal.Decimal(open('a').read()) > 3",
    "no Python": "def test_a(:",
    "null byte": "def test_a():\n    pass\0",
}

SHARED = """
import hashlib, json, os, pathlib
import pytest

def has(name):
    return (pathlib.Path(os.environ["PHASES_OUT"]) / name).exists()

def number(name):
    return json.loads(pathlib.Path(name).read_text())["number"]

def assert_three(name):
    assert number(name) == 3

def test_three():
    assert_three("a")

@pytest.mark.integrity
def test_digests():
    assert hashlib.sha256(b"").hexdigest() == number("digest")

class Base:
    def test_base(self):
        assert_three("a")

class Result:
    def __init__(self, name):
        self.name = name

    @property
    def total(self):
        return number(self.name)
"""
MORE = "from gates.shared import outputs\ndef twice(name):\n    return 2 * outputs.number(name)\n"


def weakness_of(root: Path, source: str) -> str | None:
    """Return the weakness of a gate file with this source, beside modules that gates share."""
    (root / "gates/shared").mkdir(parents=True, exist_ok=True)
    (root / "gates/shared/outputs.py").write_text(SHARED)
    (root / "gates/shared/more.py").write_text(MORE)
    (root / "gates/test_x.py").write_text(source)
    return pytest_weakness(root, "gates/test_x.py")


@pytest.mark.parametrize("name", WEAK_FILES)
def test_a_weak_file_is_named(name: str, tmp_path: Path) -> None:
    source, reason = WEAK_FILES[name]
    assert weakness_of(tmp_path, IMPORTS + source) == reason


@pytest.mark.parametrize("name", HONEST_FILES)
def test_an_honest_file_is_not_named(name: str, tmp_path: Path) -> None:
    assert weakness_of(tmp_path, IMPORTS + HONEST_FILES[name]) is None


def test_the_gates_of_the_toys_are_honest(tmp_path: Path) -> None:
    assert weakness_of(tmp_path, GATE) is None
    assert weakness_of(tmp_path, EXIT_GATE) is None


def test_a_gate_of_the_toys_without_its_numbers_is_weak(tmp_path: Path) -> None:
    integrity = GATE[GATE.index("@pytest.mark.integrity") :]
    helpers = GATE[: GATE.index("def test_total")]
    assert weakness_of(tmp_path, helpers + integrity) == NO_NUMBER


def test_every_gate_of_this_repository_is_honest() -> None:
    plan = load_plan(ROOT)
    for phase in plan.phases:
        features = [feature.id for feature in phase.features]
        assert find_weak_gates(phase, features, ROOT) == []
    paths = sorted((ROOT / "gates").rglob("test_*.py"))
    assert len(paths) > 10
    for path in paths:
        assert pytest_weakness(ROOT, path.relative_to(ROOT).as_posix()) is None, path


def test_a_file_that_is_not_there_is_not_named(tmp_path: Path) -> None:
    assert pytest_weakness(tmp_path, "gates/test_x.py") is None


#### nothing crashes it


@given(st.one_of(st.text(), st.text(alphabet="a '\"$(){}[];|&<>!\\`#-=0\n")))
def test_any_text_is_read_as_a_command(command: str) -> None:
    shell_weakness(command)


PIECES = st.sampled_from(
    ["def test_a(x):\n", " ", "    ", "assert ", "x.exists()", "\n", "f'{x}'", "class A(B):\n",
     "'\\d'", "from gates.x import y\n", "from . import *\n", "@", "lambda: ", "(", ")", "x == 1"]
)  # fmt: skip


@given(st.one_of(st.text(), st.lists(PIECES).map("".join)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_is_read_as_a_file(tmp_path: Path, source: str) -> None:
    (tmp_path / "gates").mkdir(exist_ok=True)
    (tmp_path / "gates/test_x.py").write_text(source, "utf-8", "surrogatepass")
    pytest_weakness(tmp_path, "gates/test_x.py")


@pytest.mark.parametrize(
    "source", [b"\xff\xfe", b"# coding: nonsense\n", b"(" * 9999, b"-" * 99999]
)
def test_a_file_that_python_cannot_read_is_not_named(tmp_path: Path, source: bytes) -> None:
    (tmp_path / "gates").mkdir()
    (tmp_path / "gates/test_x.py").write_bytes(source)
    assert pytest_weakness(tmp_path, "gates/test_x.py") is None


#### the command

MakeToy = Callable[..., Toy]


def test_plan_names_weak_gates(make_toy: MakeToy, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = toy_plan(features=2)
    plan["phases"][0]["features"][0]["gate"] = {"shell": "test -f result.json"}
    plan["phases"][0]["exit"].append({"pytest": "gates/test_weak.py"})
    plan["phases"][0]["entry"].append({"shell": "true"})  # a precondition, no judge
    toy = make_toy(plan)
    source = f"{IMPORTS}open(os.environ['IMPORTED'], 'w')\ndef test_a():\n    assert True\n"
    toy.write("gates/test_weak.py", source)
    toy.commit("weak gates")
    marker = toy.root / "imported"
    monkeypatch.setenv("IMPORTED", str(marker))

    feature_line = "  weak    TOY-001 gate `test -f result.json`: looks only whether files exist"
    exit_line = "  weak    exit gate gates/test_weak.py: no check reads a number"
    *_, first, second, cost = toy.call("plan").stdout.splitlines()
    assert [first, second] == [f"{feature_line} (docs/gates.md)", f"{exit_line} (docs/gates.md)"]
    assert cost.startswith("in all about")
    assert json.loads(toy.call("plan", "--json").stdout)["weak_gates"] == [
        {"gate": "`test -f result.json`", "of": "TOY-001", "reason": ONLY_EXISTENCE},
        {"gate": "gates/test_weak.py", "of": "exit", "reason": NO_NUMBER},
    ]
    assert not marker.exists()


def test_plan_of_honest_gates_names_none(make_toy: MakeToy) -> None:
    toy = make_toy(toy_plan())
    assert "  weak " not in toy.call("plan").stdout
    assert json.loads(toy.call("plan", "--json").stdout)["weak_gates"] == []


def test_what_would_not_run_is_not_named(make_toy: MakeToy) -> None:
    # 1. A feature that would run is named.
    plan = with_shell_gates(toy_plan(features=2, attempts=1))
    second = plan["phases"][0]["features"][1]
    second.update(command="exit 3", gate={"shell": f"{SHELL_GATE}; true"})
    toy = make_toy(plan)
    toy.run("run", "--feature", "TOY-001")
    (weak_gate,) = json.loads(toy.call("plan", "--json").stdout)["weak_gates"]
    assert (weak_gate["of"], weak_gate["reason"]) == ("TOY-002", HIDES_FAILURES)

    # 2. Nothing would run once the attempts are spent.
    toy.run("run", "--next", code=1)
    assert "would run nothing" in toy.call("plan").stdout
    assert "  weak " not in toy.call("plan").stdout
    assert json.loads(toy.call("plan", "--json").stdout)["weak_gates"] == []
