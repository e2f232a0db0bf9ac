"""Outputs judged by real runs of pytest and sh: by good gates, and by every bad one we know."""

import os
import signal
import threading
import time

import psutil
import pytest
from gate_case import GateCase, exact_measurements, outcomes, sha256, write_outputs

from phases.errors import EnvironmentFaultError, IntegrityError, InterruptedRunError
from phases.execution import fork_server
from phases.execution.sandbox import NoSandbox
from phases.judge import gate_run
from phases.judge.gate import judge_phase, run_entry_gate
from phases.judge.gate_run import GateKind, GateSpec
from phases.judge.verdict import verdict_of
from phases.plan.schema import Exemption
from phases.record.statement import ResourceDescriptor
from phases.record.states import FeatureState
from phases.record.verdict import Verdict

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
    values = losses()
    best = "last" if min(values) == values[-1] else "first"
    expected = {"mean_loss": sum(values) / 4, "max_loss": max(values), "count": 4, "best": best}
    assert value(name) == pytest.approx(expected[name])

def test_seconds_are_bounded():
    assert 0 < value("seconds") < 30
"""

GOOD = RECOMPUTE + INTEGRITY


@pytest.fixture
def case(tmp_path):
    measurements = exact_measurements(
        mean_loss=2.75, max_loss=3.5, count=4, best="first", seconds=3.5
    )
    return GateCase(tmp_path, measurements)


@pytest.fixture
def one_number_case(tmp_path):
    """Return outputs of every kind with one measurement, as each is judged by runs of its own."""
    return GateCase(tmp_path, exact_measurements(count=4))


@pytest.fixture
def small_case(case):
    return case.only("result.json", measurements=exact_measurements(count=4))


#### a good gate, and good outputs or wrong ones


def test_a_good_gate_kills_every_mutant(case):
    progress = []
    judgement = case.judge(
        GOOD,
        patterns=["result.json", "report.md", "figures/*", "artifacts/**"],
        on_progress=lambda *args: progress.append(args),
    )

    # The state, the mutants and the measurement coverage.
    assert (judgement.state, judgement.reasons) == (FeatureState.VERIFIED, ())
    killed, survived = ("failed", True), ("passed", False)
    assert outcomes(judgement) == {
        "measurements result.json": killed,
        "empty": killed,
        "tamper artifacts/losses.safetensors": killed,
        "tamper figures/loss.json": killed,
        "tamper figures/loss.png": killed,
        "tamper report.md": killed,
        "content report.md": survived,
        "content figures/*": survived,
        "content artifacts/**": killed,
    }
    assert judgement.digest_only == ("report.md", "figures/*")
    assert judgement.coverage.recomputed == ("mean_loss", "max_loss", "count", "best")
    assert judgement.coverage.bounded == ("seconds",)
    assert judgement.coverage.fraction == 1.0

    # The checks that ran, and those that killed each mutant.
    ids = {check.id for check in judgement.true_run.checks}
    assert ids >= {"test_recomputed[count]", "test_files_match"}
    assert all(check.passed for check in judgement.true_run.checks)
    killed_by = {mutant.mutation.name: mutant.killed_by for mutant in judgement.mutants}
    assert killed_by["tamper artifacts/losses.safetensors"] == ("test_files_match",)
    assert killed_by["content artifacts/**"] == ("test_recomputed[max_loss]",), (
        "the noise has the mean of what it replaces"
    )
    assert killed_by["tamper report.md"] == ("test_report_matches",)
    assert {"test_recomputed[count]", "test_seconds_are_bounded"} <= set(
        killed_by["measurements result.json"]
    )
    assert "test_report_matches" not in killed_by["measurements result.json"]

    # What was reported on the way, and what is left behind.
    total = progress[-1][1]
    assert [done for done, _, _ in progress] == list(range(1, total + 1))
    notes = [note for _, _, note in progress]
    assert notes[:2] == [
        "mutant measurements result.json: killed",
        "gate on the outputs: passed",
    ]
    assert set(notes) >= {
        "mutant empty: killed",
        "mutant tamper figures/loss.png: killed",
        "mutant content figures/*: survived",
        "measurement seconds: bounded",
        "control: passed",
    }
    assert {path.name for path in case.workspace.iterdir()} == {"runs", "import_block"}, (
        "copies and cache are removed, logs stay"
    )

    # The verdict, as it is written and read.
    gate = ResourceDescriptor(name="gate", digest={"sha256": "0" * 64})
    verdict = verdict_of(judgement, outputs=case.outputs, configuration=[gate])
    assert Verdict.decode(verdict.encode()) == verdict
    assert verdict.predicate.result == "PASSED"
    assert verdict.digests == case.outputs
    assert verdict.gate.nonce == judgement.nonce
    assert verdict.gate.measurement_coverage.bounded == ("seconds",)


def test_a_wrong_number_fails(case):
    case.only(
        "artifacts/losses.safetensors",
        "result.json",
        measurements=exact_measurements(
            mean_loss=2.76, max_loss=3.5, count=4, best="first", seconds=1
        ),
    )
    judgement = case.judge(RECOMPUTE)
    assert (judgement.state, judgement.true_run.outcome) == ("failed", "failed")
    assert judgement.true_run.failing == ("test_recomputed[mean_loss]",)
    assert judgement.mutants == ()
    assert judgement.coverage is None
    verdict = verdict_of(judgement, outputs=case.outputs, configuration=[])
    assert verdict.predicate.result == "FAILED"
    assert verdict.predicate.failed_tests == ("test_recomputed[mean_loss]",)
    assert "2.76" in verdict.gate.messages["test_recomputed[mean_loss]"]


def test_a_number_that_nothing_backs_is_claimed(small_case):
    small_case.only("result.json", measurements=exact_measurements(count=4, invented=0.93))
    judgement = small_case.judge("def test_count(): assert value('count') == 4")
    assert judgement.state == "verified"
    assert judgement.coverage.recomputed == ("count",)
    assert judgement.coverage.claimed == ("invented",)
    assert judgement.coverage.fraction == 0.5


def test_outputs_without_measurements_have_no_coverage(case):
    judgement = case.only("report.md").judge(
        "def test_text(): assert 'mean 2.75' in (out() / 'report.md').read_text()"
    )
    assert judgement.state == "verified"
    assert judgement.coverage.fraction is None
    assert outcomes(judgement) == {"empty": ("failed", True), "tamper report.md": ("failed", True)}


#### gates that cannot fail


def test_a_gate_that_passes_on_nothing_is_refused(small_case):
    judgement = small_case.judge("def test_nothing(): assert True")
    assert judgement.true_run.outcome == "passed"
    assert judgement.state == "failed"
    assert judgement.reasons == (
        "this gate cannot fail: it passes on a copy with every measurement changed (checks marked"
        " integrity left out)",
        "this gate cannot fail: it passes on an empty folder",
    )
    exempt = [
        Exemption(files=files, reason="no reason") for files in ("**", "empty", "result.json")
    ]
    judgement = small_case.judge("def test_nothing(): assert True", exempt=exempt)
    assert (judgement.state, len(judgement.reasons)) == ("failed", 2)


@pytest.mark.parametrize("kind", ["pytest", "shell"])
def test_a_gate_that_only_looks_for_a_file_is_refused(small_case, kind):
    if kind == "pytest":
        judgement = small_case.judge("def test_there(): assert (out() / 'result.json').exists()")
    else:
        judgement = small_case.judge_shell("test -f result.json")
    assert outcomes(judgement) == {
        "measurements result.json": ("passed", False),
        "empty": ("failed", True),
    }
    assert judgement.state == "failed"
    assert "every measurement changed" in judgement.reasons[0]
    assert judgement.coverage.claimed == ("count",)


def test_a_gate_that_only_compares_digests_is_refused(one_number_case):
    judgement = one_number_case.judge("def test_there(): assert result()" + INTEGRITY)
    assert judgement.state == "failed"
    assert outcomes(judgement)["measurements result.json"] == ("passed", False)
    assert outcomes(judgement)["tamper report.md"] == ("failed", True)
    assert judgement.coverage.fraction == 0.0, "the digest of result.json would notice every change"


def test_a_gate_of_integrity_checks_alone_judges_no_content(one_number_case):
    judgement = one_number_case.judge(INTEGRITY, patterns=["figures/*"])
    assert judgement.state == "failed"
    assert outcomes(judgement)["measurements result.json"] == ("passed", False)
    assert outcomes(judgement)["content figures/*"] == ("errored", False)
    assert judgement.digest_only == ("figures/*",)
    assert judgement.coverage.claimed == ("count",)
    [reason] = judgement.reasons
    assert reason.startswith("this gate cannot fail: it passes on a copy with every measurement")


def test_only_the_plan_exempts_a_mutant_that_survives(case):
    case.only("result.json", "figures/loss.png", measurements=exact_measurements(count=4))
    source = "def test_count(): assert value('count') == 4"
    judgement = case.judge(source)
    assert judgement.state == "failed"
    assert judgement.reasons == (
        "this gate cannot fail: it survives a mutant of figures/loss.png"
        " (one byte of pixel data changed)",
    )
    exempt = (Exemption(files="figures/*.png", reason="drawn by hand"),)
    judgement = case.judge(source, exempt=exempt)
    assert (judgement.state, judgement.exempt) == ("verified", exempt)
    survived = ("passed", False)
    assert outcomes(judgement)["tamper figures/loss.png"] == survived, "it is tried and reported"
    verdict = verdict_of(judgement, outputs=case.outputs, configuration=[])
    assert [str(item) for item in verdict.gate.exempt] == ["figures/*.png: drawn by hand"]
    judgement = case.judge(source, exempt=[Exemption(files="figures/*.svg", reason="no reason")])
    assert judgement.state == "failed", "an exemption covers the files that it names"


def test_a_crash_on_a_mutant_kills_nothing(small_case):
    judgement = small_case.judge("def test_count():\n    if value('count') != 4: os._exit(3)")
    assert judgement.true_run.outcome == "passed"
    assert judgement.state == "failed"
    assert outcomes(judgement)["measurements result.json"] == ("errored", False)
    assert "this gate was not tested on a copy with every measurement" in judgement.reasons[0]
    assert "its checks must fail, but the run errored: " in judgement.reasons[0]
    assert judgement.coverage.claimed == ("count",)


def test_a_check_that_exists_only_for_a_mutant_kills_nothing(small_case):
    judgement = small_case.judge(
        """
