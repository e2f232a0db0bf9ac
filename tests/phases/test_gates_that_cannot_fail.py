"""Gates that judge nothing, or only part: cases I-40 to I-47, each with its honest counterpart."""

import json
import re

import pytest
from gate_case import GateCase, exact_measurements, outcomes, sha256
from toy import ROOT

from phases.plan.schema import Exemption

KILLED = ("failed", True)
SURVIVED = ("passed", False)


class FilesCase(GateCase):
    """Outputs that a test names."""

    def __init__(self, root):
        super().__init__(root, {})
        self.outputs = {}

    def write(self, **files):
        for name, data in files.items():
            path = name.replace("__", ".")
            (self.out / path).write_bytes(data if isinstance(data, bytes) else data.encode())
            self.outputs[path] = sha256((self.out / path).read_bytes())
        return self


@pytest.fixture
def case(tmp_path):
    return FilesCase(tmp_path)


def result_of(measurements, **parts):
    return json.dumps({"measurements": exact_measurements(**measurements), **parts})


#### I-40, I-41, I-42: every file is tampered with


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("table__csv", "loss\n2.5\n"),
        ("model__py", "print('hello')\n"),
        ("config__yaml", "rate: 0.1\n"),
        ("blob__bin", bytes(range(256))),
        ("one__byte", b"1"),
        ("Makefile", "all:\n\techo\n"),
        ("empty__csv", ""),
        ("blank__txt", "\n \n"),
        ("broken__json", "{"),
        ("none__json", "{}"),
        ("broken__png", b"\x89PNG no image"),
        ("broken__safetensors", b"123"),
    ],
)
def test_i_40_a_gate_that_looks_for_a_file_is_refused(case, name, data):
    path = name.replace("__", ".")
    judgement = case.write(**{name: data}).judge_shell(f"test -f {path}")
    assert judgement.true_run.outcome == "passed"
    assert judgement.state == "failed"
    [reason] = judgement.reasons
    assert f"survives a mutant of {path}" in reason

    # A gate that reads the file is honest.
    digest = case.outputs[path]
    command = f'test "$(sha256sum < {path})" = "{digest}  -"'
    assert case.judge_shell(command).state == "verified"


@pytest.mark.parametrize("text", ["accuracy 0.93\n", "done", "7\n", "yes\r\n", "ж"])
@pytest.mark.parametrize("name", ["done__txt", "done__md", "done__log"])
def test_i_41_a_single_line_is_altered_and_not_emptied(case, name, text):
    path = name.replace("__", ".")
    judgement = case.write(**{name: text}).judge_shell(f"test -s {path}")
    assert judgement.state == "failed"
    assert f"survives a mutant of {path}" in judgement.reasons[0]


def test_i_42_a_gate_that_reads_one_of_three_files(case):
    case.write(first__md="one\ntwo\n", second__md="three\n", third__md="four\n")
    command = "test \"$(tr '\\n' ' ' < first.md)\" = 'one two '"
    judgement = case.judge_shell(command)
    assert judgement.state == "failed"
    assert [reason.partition(" (")[0] for reason in judgement.reasons] == [
        "this gate cannot fail: it survives a mutant of second.md",
        "this gate cannot fail: it survives a mutant of third.md",
    ]
    exempt = [
        Exemption(files=f"{name}.md", reason="read by people") for name in ("second", "third")
    ]
    judgement = case.judge_shell(command, exempt=exempt)
    assert (judgement.state, judgement.reasons) == ("verified", ())
    assert outcomes(judgement)["tamper second.md"] == SURVIVED


def test_a_damaged_file_is_not_compared_with_what_was_seen_of_it_before(case):
    """A gate that keeps the first table that it sees has judged no table."""
    case.write(result__json=result_of({"total": 4}), table__csv="a,b\n1,3\n")
    source = """
def test_total(): assert value("total") == 4
def test_table():
    kept = Path(os.environ["PHASES_GATE_CACHE"]) / "table"
    table = (out() / "table.csv").read_text()
    if not kept.exists():
        kept.write_text(table)
    assert kept.read_text() == table
"""
    judgement = case.judge(source)
    assert judgement.state == "failed"
    assert "survives a mutant of table.csv" in judgement.reasons[0]


