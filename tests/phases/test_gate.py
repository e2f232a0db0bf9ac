"""Gates judged by real runs of pytest and sh in temporary folders: good ones, and every bad one we could think of."""

import hashlib
import json
import os
import signal
import struct
import textwrap
import threading
import time
import zlib

import pytest

from phases.errors import IntegrityError, InterruptedRunError
from phases.execution.sandbox import Unconfined
from phases.judge.gate import GateSpec, judge_feature, judge_phase, run_entry_gate
from phases.judge.verdict import verdict

LOSSES = [2.0, 2.5, 3.0, 3.5]

PRELUDE = """
import hashlib, json, os, struct, sys
from pathlib import Path
import pytest

def out(): return Path(os.environ["PHASES_OUT"])
def result(): return json.loads((out() / "result.json").read_text())
def value(name): return result()["measurements"][name]["value"]
def losses():
    data = (out() / "artifacts/losses.safetensors").read_bytes()
    return struct.unpack("<4f", data[8 + int.from_bytes(data[:8], "little"):])
"""

INTEGRITY = """
@pytest.mark.integrity
def test_files_match():
    for path, digest in result()["files"].items():
        assert hashlib.sha256((out() / path).read_bytes()).hexdigest() == digest

@pytest.mark.integrity
def test_report_matches():
    digest = hashlib.sha256((out() / "result.json").read_bytes()).hexdigest()
    lines = (out() / "report.md").read_text().splitlines()
    assert lines[2:] == ["mean 2.75", "", digest]
"""

RECOMPUTE = """
@pytest.mark.parametrize("name", ["mean_loss", "max_loss", "count", "best"])
def test_recomputed(name):
    found = losses()
    best = "last" if min(found) == found[-1] else "first"
    want = {"mean_loss": sum(found) / 4, "max_loss": max(found), "count": 4, "best": best}[name]
    assert value(name) == pytest.approx(want)

def test_seconds_are_bounded():
    assert 0 < value("seconds") < 30
"""

GOOD = RECOMPUTE + INTEGRITY


def safetensors(values):
    raw = struct.pack(f"<{len(values)}f", *values)
    header = json.dumps(
        {"loss": {"dtype": "F32", "shape": [len(values)], "data_offsets": [0, len(raw)]}}
    ).encode()
    return struct.pack("<Q", len(header)) + header + raw