def test_there(): assert (out() / "result.json").exists()
if (out() / "result.json").exists() and value("count") != 4:
    def test_extra(): assert False
"""
    )
    assert outcomes(judgement) == {
        "measurements result.json": ("errored", False),
        "empty": ("failed", True),
    }
    assert judgement.reasons[0].endswith(
        "ran, but were not collected on an empty folder: test_extra"
    )
    assert judgement.coverage.claimed == ("count",)


def test_a_gate_that_changes_itself_is_errored(small_case):
    source = "def test_count():\n    assert value('count') == 4\n    open(__file__, 'a').write('#')"
    judgement = small_case.judge(source)
    assert (judgement.state, judgement.reasons) == (
        "errored",
        ("the gate's own files were changed while it ran",),
    )


#### runs that are errored, and so never passed

ERRORED_RUNS = {
    "skip mark": ("@pytest.mark.skip\ndef test_a(): pass", "skip"),
    "skip call": ("def test_a(): pytest.skip('not today')", "skipped"),
    "one of two skipped": ("def test_a(): pass\ndef test_b(): pytest.skip('no')", "test_b"),
    "unittest skip": (
        "import unittest\nclass TestA(unittest.TestCase):\n"
        "    @unittest.skip('x')\n    def test_a(self): pass",
        "skipped",
    ),
    "xfail": ("@pytest.mark.xfail\ndef test_a(): assert False", "xfail"),
    "xpass": ("@pytest.mark.xfail(strict=False)\ndef test_a(): pass", "xfail"),
    "xfail parameter": (
        "@pytest.mark.parametrize('x', [pytest.param(1, marks=pytest.mark.xfail)])\n"
        "def test_a(x): pass",
        "xfail",
    ),
    "unknown mark": ("@pytest.mark.integrty\ndef test_a(): pass", "integrty"),
    "no test": ("def helper(): pass", "no check"),
    "syntax": ("def test_a(: pass", "could not collect"),
    "reads at import": ("RESULT = result()\ndef test_a(): pass", "could not collect"),
    "checks that depend on the outputs": (
        "NAMES = list(result()['measurements']) if (out() / 'result.json').exists() else ['none']\n"
        "@pytest.mark.parametrize('name', NAMES)\ndef test_a(name): pass",
        "test_a[count]",
    ),
    "exits with 0": ("def test_a(): os._exit(0)", "no report"),
    "exits with 1": ("def test_a(): os._exit(1)", "no report"),
    "stops pytest with 0": (
        "def test_a(): pass\n"
        "def test_b(): pytest.exit('done', returncode=0)\n"
        "def test_c(): assert False",
        "the report states 1 checks and lists 2",
    ),
    "stops pytest in a fixture": (
        "@pytest.fixture\ndef f(): pytest.exit('done', returncode=0)\n"
        "def test_a(): pass\ndef test_b(f): pass",
        "collected, but did not run: test_b",
    ),
    "exit code changed": (
        "import atexit\natexit.register(os._exit, 0)\ndef test_a(): assert False",
        "disagrees",
    ),
    "killed": ("import signal\ndef test_a(): os.kill(os.getpid(), signal.SIGKILL)", "signal 9"),
}


@pytest.mark.parametrize("name", ERRORED_RUNS)
def test_an_incomplete_run_is_errored(small_case, name):
    source, expected_reason = ERRORED_RUNS[name]
    judgement = small_case.judge(source)
    assert (judgement.state, judgement.true_run.outcome) == ("errored", "errored")
    assert expected_reason in judgement.reasons[0]
    assert judgement.mutants == ()
    verdict = verdict_of(judgement, outputs=small_case.outputs, configuration=[])
    assert verdict.predicate.result == "FAILED"


def test_a_missing_gate_is_errored(small_case):
    judgement = small_case.judge_spec(GateSpec(GateKind.PYTEST, "gates/test_absent.py", 30))
    assert judgement.state == "errored"
    assert "test_absent" in judgement.reasons[0]


def test_time_out_is_errored(small_case):
    begin = time.monotonic()
    judgement = small_case.judge("import time\ndef test_a(): time.sleep(60)", timeout_s=2)
    assert (judgement.state, judgement.reasons) == ("errored", ("timed out after 2 s",))
    assert time.monotonic() - begin < 30


TEARDOWN_RAISES = "@pytest.fixture\ndef late():\n    yield\n    raise OSError('no')\n"


@pytest.mark.parametrize(
    "source",
    [
        "def test_a(): sys.exit(0)",
        "def test_a(): raise SystemExit(0)",
        "def test_a(): pytest.xfail('known')",
        "@pytest.fixture\ndef broken(): raise OSError('no')\ndef test_a(broken): pass",
        TEARDOWN_RAISES + "def test_a(late): pass",
        TEARDOWN_RAISES + "def test_a(late): assert False",
    ],
)
def test_a_check_that_raises_has_failed(small_case, source):
    judgement = small_case.judge(source)
    assert (judgement.state, judgement.true_run.outcome) == ("failed", "failed")
    assert judgement.true_run.failing == ("test_a",)


@pytest.mark.parametrize(
    ("command", "outcome"),
    [("exit 0", "passed"), ("exit 1", "failed"), ("exit 125", "failed"), ("exit 126", "errored"),
     ("no-such-command-here", "errored"), ("kill -9 $$", "errored"), ("exit 255", "errored"),
     ("sleep 60", "errored")],
)  # fmt: skip
def test_shell_exit_codes(small_case, command, outcome):
    assert small_case.judge_shell(command, timeout_s=2).true_run.outcome == outcome


def test_a_good_shell_gate_kills_every_mutant(small_case):
    judgement = small_case.judge_shell('grep -q \'"value": 4,\' "$PHASES_OUT/result.json"')
    assert (judgement.state, judgement.coverage.recomputed) == ("verified", ("count",))


def test_messages_are_one_printable_line(small_case):
    judgement = small_case.judge(r"def test_a(): assert False, 'a\nb\x1b[31m\u202e' + 'x' * 5000")
    [check] = judgement.true_run.checks
    assert check.message.isprintable()
    assert len(check.message) <= 400
    assert all(line.isprintable() for line in judgement.true_run.log_tail.splitlines())


#### the gate's surroundings


def test_nothing_beside_the_gate_is_loaded(small_case, monkeypatch):
    monkeypatch.setenv("PYTEST_ADDOPTS", "--collect-only")
    monkeypatch.setenv("PYTHONPATH", str(small_case.root / "planted"))
    (small_case.root / "planted").mkdir()
    (small_case.root / "planted" / "sitecustomize.py").write_text("raise SystemExit(0)")
    (small_case.gates / "gates" / "conftest.py").write_text("raise SystemExit(0)")
    (small_case.gates / "pytest.ini").write_text("[pytest]\naddopts = --collect-only\n")
    # The process that runs are forked from starts where the runner was started.
    monkeypatch.chdir(small_case.repository)
    (small_case.repository / "conftest.py").write_text("import os\nos._exit(3)\n")
    (small_case.repository / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    for name in ("json.py", "conftest.py", "pytest.py", "sitecustomize.py"):
        (small_case.out / name).write_text("raise SystemExit(0)\n")
        small_case.outputs[name] = sha256(b"raise SystemExit(0)\n")
    (small_case.gates / "gates" / "outputs.py").write_text("FOUR = 4\n")
    judgement = small_case.judge(
        """