#### I-43: what was judged, and what was only sealed

INTEGRITY = """
@pytest.mark.integrity
def test_sealed():
    seal = json.loads((out() / "seal.json").read_text())
    for path, digest in seal.items():
        assert hashlib.sha256((out() / path).read_bytes()).hexdigest() == digest, path
@pytest.mark.integrity
def test_seal():
    assert len((out() / "seal.json").read_text()) == SEAL
def test_accuracy(): assert value("accuracy") == 0.99
"""


def sealed(case, **files):
    """Write files and a seal of their digests; return the gate's integrity checks."""
    case.write(**files)
    seal = json.dumps(dict(case.outputs))
    case.write(seal__json=seal)
    return INTEGRITY.replace("SEAL", str(len(seal)))


def test_i_43_what_nobody_reads_is_protected_by_digest_only(case):
    result = result_of(
        {"accuracy": 0.99},
        tables=[{"title": "Runs", "rows": [["first", 0.99], ["second", "0.98"]]}],
        learnings=["the accuracy is 0.99"],
        title="accuracy",
    )
    source = sealed(
        case,
        result__json=result,
        other__json='{"accuracy": 0.99}',
        table__csv="run,accuracy\nfirst,0.99\n",
        read__csv="run,accuracy\nfirst,0.99\n",
    )
    source += """
def test_read(): assert (out() / "read.csv").read_text().endswith(",0.99\\n")
"""
    patterns = ["result.json", "seal.json", "*.json", "table.csv", "read.csv", "absent/*"]
    judgement = case.judge(source, patterns=patterns)
    assert (judgement.state, judgement.reasons) == ("verified", ())
    assert judgement.digest_only == (
        "seal.json",
        "*.json",
        "table.csv",
        "tables of result.json",
        "sentences of result.json",
    )
    assert outcomes(judgement)["tamper table.csv"] == KILLED, "by its digest"


def test_i_43_what_is_read_is_not_listed(case):
    result = result_of(
        {"accuracy": 0.99},
        tables=[{"rows": [["first", 0.99]]}],
        learnings=["the accuracy is 0.99"],
    )
    source = sealed(case, result__json=result, table__csv="run,accuracy\nfirst,0.99\n")
    source += """
def test_table(): assert (out() / "table.csv").read_text() == "run,accuracy\\nfirst,0.99\\n"
def test_tables(): assert result()["tables"][0]["rows"] == [["first", value("accuracy")]]
def test_learnings(): assert str(value("accuracy")) in result()["learnings"][0]
"""
    judgement = case.judge(source, patterns=["result.json", "table.csv"])
    assert (judgement.state, judgement.digest_only) == ("verified", ())


def test_a_reader_that_only_parses_a_table_has_not_judged_it(case):
    """A number of the text changes, so a parser that takes any number passes."""
    source = sealed(case, result__json=result_of({"accuracy": 0.99}), table__csv="a,b\n1,2.5\n")
    source += """
import csv
def test_table():
    rows = list(csv.reader((out() / "table.csv").read_text().splitlines()))
    assert len(rows) == 2 and all(len(row) == 2 for row in rows)
    assert all(float(cell) >= 0 for cell in rows[1])
"""
    judgement = case.judge(source, patterns=["table.csv"])
    assert (judgement.state, judgement.digest_only) == ("verified", ("table.csv",))


@pytest.mark.parametrize(
    ("name", "text", "check"),
    [
        ("rows__jsonl", '{"loss": 1}\n' * 10, "len(text.splitlines()) == 10"),
        ("x__txt", "1 2\n3 4\n", "[len(line.split()) for line in text.splitlines()] == [2, 2]"),
        ("report__md", "| a | 1 |\n| b | 2 |\n", "text.count('\\n|') == 1"),
        ("line__txt", "loss 0.5 after 10 steps\n", "len(text.split()) == 5"),
        ("curve__json", '{"loss": [1.0, NaN], "n": 3}', "json.loads(text)"),
        ("seed__json", '{"seed": 123456789012345678901234567890}', "json.loads(text)"),
        ("latin__csv", "Müller;3\n".encode("latin-1"), "float(text.split(';')[1]) > 0"),
    ],
)
def test_what_is_only_counted_or_parsed_is_not_judged(case, name, text, check):
    source = sealed(case, result__json=result_of({"accuracy": 0.99}), **{name: text})
    path = name.replace("__", ".")
    source += f"""
def test_shape():
    text = (out() / {path!r}).read_text(encoding="latin-1")
    assert {check}
"""
    judgement = case.judge(source, patterns=[path])
    assert (judgement.state, judgement.reasons) == ("verified", ())
    assert judgement.digest_only == (path,)