def png():
    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    pixels = b"".join(b"\0" + bytes(range(row, row + 6)) for row in range(3))
    head = struct.pack(">IIBBBBB", 2, 3, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def measured(**values):
    return {name: {"value": value, "unit": "", "exact": True} for name, value in values.items()}


def write_outputs(folder, measurements):
    """One file of every kind, result.json with the digests of the others, and a report that names its digest."""
    files = {
        "artifacts/losses.safetensors": safetensors(LOSSES),
        "figures/loss.json": json.dumps({"y": LOSSES}).encode(),
        "figures/loss.png": png(),
    }
    digests = {path: sha256(data) for path, data in files.items()}
    files["result.json"] = json.dumps({"measurements": measurements, "files": digests}).encode()
    files["report.md"] = f"# Losses\n\nmean 2.75\n\n{sha256(files['result.json'])}\n".encode()
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return {path: sha256(data) for path, data in files.items()}


class World:
    def __init__(self, root):
        self.root = root
        self.out = root / "out"
        measurements = measured(mean_loss=2.75, max_loss=3.5, count=4, best="first", seconds=3.5)
        self.outputs = write_outputs(self.out, measurements)
        self.gates = root / "materialised"
        (self.gates / "gates").mkdir(parents=True)
        (self.gates / "gates" / "__init__.py").touch()
        self.inputs = root / "inputs.json"
        self.inputs.write_text("{}")
        self.workspace = root / "workspace"
        self.workspace.mkdir()

    def only(self, *paths, measurements=None):
        """Fewer outputs, so that a test about something else needs fewer runs."""
        if measurements is not None:
            data = json.dumps({"measurements": measurements, "files": {}}).encode()
            (self.out / "result.json").write_bytes(data)
            self.outputs["result.json"] = sha256(data)
        self.outputs = {path: self.outputs[path] for path in paths}
        return self

    def common(self):
        return {
            "gates_dir": self.gates,
            "inputs_file": self.inputs,
            "workspace": self.workspace,
            "env": {},
            "sandbox": Unconfined(),
        }

    def pytest_gate(self, source, timeout_s=30.0):
        (self.gates / "gates" / "test_x.py").write_text(PRELUDE + textwrap.dedent(source))
        return GateSpec("pytest", "gates/test_x.py", timeout_s)

    def judge_feature(self, source, *, timeout_s=30.0, **more):
        return self.judge_spec(self.pytest_gate(source, timeout_s), **more)

    def judge_shell(self, command, *, timeout_s=30.0, **more):
        return self.judge_spec(GateSpec("shell", command, timeout_s), **more)

    def judge_spec(self, spec, **more):
        return judge_feature(spec, out=self.out, outputs=self.outputs, **self.common(), **more)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture
def small(world):
    return world.only("result.json", measurements=measured(count=4))


def outcomes(judgement):
    return {item.kind: (item.outcome, item.ok) for item in judgement.negatives}


#### a gate that knows what it judges


def test_a_good_gate_is_proved(world):
    seen = []
    found = world.judge(GOOD, on_progress=lambda *args: seen.append(args))
    assert (found.state, found.reasons) == ("verified", ())
    caught = dict.fromkeys(
        ("empty", "measurements", "json", "arrays", "images", "text"), ("failed", True)
    )
    assert outcomes(found) == caught
    assert found.coverage.recomputed == ("mean_loss", "max_loss", "count", "best")
    assert found.coverage.bounded == ("seconds",)
    assert found.coverage.fraction == 1.0
    assert {check.id for check in found.true_run.checks} >= {
        "test_recomputed[count]",
        "test_files_match",
    }
    assert all(check.passed for check in found.true_run.checks)
    by_kind = {item.kind: item.caught_by for item in found.negatives}
    assert {"test_recomputed[max_loss]", "test_files_match"} <= set(by_kind["arrays"])
    assert "test_recomputed[mean_loss]" not in by_kind["arrays"], (
        "the noise has the mean of what it replaces"
    )
    assert by_kind["text"] == ("test_report_matches",)
    assert "test_files_match" not in by_kind["measurements"]
    assert [args[0] for args in seen] == list(range(1, seen[-1][1] + 1)), (
        "progress goes up by one to its end"
    )
    assert {path.name for path in world.workspace.iterdir()} == {"runs"}, (
        "copies and cache are gone, logs are kept"
    )
    document = verdict(
        found,
        outputs=world.outputs,
        configuration=[{"name": "gate", "digest": {"sha256": "0" * 64}}],
    )
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["predicate"]["result"] == "PASSED"
    assert (
        document["subject"][0]["digest"]["sha256"] == world.outputs[document["subject"][0]["name"]]
    )
    extension = document["predicate"]["phases/gate/v1"]
    assert extension["nonce"] == found.nonce
    assert extension["coverage"]["bounded"] == ["seconds"]


def test_a_wrong_number_fails(world):
    world.only(
        "artifacts/losses.safetensors",
        "result.json",
        measurements=measured(mean_loss=2.76, max_loss=3.5, count=4, best="first", seconds=1),
    )
    found = world.judge(RECOMPUTE)
    assert (found.state, found.true_run.outcome) == ("failed", "failed")
    assert found.true_run.failing == ("test_recomputed[mean_loss]",)
    assert found.negatives == ()
    assert found.coverage is None
    document = verdict(found, outputs=world.outputs, configuration=[])
    assert document["predicate"]["result"] == "FAILED"
    assert document["predicate"]["failedTests"] == ["test_recomputed[mean_loss]"]
    assert (
        "2.76" in document["predicate"]["phases/gate/v1"]["messages"]["test_recomputed[mean_loss]"]
    )


def test_a_number_that_nothing_backs_is_claimed(small):
    small.only("result.json", measurements=measured(count=4, invented=0.93))
    found = small.judge("def test_count(): assert value('count') == 4")
    assert found.state == "verified"
    assert found.coverage.recomputed == ("count",)
    assert found.coverage.claimed == ("invented",)
    assert found.coverage.fraction == 0.5


def test_outputs_without_measurements_have_no_coverage(world):
    found = world.only("report.md").judge(
        "def test_text(): assert 'mean 2.75' in (out() / 'report.md').read_text()"
    )
    assert found.state == "verified"
    assert found.coverage.fraction is None
    assert outcomes(found) == {"empty": ("failed", True), "text": ("failed", True)}


#### gates that cannot fail


def test_a_gate_that_passes_on_nothing_is_refused(small):
    found = small.judge("def test_nothing(): assert True")
    assert found.true_run.outcome == "passed"
    assert found.state == "failed"
    assert found.reasons[0] == "this gate cannot fail: it passes on an empty folder"
    assert (
        small.judge("def test_nothing(): assert True", unjudged=("empty", "measurements")).state
        == "failed"
    )


@pytest.mark.parametrize("kind", ["pytest", "shell"])
def test_a_gate_that_only_looks_for_a_file_is_refused(small, kind):
    if kind == "pytest":
        found = small.judge("def test_there(): assert (out() / 'result.json').exists()")
    else:
        found = small.judge_shell("test -f result.json")
    assert outcomes(found) == {"empty": ("failed", True), "measurements": ("passed", False)}
    assert found.state == "failed"
    assert "every measurement changed" in found.reasons[0]
    assert found.coverage.claimed == ("count",)


def test_digests_alone_are_no_judgement(world):
    found = world.judge("def test_there(): assert result()" + INTEGRITY)
    assert found.state == "failed"
    assert outcomes(found)["measurements"] == ("passed", False)
    assert outcomes(found)["text"] == ("failed", True)
    assert found.coverage.fraction == 0.0, "the digest of result.json would notice every change"


def test_without_any_check_but_integrity_nothing_is_proved(world):
    found = world.judge(INTEGRITY)
    assert found.state == "failed"
    assert outcomes(found)["measurements"] == ("errored", False)
    assert "proves nothing" in found.reasons[0]


def test_only_the_plan_excuses_what_is_not_caught(world):
    world.only("result.json", "figures/loss.png", measurements=measured(count=4))
    source = "def test_count(): assert value('count') == 4"
    found = world.judge(source)
    assert found.state == "failed"
    assert found.reasons == (
        "this gate cannot fail: it passes on a copy with one byte of pixel data of each image changed",
    )
    excused = world.judge(source, unjudged=("images",))
    assert (excused.state, excused.unjudged) == ("verified", ("images",))
    assert outcomes(excused)["images"] == ("passed", False), "it is tried and shown all the same"


def test_a_crash_on_a_damaged_copy_proves_nothing(small):
    found = small.judge("def test_count():\n    if value('count') != 4: os._exit(3)")
    assert found.true_run.outcome == "passed"
    assert found.state == "failed"
    assert outcomes(found)["measurements"] == ("errored", False)
    assert found.coverage.claimed == ("count",)


def test_a_check_that_only_appears_on_damage_proves_nothing(small):
    found = small.judge(
        """
def test_there(): assert (out() / "result.json").exists()
if (out() / "result.json").exists() and value("count") != 4:
    def test_extra(): assert False
"""
    )
    assert outcomes(found) == {"empty": ("failed", True), "measurements": ("errored", False)}
    assert found.reasons[0].endswith("ran, but were not collected on an empty folder: test_extra")
    assert found.coverage.claimed == ("count",)


def test_a_gate_that_changes_itself_is_errored(small):
    source = "def test_count():\n    assert value('count') == 4\n    open(__file__, 'a').write('#')"
    found = small.judge(source)
    assert (found.state, found.reasons) == (
        "errored",
        ("the gate's own files were changed while it ran",),
    )


#### no judgement, and never a pass

NO_JUDGEMENT = {
    "skip mark": ("@pytest.mark.skip\ndef test_a(): pass", "skip"),
    "skip call": ("def test_a(): pytest.skip('not today')", "skipped"),
    "one of two skipped": ("def test_a(): pass\ndef test_b(): pytest.skip('no')", "test_b"),
    "unittest skip": (
        "import unittest\nclass TestA(unittest.TestCase):\n    @unittest.skip('x')\n    def test_a(self): pass",
        "skipped",
    ),
    "xfail": ("@pytest.mark.xfail\ndef test_a(): assert False", "xfail"),
    "xpass": ("@pytest.mark.xfail(strict=False)\ndef test_a(): pass", "xfail"),
    "xfail parameter": (
        "@pytest.mark.parametrize('x', [pytest.param(1, marks=pytest.mark.xfail)])\ndef test_a(x): pass",
        "xfail",
    ),
    "unknown mark": ("@pytest.mark.integrty\ndef test_a(): pass", "integrty"),
    "no test": ("def helper(): pass", "no check"),
    "syntax": ("def test_a(: pass", "could not collect"),
    "reads at import": ("RESULT = result()\ndef test_a(): pass", "could not collect"),
    "checks made of the outputs": (
        "NAMES = list(result()['measurements']) if (out() / 'result.json').exists() else ['none']\n"
        "@pytest.mark.parametrize('name', NAMES)\ndef test_a(name): pass",
        "test_a[count]",
    ),
    "exits with 0": ("def test_a(): os._exit(0)", "no report"),
    "exits with 1": ("def test_a(): os._exit(1)", "no report"),
    "stops pytest with 0": (
        "def test_a(): pass\ndef test_b(): pytest.exit('done', returncode=0)\ndef test_c(): assert False",
        "a report of 1 checks that lists 2",
    ),
    "stops pytest in a fixture": (
        "@pytest.fixture\ndef f(): pytest.exit('done', returncode=0)\ndef test_a(): pass\ndef test_b(f): pass",
        "collected, but did not run: test_b",
    ),
    "exit code changed": (
        "import atexit\natexit.register(os._exit, 0)\ndef test_a(): assert False",
        "disagrees",
    ),
    "killed": ("import signal\ndef test_a(): os.kill(os.getpid(), signal.SIGKILL)", "signal 9"),
}


@pytest.mark.parametrize("case", NO_JUDGEMENT)
def test_no_judgement_is_errored(small, case):
    source, words = NO_JUDGEMENT[case]
    found = small.judge(source)
    assert (found.state, found.true_run.outcome) == ("errored", "errored")
    assert words in found.reasons[0]
    assert found.negatives == ()
    assert (
        verdict(found, outputs=small.outputs, configuration=[])["predicate"]["result"] == "FAILED"
    )


def test_a_missing_gate_is_errored(small):
    found = small.judge_spec(GateSpec("pytest", "gates/test_absent.py", 30))
    assert found.state == "errored"
    assert "test_absent" in found.reasons[0]


def test_time_out_is_errored(small):
    begin = time.monotonic()
    found = small.judge("import time\ndef test_a(): time.sleep(60)", timeout_s=2)
    assert (found.state, found.reasons) == ("errored", ("timed out after 2 s",))
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize(
    "source",
    [
        "def test_a(): sys.exit(0)",
        "def test_a(): raise SystemExit(0)",
        "def test_a(): pytest.xfail('known')",
        "@pytest.fixture\ndef broken(): raise OSError('no')\ndef test_a(broken): pass",
        "@pytest.fixture\ndef late():\n    yield\n    raise OSError('no')\ndef test_a(late): pass",
        "@pytest.fixture\ndef late():\n    yield\n    raise OSError('no')\ndef test_a(late): assert False",
    ],
)
def test_a_check_that_raises_has_failed(small, source):
    found = small.judge(source)
    assert (found.state, found.true_run.outcome, found.true_run.failing) == (
        "failed",
        "failed",
        ("test_a",),
    )


@pytest.mark.parametrize(
    ("command", "outcome"),
    [("exit 0", "passed"), ("exit 1", "failed"), ("exit 125", "failed"), ("exit 126", "errored"),
     ("no-such-command-here", "errored"), ("kill -9 $$", "errored"), ("exit 255", "errored"), ("sleep 60", "errored")],
)  # fmt: skip
def test_shell_exit_codes(small, command, outcome):
    assert small.judge_shell(command, timeout_s=2).true_run.outcome == outcome


def test_a_good_shell_gate_is_proved(small):
    found = small.judge_shell('grep -q \'"value": 4,\' "$PHASES_OUT/result.json"')
    assert (found.state, found.coverage.recomputed) == ("verified", ("count",))


def test_messages_are_one_printable_line(small):
    found = small.judge(r"def test_a(): assert False, 'a\nb\x1b[31m\u202e' + 'x' * 5000")
    [check] = found.true_run.checks
    assert check.message.isprintable()
    assert len(check.message) <= 400
    assert all(line.isprintable() for line in found.true_run.log_tail.splitlines())


#### the gate's surroundings


def test_nothing_beside_the_gate_is_loaded(small, monkeypatch):
    monkeypatch.setenv("PYTEST_ADDOPTS", "--collect-only")
    monkeypatch.setenv("PYTHONPATH", str(small.root / "planted"))
    (small.root / "planted").mkdir()
    (small.root / "planted" / "sitecustomize.py").write_text("raise SystemExit(0)")
    (small.gates / "gates" / "conftest.py").write_text("raise SystemExit(0)")
    (small.gates / "pytest.ini").write_text("[pytest]\naddopts = --collect-only\n")
    for name in ("json.py", "conftest.py", "pytest.py", "sitecustomize.py"):
        (small.out / name).write_text("raise SystemExit(0)\n")
        small.outputs[name] = sha256(b"raise SystemExit(0)\n")
    (small.gates / "gates" / "outputs.py").write_text("FOUR = 4\n")
    found = small.judge(
        """
from gates import outputs
def test_count(): assert value('count') == outputs.FOUR
def test_no_plugins(pytestconfig): assert not pytestconfig.pluginmanager.list_plugin_distinfo()
"""
    )
    assert (found.state, found.reasons) == ("verified", ())


def test_each_copy_is_read_only_and_told_its_own_digests(world):
    found = world.judge(
        GOOD
        + """
def test_digests():
    told = json.loads(Path(os.environ["PHASES_DIGESTS"]).read_text())
    met = {p.relative_to(out()).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
           for p in out().rglob("*") if p.is_file()}
    assert told == met

def test_read_only():
    assert not any(p.stat().st_mode & 0o222 for p in [out(), *out().rglob("*")])

def test_home_is_private():
    assert not any(Path.home().iterdir()) and Path.cwd() == out()
"""
    )
    assert found.state == "verified"
    assert not {"test_digests", "test_read_only", "test_home_is_private"} & {
        name for item in found.negatives for name in item.caught_by
    }


def test_the_cache_is_shared_and_keyed_by_what_was_read(world, tmp_path):
    log = tmp_path / "computed"
    found = world.only(
        "artifacts/losses.safetensors", "result.json", measurements=measured(mean_loss=2.75)
    ).judge(
        f"""
def mean():
    key = json.loads(Path(os.environ["PHASES_DIGESTS"]).read_text())["artifacts/losses.safetensors"]
    place = Path(os.environ["PHASES_GATE_CACHE"]) / key
    if not place.exists():
        with open({str(log)!r}, "a") as file: file.write(key + "\\n")
        place.write_text(str(sum(losses()) / 4))
    return float(place.read_text())

def test_mean(): assert value("mean_loss") == mean() and abs(losses()[0] - 2.0) < 1e-6
"""
    )
    assert found.state == "verified"
    computed = log.read_text().split()
    assert len(computed) == 2, "once for the true arrays in all copies, once for the damaged ones"
    assert computed[0] == world.outputs["artifacts/losses.safetensors"] != computed[1]


WRITES = {
    "changes": "os.chmod(path, 0o600); path.write_text(path.read_text() + ' ')",
    "adds": "os.chmod(out(), 0o700); (out() / 'new').write_text('x')",
    "removes": "os.chmod(out(), 0o700); path.unlink()",
    "replaces": "os.chmod(out(), 0o700); data = path.read_bytes(); path.unlink(); path.write_bytes(data)",
    "links": "os.chmod(out(), 0o700); path.unlink(); path.symlink_to('/etc/passwd')",
}


@pytest.mark.parametrize("how", WRITES)
def test_a_gate_that_changes_its_input_is_errored(small, how):
    source = f"def test_count():\n    assert value('count') == 4\n    path = out() / 'result.json'\n    {WRITES[how]}"
    found = small.judge(source)
    assert found.state == "errored"
    assert "the gate changed its input" in found.reasons[0]
    assert sha256((small.out / "result.json").read_bytes()) == small.outputs["result.json"], (
        "the original is safe"
    )


def test_a_write_through_a_hard_link_in_a_damaged_copy_is_found(world):
    world.only("report.md", "result.json", measurements=measured(count=4))
    found = world.judge(
        """
def test_count():
    if value("count") != 4:
        os.chmod(out() / "report.md", 0o600)
        with open(out() / "report.md", "r+b") as file: file.write(b"!")
        assert False
def test_report(): assert (out() / "report.md").read_text().splitlines()[2] == "mean 2.75"
def test_lines(): assert len((out() / "report.md").read_text().splitlines()) == 5
"""
    )
    assert found.state == "errored"
    assert "report.md was changed" in found.reasons[0]
    assert sha256((world.out / "report.md").read_bytes()) == world.outputs["report.md"]


def test_the_original_is_copied_not_linked(world):
    before = {path: (world.out / path).stat() for path in world.outputs}
    world.judge("def test_a(): assert False")
    for path, stat in before.items():
        after = (world.out / path).stat()
        assert (after.st_nlink, after.st_mode, after.st_ctime_ns) == (
            1,
            stat.st_mode,
            stat.st_ctime_ns,
        )


def test_only_declared_outputs_are_shown(small):
    (small.out / "extra.txt").write_text("undeclared")
    found = small.judge(
        "def test_a(): assert value('count') == 4 and os.listdir(out()) == ['result.json']"
    )
    assert found.state == "verified"


def test_outputs_that_changed_since_they_were_collected_are_not_judged(small):
    (small.out / "result.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"result\.json: sha256 .* wanted"):
        small.judge("def test_a(): pass")


@pytest.mark.parametrize(
    "make", [lambda path: path.symlink_to("kept"), os.mkfifo, os.mkdir, lambda path: None]
)
def test_an_output_that_is_no_regular_file_is_not_judged(small, make):
    (small.out / "result.json").rename(
        small.out / "kept"
    )  # a link to the very bytes that were collected is one too
    make(small.out / "result.json")
    with pytest.raises(IntegrityError, match=r"result\.json"):
        small.judge("def test_a(): pass")


def test_measurements_that_cannot_be_read_are_not_judged(small):
    data = b'{"measurements": {"count": {"value": NaN}}}'
    (small.out / "result.json").write_bytes(data)
    small.outputs["result.json"] = sha256(data)
    found = small.judge("def test_a(): assert (out() / 'result.json').exists()")
    assert found.state == "errored"
    assert "measurements.count.value: NaN" in found.reasons[0]


def test_names_of_measurements_lead_nowhere(small):
    small.only("result.json", measurements=measured(**{"../../../escape": 4, "": 1}))
    found = small.judge("def test_a(): assert (value('../../../escape'), value('')) == (4, 1)")
    assert (found.state, found.coverage.recomputed) == ("verified", ("../../../escape", ""))


def test_a_stop_signal_ends_the_proof(small):
    small.only("result.json", measurements=measured(**{f"m{i}": i for i in range(50)}))
    source = "def test_a(): time.sleep(0.2); assert [value(f'm{i}') for i in range(50)] == list(range(50))"
    spec = small.pytest_gate("import time\n" + source)
    timer = threading.Timer(3, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    begin = time.monotonic()
    with pytest.raises(InterruptedRunError):
        small.judge_spec(spec)
    assert time.monotonic() - begin < 15
    assert {path.name for path in small.workspace.iterdir()} <= {"runs"}


#### phases and preconditions


def phase(world):
    folders = {name: world.root / "features" / name for name in ("FEAT-001", "FEAT-002")}
    outputs = {name: write_outputs(folder, measured(count=4)) for name, folder in folders.items()}
    return {"features": folders, "outputs": outputs, **world.common()}


def test_an_exit_gate_must_judge_every_feature(world):
    source = """
@pytest.mark.parametrize("name", [{names}])
def test_count(name):
    assert json.loads((out() / name / "result.json").read_text())["measurements"]["count"]["value"] == 4
"""
    both = judge_phase(
        world.pytest_gate(source.format(names="'FEAT-001', 'FEAT-002'")), **phase(world)
    )
    assert (both.state, both.coverage) == ("verified", None)
    caught = {item.kind: item.caught_by for item in both.negatives}
    assert caught["measurements:FEAT-002"] == ("test_count[FEAT-002]",)
    assert set(caught) == {"empty", "measurements:FEAT-001", "measurements:FEAT-002"}
    one = judge_phase(world.pytest_gate(source.format(names="'FEAT-001'")), **phase(world))
    assert one.state == "failed"
    assert one.reasons[0].endswith("FEAT-002")


def test_an_entry_gate_runs_in_the_repository_root(world):
    (world.gates / "VISION.md").write_text("x")
    common = {
        "root": world.gates,
        "workspace": world.workspace,
        "env": {"OMP_NUM_THREADS": "2"},
        "sandbox": Unconfined(),
    }
    assert run_entry_gate(GateSpec("shell", "test -s VISION.md", 5), **common).outcome == "passed"
    assert run_entry_gate(GateSpec("shell", "test -s ABSENT.md", 5), **common).outcome == "failed"
    assert run_entry_gate(GateSpec("shell", "absent-command", 5), **common).outcome == "errored"
    assert (
        run_entry_gate(GateSpec("shell", 'test "$OMP_NUM_THREADS" = 2', 5), **common).outcome
        == "passed"
    )
    spec = world.pytest_gate(
        "def test_a(): assert Path('VISION.md').exists() and 'PHASES_OUT' not in os.environ"
    )
    assert run_entry_gate(spec, **common).outcome == "passed"