from gates import outputs
def test_count(): assert value('count') == outputs.FOUR
def test_no_plugins(pytestconfig):
    assert not pytestconfig.pluginmanager.list_plugin_distinfo()
    assert "hypothesis" not in sys.modules
""",
        exempt=[Exemption(files="*.py", reason="nobody reads them")],
    )
    assert (judgement.state, judgement.reasons) == ("verified", ())


def test_each_copy_is_read_only_and_has_its_own_digests(one_number_case):
    judgement = one_number_case.judge(
        INTEGRITY
        + """
def test_count(): assert value("count") == 4

def test_digests():
    expected = json.loads(Path(os.environ["PHASES_DIGESTS"]).read_text())
    actual = {p.relative_to(out()).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
              for p in out().rglob("*") if p.is_file()}
    assert actual == expected

def test_read_only():
    assert not any(p.stat().st_mode & 0o222 for p in [out(), *out().rglob("*")])

def test_home_is_private():
    assert not any(Path.home().iterdir()) and Path.cwd() == out()
"""
    )
    assert judgement.state == "verified"
    for mutant in judgement.mutants:
        surroundings = {"test_digests", "test_read_only", "test_home_is_private"}
        assert not surroundings & set(mutant.killed_by)


def test_a_run_inherits_nothing_of_other_runs(small_case):
    """Runs are forked from one process, and each is as new as a process that was started."""
    judgement = small_case.judge(
        """