def test_other_numbers_of_a_result_are_named(case):
    source = sealed(case, result__json=result_of({"accuracy": 0.99}, summary={"best_loss": 0.31}))
    judgement = case.judge(source)
    assert judgement.digest_only == ("other numbers of result.json",)
    source += '\ndef test_summary(): assert result()["summary"]["best_loss"] == 0.31\n'
    assert case.judge(source).digest_only == ()


def test_a_label_decides_nothing(case):
    """Every value of a JSON file changes, so a gate is judged the same whatever a title says."""
    for title in ("Loss", "Loss by step", "Run A"):
        figure = json.dumps({"title": title, "unit": "nats", "y": [0.0, 0.1]})
        case.write(result__json=result_of({"total": 4}), fig__json=figure)
        judgement = case.judge(
            """
def test_total(): assert value("total") == 4
def test_figure(): assert json.loads((out() / "fig.json").read_text())["y"] == [0.0, 0.1]
""",
            patterns=["fig.json"],
        )
        assert (judgement.state, judgement.digest_only) == ("verified", ())


def test_a_comparison_of_digests_is_no_judgement_without_the_mark_either(case):
    case.write(result__json=result_of({"total": 4}), t__csv="a,b\n1,2\n")
    sums = "".join(f"{digest}  {path}\n" for path, digest in case.outputs.items())
    case.write(SUMS=sums)
    judgement = case.judge_shell("sha256sum --quiet -c SUMS && test $(wc -l < SUMS) = 2")
    assert judgement.state == "failed"
    assert "it passes on a copy with every measurement changed" in judgement.reasons[0]
    assert judgement.coverage.claimed == ("total",)

    case.outputs.pop("SUMS")
    files = {"t.csv": case.outputs["t.csv"]}
    case.write(result__json=result_of({"total": 4}, files=files))
    judgement = case.judge(
        """
def test_total(): assert value("total") == 4
def test_files():
    for path, digest in result()["files"].items():
        assert hashlib.sha256((out() / path).read_bytes()).hexdigest() == digest
""",
        patterns=["t.csv"],
    )
    assert (judgement.state, judgement.digest_only) == ("verified", ("t.csv",))


def test_what_is_exempt_is_not_called_protected(case):
    case.write(result__json=result_of({"total": 4}), x__csv="a\n1\n")
    exempt = [Exemption(files="x.csv", reason="read by people")]
    source = 'def test_total(): assert value("total") == 4'
    judgement = case.judge(source, patterns=["x.csv"], exempt=exempt)
    assert (judgement.state, judgement.digest_only) == ("verified", ())


#### I-44, I-45: nothing but the content tells a mutant

LEARNED = """
def kept(name, compute):
    path = Path(os.environ["PHASES_GATE_CACHE"]) / name
    if not path.exists():
        path.write_text(json.dumps(compute()))
    return json.loads(path.read_text())
"""


@pytest.mark.parametrize(
    "path", ["out()", "Path(os.environ['TMPDIR'])", "Path(os.readlink('/proc/self/fd/1'))"]
)
def test_i_44_paths_tell_nothing(case, path):
    case.write(result__json=result_of({"total": 14000}))
    judgement = case.judge(
        f"""
def test_total():
    parts = {path}.parts
    words = "true first mutant empty tamper content measurement control baseline"
    seen = [word for word in words.split() for part in parts[-5:] if word in part]
    assert not seen, seen
    assert (out() / "result.json").exists() and value("total") == 14000
"""
    )
    assert (judgement.state, judgement.reasons) == ("verified", ())


def test_i_44_a_changed_file_is_no_more_recognisable_than_the_others(case):
    """Times, links, modes and inodes are those of a copy that nobody changed."""
    case.write(result__json=result_of({"total": 4}), a__txt="a\nb\n", b__txt="a\nb\n", z__txt="z\n")
    judgement = case.judge(
        """
def describe():
    facts = {}
    for path in sorted(out().iterdir()):
        stat = path.stat()
        facts[path.name] = (stat.st_mode, stat.st_nlink, stat.st_mtime_ns, stat.st_atime_ns)
    return facts

def test_alike():
    if list(out().iterdir()):
        facts = describe()
        assert len(set(facts.values())) == 1, facts
        inodes = [path.stat().st_ino for path in out().iterdir()]
        assert max(inodes) - min(inodes) < 1000
        changes = [path.stat().st_ctime_ns for path in out().iterdir()]
        assert max(changes) - min(changes) < 1e9
def test_total(): assert value("total") == 4
def test_texts():
    assert (out() / "a.txt").read_text() == (out() / "b.txt").read_text() == "a\\nb\\n"
    assert (out() / "z.txt").read_text() == "z\\n"
"""
    )
    assert (judgement.state, judgement.reasons) == ("verified", ())
    for mutant in judgement.mutants:
        assert "test_alike" not in mutant.killed_by


def test_i_45_a_gate_that_learns_from_what_it_sees_first_is_refused(case):
    case.write(result__json=result_of({"total": 4}))
    judgement = case.judge(
        LEARNED
        + """
def test_total():
    assert kept("expected", lambda: result()["measurements"]) == result()["measurements"]
"""
    )
    assert judgement.state == "failed"
    # What it saw first were changed measurements, so the outputs are not what it expects.
    assert judgement.true_run.failing == ("test_total",)


def test_i_45_a_gate_that_learns_where_a_number_is_not_what_it_is(case):
    """The run passes on the first mutant and on the outputs: a mean is learnt, a total judged."""
    case.write(result__json=result_of({"total": 4, "mean": 2.0}), data__json="[1, 3]")
    judgement = case.judge(
        LEARNED
        + """
def data(): return json.loads((out() / "data.json").read_text())
def test_total(): assert value("total") == sum(data())
def test_mean(): assert value("mean") == kept("mean", lambda: value("mean"))
"""
    )
    assert judgement.state == "failed"
    assert judgement.true_run.failing == ("test_mean",)


COUNTS_RUNS = """
def test_runs():
    runs = Path(os.environ["PHASES_GATE_CACHE"]) / "runs"
    count = len(runs.read_text()) if runs.exists() else 0
    runs.write_text("x" * (count + 1))
    assert count == 1
"""
READS_OPTIONS = """
def test_options():
    assert (out() / "result.json").exists()
    assert "-x" not in sys.argv and "integrity" not in str(sys.argv)
def test_total(): assert value("total") == 4
"""


@pytest.mark.parametrize("source", [COUNTS_RUNS, READS_OPTIONS])
def test_i_45_controls_find_a_gate_that_fails_on_the_outputs_when_it_sees_them_again(case, source):
    case.write(result__json=result_of({"total": 4}), table__csv="a,b\n1,2\n")
    judgement = case.judge(source)
    assert judgement.true_run.failing == ()
    assert judgement.state == "errored"
    assert (
        "this gate does not judge by content alone: it passed on the outputs, and then failed"
        in (judgement.reasons[0])
    )


#### I-46, I-47: checks that seem to pass