import threading
def test_new():
    assert not hasattr(sys, "seen") and "SEEN" not in os.environ
    sys.seen = os.environ["SEEN"] = "yes"
    assert os.getsid(0) == os.getpid() and threading.active_count() == 1
def test_descriptors():
    links = {}
    for name in os.listdir("/proc/self/fd"):
        try: links[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError: pass
    assert not [link for link in links.values() if link.startswith("socket:")], links
    assert len(links) < 12, links
def test_count():
    if list(out().iterdir()): assert value("count") == 4
    else: assert False
"""
    )
    assert (judgement.state, judgement.reasons) == ("verified", ())
    for mutant in judgement.mutants:
        assert mutant.killed_by == ("test_count",)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP"])
def test_a_gate_that_kills_what_it_is_forked_from_gets_a_new_one(small_case, monkeypatch, name):
    monkeypatch.setattr(fork_server, "ANSWER_S", 3.0)
    monkeypatch.setattr(fork_server, "END_S", 0.1)
    judgement = small_case.judge(
        f"""
import signal
def test_count():
    assert value("count") == 4
    supervisor = Path(f"/proc/{{os.getppid()}}/stat").read_text()
    os.kill(int(supervisor.rpartition(")")[2].split()[1]), signal.{name})
"""
    )
    assert (judgement.state, judgement.reasons) == ("verified", ())


def test_why_runs_cannot_be_forked_is_said(small_case, monkeypatch):
    monkeypatch.setattr(gate_run, "PYTEST_SERVER", small_case.root / "absent.py")
    with pytest.raises(EnvironmentFaultError, match=r"does not answer(.|\n)*absent\.py"):
        small_case.judge("def test_count(): assert value('count') == 4")


def test_signals_are_those_of_a_new_interpreter(small_case):
    judgement = small_case.judge(
        """
import signal, subprocess
def test_pipe():
    found = subprocess.run(["grep", "-q", "hit"], input="hit\\n" * 200_000, text=True)
    assert found.returncode == 0
def test_interrupt():
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
def test_count(): assert value("count") == 4
"""
    )
    assert (judgement.state, judgement.reasons) == ("verified", ())


def test_what_a_run_leaves_behind_dies_with_it(small_case, tmp_path):
    pids = tmp_path / "pids"
    judgement = small_case.judge(
        f"""
import subprocess
def test_count():
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    with open({str(pids)!r}, "a") as file: file.write(f"{{child.pid}}\\n")
    assert value("count") == 4
"""
    )
    assert judgement.state == "verified"
    assert pids.read_text().split()
    assert not [pid for pid in pids.read_text().split() if psutil.pid_exists(int(pid))]


def test_the_cache_is_shared_and_keyed_by_what_was_read(case, tmp_path):
    log = tmp_path / "computed"
    judgement = case.only(
        "artifacts/losses.safetensors",
        "result.json",
        measurements=exact_measurements(mean_loss=2.75),
    ).judge(
        f"""
def mean():
    key = json.loads(Path(os.environ["PHASES_DIGESTS"]).read_text())["artifacts/losses.safetensors"]
    path = Path(os.environ["PHASES_GATE_CACHE"]) / key
    if not path.exists():
        with open({str(log)!r}, "a") as file: file.write(key + "\\n")
        path.write_text(str(sum(losses()) / 4))
    return float(path.read_text())

def test_mean(): assert value("mean_loss") == mean() and abs(losses()[0] - 2.0) < 1e-6
"""
    )
    assert judgement.state == "verified"
    computed = log.read_text().split()
    true_digest = case.outputs["artifacts/losses.safetensors"]
    assert computed.count(true_digest) == 2, (
        "once in the shared cache, once in that of the control for damaged files"
    )
    assert len(computed) == 3, "once for the damaged arrays"
    assert computed[0] == true_digest


WRITES = {
    "changes": "os.chmod(path, 0o600); path.write_text(path.read_text() + ' ')",
    "adds": "os.chmod(out(), 0o700); (out() / 'new').write_text('x')",
    "removes": "os.chmod(out(), 0o700); path.unlink()",
    "replaces": (
        "os.chmod(out(), 0o700); data = path.read_bytes(); path.unlink(); path.write_bytes(data)"
    ),
    "links": "os.chmod(out(), 0o700); path.unlink(); path.symlink_to('/etc/passwd')",
}


@pytest.mark.parametrize("how", WRITES)
def test_a_gate_that_changes_its_input_is_errored(small_case, how):
    judgement = small_case.judge(f"""
def test_count():
    assert value("count") == 4
    path = out() / "result.json"
    {WRITES[how]}
""")
    assert judgement.state == "errored"
    assert "the gate changed its input" in judgement.reasons[0]
    assert (
        sha256((small_case.out / "result.json").read_bytes()) == small_case.outputs["result.json"]
    ), "the original is unchanged"


def test_a_write_to_a_mutant_is_detected(case):
    case.only("report.md", "result.json", measurements=exact_measurements(count=4))
    judgement = case.judge(
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
    assert judgement.state == "errored"
    assert "report.md was changed" in judgement.reasons[0]
    assert sha256((case.out / "report.md").read_bytes()) == case.outputs["report.md"]


def test_the_original_is_copied_not_linked(case):
    before = {path: (case.out / path).stat() for path in case.outputs}
    case.judge("def test_a(): assert False")
    for path, stat in before.items():
        after = (case.out / path).stat()
        assert after.st_nlink == 1
        assert (after.st_mode, after.st_ctime_ns) == (stat.st_mode, stat.st_ctime_ns)


def test_only_declared_outputs_are_shown(small_case):
    (small_case.out / "extra.txt").write_text("undeclared")
    judgement = small_case.judge(
        "def test_a(): assert value('count') == 4 and os.listdir(out()) == ['result.json']"
    )
    assert judgement.state == "verified"


def test_outputs_that_changed_since_they_were_collected_are_not_judged(small_case):
    (small_case.out / "result.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"result\.json: got sha256 .* expected"):
        small_case.judge("def test_a(): pass")


@pytest.mark.parametrize(
    "make", [lambda path: path.symlink_to("original"), os.mkfifo, os.mkdir, lambda path: None]
)
def test_an_output_that_is_no_regular_file_is_not_judged(small_case, make):
    # The link is refused although it leads to the very bytes that were collected.
    (small_case.out / "result.json").rename(small_case.out / "original")
    make(small_case.out / "result.json")
    with pytest.raises(IntegrityError, match=r"result\.json"):
        small_case.judge("def test_a(): pass")


def test_measurements_that_cannot_be_read_are_not_judged(small_case):
    data = b'{"measurements": {"count": {"value": NaN}}}'
    (small_case.out / "result.json").write_bytes(data)
    small_case.outputs["result.json"] = sha256(data)
    judgement = small_case.judge("def test_a(): assert (out() / 'result.json').exists()")
    assert judgement.state == "errored"
    assert "measurements.count.value: NaN" in judgement.reasons[0]


def test_names_of_measurements_are_no_paths(small_case):
    small_case.only("result.json", measurements=exact_measurements(**{"../../../escape": 4, "": 1}))
    judgement = small_case.judge(
        "def test_a(): assert (value('../../../escape'), value('')) == (4, 1)"
    )
    assert (judgement.state, judgement.coverage.recomputed) == ("verified", ("../../../escape", ""))


def test_a_stop_signal_ends_the_judgement(small_case):
    small_case.only(
        "result.json", measurements=exact_measurements(**{f"m{i}": i for i in range(50)})
    )
    spec = small_case.pytest_gate("""
import time
def test_a():
    time.sleep(0.2)
    assert [value(f"m{i}") for i in range(50)] == list(range(50))
""")
    timer = threading.Timer(3, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    begin = time.monotonic()
    with pytest.raises(InterruptedRunError):
        small_case.judge_spec(spec)
    assert time.monotonic() - begin < 15
    assert {path.name for path in small_case.workspace.iterdir()} <= {"runs", "import_block"}


#### case I-18: a gate imports nothing of the repository

NO_LAB = "a gate cannot import lab: a gate judges files, and lab is the code that wrote them"

BLOCKED_IMPORTS = {
    "import": ("import lab", NO_LAB),
    "submodule": ("from lab.config import Config", NO_LAB),
    "import_module": ("import importlib; importlib.import_module('lab.config')", NO_LAB),
    "find_spec": ("import importlib.util; importlib.util.find_spec('lab')", NO_LAB),
    "runner": ("import phases.cli", "a gate cannot import phases: "),
    "module of the repository": ("import helper", "a gate cannot import helper: "),
    "package": ("import package.module", "a gate cannot import package: "),
    "namespace package": ("import space.module", "a gate cannot import space: "),
    "name of a test": ("import test_helper", "a gate cannot import test_helper: "),
}


def write_modules(repository):
    """Write modules of the repository; return the gate's line that puts it on the path."""
    for path in ("helper.py", "test_helper.py", "package/__init__.py", "package/module.py",
                 "space/module.py", "json.py", "gates/only_in_the_repository.py"):  # fmt: skip
        (repository / path).parent.mkdir(exist_ok=True)
        (repository / path).write_text("")
    return f"sys.path.insert(0, {str(repository)!r})\n"


@pytest.mark.parametrize("name", BLOCKED_IMPORTS)
def test_i_18_a_gate_that_imports_the_repository_is_errored(small_case, name):
    source, message = BLOCKED_IMPORTS[name]
    path = write_modules(small_case.repository)
    judgement = small_case.judge(f"{path}{source}\ndef test_a(): assert value('count') == 4")
    assert judgement.state == "errored"
    assert f"ImportError: {message}" in judgement.reasons[0]


def test_i_18_a_check_that_imports_it_has_failed(small_case):
    judgement = small_case.judge("def test_a():\n    import lab\n    assert value('count') == 4")
    [check] = judgement.true_run.checks
    assert judgement.state == "failed"
    assert NO_LAB in check.message


def test_i_18_libraries_and_the_gates_own_modules_are_imported(small_case):
    (small_case.gates / "gates" / "outputs.py").write_text("FOUR = 4\n")
    (small_case.gates / "gates" / "__init__.py").unlink()
    path = write_modules(small_case.repository)
    judgement = small_case.judge(
        path
        + """
import numpy, safetensors, yaml
from gates import outputs
def test_a(): assert numpy.int64(value("count")) == outputs.FOUR
def test_path():
    import gates
    assert [Path(folder).parent.name for folder in gates.__path__] == ["materialised"]
"""
    )
    assert (judgement.state, judgement.reasons) == ("verified", ())


def test_i_18_processes_that_a_gate_starts_cannot_import_it_either(small_case):
    judgement = small_case.judge(
        """
import importlib, multiprocessing, subprocess

@pytest.mark.parametrize("module, expected", [("lab", 1), ("phases", 1), ("numpy", 0)])
def test_program(module, expected):
    command = [sys.executable, "-c", f"import {module}"]
    child = subprocess.run(command, capture_output=True, text=True)
    assert child.returncode == expected
    assert ("a gate cannot import" in child.stderr) == bool(expected)

@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_pool(start):
    with multiprocessing.get_context(start).Pool(1) as pool:
        with pytest.raises(ImportError, match="a gate cannot import lab"):
            pool.apply(importlib.import_module, ["lab"])

def test_count(): assert value("count") == 4
"""
    )
    assert (judgement.state, judgement.reasons) == ("verified", ())


def test_i_18_a_shell_gate_cannot_import_it(small_case):
    judgement = small_case.judge_shell('python -c "import lab"')
    assert judgement.state == "failed"
    assert NO_LAB in judgement.reasons[0]
    judgement = small_case.judge_shell(
        'python -c "import numpy" && grep -q \'"value": 4,\' result.json'
    )
    assert (judgement.state, judgement.reasons) == ("verified", ())


def test_i_18_control_without_the_block_it_is_imported(small_case):
    source = "import lab, phases\ndef test_a(): assert value('count') == 4"
    assert small_case.judge(source, root=None).state == "verified"
    judgement = small_case.judge_shell(
        'python -c "import lab, phases" && grep -q \'"value": 4,\' result.json', root=None
    )
    assert judgement.state == "verified"


#### phases and preconditions


def phase_arguments(case):
    folders = {name: case.root / "features" / name for name in ("FEAT-001", "FEAT-002")}
    measurements = exact_measurements(count=4)
    outputs = {name: write_outputs(folder, measurements) for name, folder in folders.items()}
    return {"features": folders, "outputs": outputs, **case.common()}


def test_an_exit_gate_must_judge_every_feature(case):
    source = """
@pytest.mark.parametrize("name", [{names}])
def test_count(name):
    measurements = json.loads((out() / name / "result.json").read_text())["measurements"]
    assert measurements["count"]["value"] == 4
"""
    spec = case.pytest_gate(source.format(names="'FEAT-001', 'FEAT-002'"))
    judgement = judge_phase(spec, **phase_arguments(case))
    assert (judgement.state, judgement.coverage) == ("verified", None)
    killed_by = {mutant.mutation.name: mutant.killed_by for mutant in judgement.mutants}
    assert killed_by["measurements FEAT-002"] == ("test_count[FEAT-002]",)
    assert set(killed_by) == {"empty", "measurements FEAT-001", "measurements FEAT-002"}
    spec = case.pytest_gate(source.format(names="'FEAT-001'"))
    judgement = judge_phase(spec, **phase_arguments(case))
    assert judgement.state == "failed"
    assert judgement.reasons[0].endswith("FEAT-002")


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        ("test -s VISION.md", "passed"),
        ("test -s ABSENT.md", "failed"),
        ("absent-command", "errored"),
        ('test "$OMP_NUM_THREADS" = 2', "passed"),
    ],
)
def test_an_entry_gate_may_be_a_command(case, command, outcome):
    spec = GateSpec(GateKind.SHELL, command, 5)
    assert run_entry(case, spec).outcome == outcome


def test_an_entry_gate_runs_in_the_repository_root(case):
    spec = case.pytest_gate(
        "def test_a(): assert Path('VISION.md').exists() and 'PHASES_OUT' not in os.environ"
    )
    assert run_entry(case, spec).outcome == "passed"


def run_entry(case, spec):
    (case.gates / "VISION.md").write_text("x")
    return run_entry_gate(
        spec,
        root=case.gates,
        workspace=case.workspace,
        env={"OMP_NUM_THREADS": "2"},
        sandbox=NoSandbox(),
    )