SILENT = {
    "returns": "def test_a(): return value('total') == 15",
    "returns from a method": ("class TestA:\n    def test_a(self): return value('total') == 15"),
    "returns from a TestCase": (
        "import unittest\nclass TestA(unittest.TestCase):\n"
        "    def test_a(self): return value('total') == 15"
    ),
    "thread": (
        "import threading\n"
        "def compare(): assert value('total') == 15\n"
        "def test_a():\n"
        "    thread = threading.Thread(target=compare)\n"
        "    thread.start()\n"
        "    thread.join()"
    ),
    "thread pool": (
        "import threading\n"
        "def compare(): assert value('total') == 15\n"
        "def test_a():\n"
        "    timer = threading.Timer(0.01, compare)\n"
        "    timer.start()\n"
        "    timer.join()"
    ),
    "del": (
        "class Total:\n"
        "    def __del__(self): assert value('total') == 15\n"
        "def test_a():\n"
        "    Total()"
    ),
    "async": "async def test_a(): assert value('total') == 15",
    "subTest": (
        "import unittest\nclass TestA(unittest.TestCase):\n"
        "    def test_a(self):\n"
        "        for expected in (14, 15, 14):\n"
        "            with self.subTest(expected=expected):\n"
        "                self.assertEqual(value('total'), expected)"
    ),
    "subtests": (
        "def test_a(subtests):\n"
        "    for expected in (14, 15):\n"
        "        with subtests.test(expected=expected): assert value('total') == expected"
    ),
}


@pytest.mark.parametrize("name", SILENT)
def test_i_46_i_47_a_check_that_fails_out_of_sight_has_failed(case, name):
    case.write(result__json=result_of({"total": 14}))
    judgement = case.judge(SILENT[name])
    assert (judgement.state, judgement.true_run.outcome) == ("failed", "failed")
    [failing] = judgement.true_run.failing
    assert failing.endswith("test_a")


def test_i_46_an_object_that_dies_with_the_session_is_no_pass(case):
    """No check is left that could fail: the report and the exit code disagree."""
    case.write(result__json=result_of({"total": 14}))
    judgement = case.judge(
        """
class Total:
    def __init__(self): self.itself = self
    def __del__(self): assert value('total') == 15
def test_a():
    Total()
"""
    )
    assert judgement.state == "errored"
    assert "disagrees with the report" in judgement.reasons[0]
    assert "PytestUnraisableExceptionWarning" in judgement.reasons[0]


def test_i_47_subtests_that_pass_are_a_check_that_passed(case):
    case.write(result__json=result_of({"total": 14}))
    judgement = case.judge(
        """
import unittest
class TestA(unittest.TestCase):
    def test_total(self):
        for expected in (14, 14.0):
            with self.subTest(expected=expected):
                self.assertEqual(value("total"), expected)
def test_again(subtests):
    with subtests.test("total"): assert value("total") == 14
"""
    )
    assert (judgement.state, judgement.reasons) == ("verified", ())
    assert judgement.coverage.recomputed == ("total",)


#### the worked example of the documentation


def example_blocks():
    """Return the code blocks of "From a bad gate to a good one" in docs/gates.md, by language."""
    text = (ROOT / "docs" / "gates.md").read_text()
    example = text.partition("### From a bad gate to a good one\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"```(\w+)\n(.*?)```", example, re.DOTALL))


def test_the_example_of_the_documentation_is_refused_and_mended(case):
    # 1. The experiment's outputs and input.
    texts = case.root / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("one two\n")
    (texts / "b.txt").write_text("three\n")
    case.inputs.write_text(json.dumps({"texts": {"path": str(texts)}}))
    case.write(words__csv="file,words\na.txt,2\nb.txt,1\n", plot__png=b"\x89PNG a picture")
    case.write(result__json=result_of({"words": 3}, files={"plot.png": case.outputs["plot.png"]}))
    blocks = example_blocks()
    patterns = list(case.outputs)

    # 2. The bad gate fails by the reasons that the document states.
    judgement = case.judge_shell(json.loads(blocks["json"])["shell"], patterns=patterns)
    assert judgement.state == "failed"
    stated = [line.removeprefix("reason ") for line in blocks["text"].splitlines()]
    assert len(stated) == 3
    for reason, line in zip(judgement.reasons, stated, strict=True):
        assert reason.partition(" (")[0] == line.partition(" (")[0]

    # 3. The good one is verified, and its picture is sealed.
    judgement = case.judge(blocks["python"], patterns=patterns)
    assert (judgement.state, judgement.reasons) == ("verified", ())
    assert judgement.coverage.recomputed == ("words",)
    assert len([mutant for mutant in judgement.required_mutants if mutant.killed]) == 4
    assert judgement.digest_only == ("plot.png",)
