"""Experiments that work, crash, hang or misreport their progress; and their staging folder."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phases.errors import EnvironmentFaultError
from phases.execution import worker
from phases.execution.sandbox import choose_sandbox

ROOT = Path(__file__).parents[2]


class Recorder:
    """A view that records its calls."""

    def __init__(self):
        self.events = []

    def progress(self, done, total, note):
        self.events.append((done, total, note))


@pytest.fixture
def staging(tmp_path):
    with worker.staging_folder(ROOT, tmp_path) as staging:
        staging.inputs_file.write_text('{"concepts": {"kind": "input", "path": "docs"}}')
        yield staging


def run_code(staging, code, *, view=None, timeout_s=60.0, **env):
    job = worker.Job(
        argv=[sys.executable, "-c", code],
        folder=ROOT,
        env={**staging.environment, **env},
        out=staging.out,
        inputs_file=staging.inputs_file,
        events=staging.events,
        log=staging.folder / "log",
        timeout_s=timeout_s,
        sandbox=choose_sandbox("none"),
        grace_s=0.5,
    )
    return worker.run_experiment(job, view or Recorder())


#### the run


def test_an_experiment_sees_its_root_its_inputs_and_a_private_home(staging, monkeypatch):
    monkeypatch.setenv("HOME", "/home/user")
    code = """
import json, os, pathlib, tempfile
seen = {"cwd": os.getcwd(), "home": str(pathlib.Path.home()), "tmp": tempfile.gettempdir(),
        "inputs": json.load(open(os.environ["PHASES_INPUTS"])), "rank": os.environ["RANK"],
        "empty": os.listdir(os.environ["HOME"])}
with open(os.environ["OUT"] + "/result.json", "w") as file: json.dump(seen, file)
"""
    result = run_code(staging, code, OUT=str(staging.out), RANK="8")
    assert result.exit_code == 0
    assert json.loads((staging.out / "result.json").read_text()) == {
        "cwd": str(ROOT),
        "home": str(staging.home),
        "tmp": str(staging.tmp),
        "inputs": {"concepts": {"kind": "input", "path": "docs"}},
        "rank": "8",
        "empty": [],
    }


def test_a_crash_is_data(staging):
    result = run_code(staging, "print('so far'); raise RuntimeError('no convergence')")
    assert (result.exit_code, result.timed_out) == (1, False)
    assert "RuntimeError: no convergence" in (staging.folder / "log").read_text()


def test_a_time_out_is_data_and_the_log_holds_what_was_printed(staging):
    result = run_code(staging, "import time; print('epoch 1'); time.sleep(999)", timeout_s=1.5)
    assert result.timed_out
    assert (staging.folder / "log").read_text() == "epoch 1\n"


#### progress

REPORT = """
import json, os, time
def report(line):
    with open(os.environ["PHASES_EVENTS"], "ab") as file: file.write(line)
def progress(done, total, note):
    report(json.dumps({"done": done, "total": total, "note": note}).encode() + b"\\n")
"""


def test_progress_reaches_the_view_while_the_experiment_runs(staging):
    view = Recorder()
    code = REPORT + "for i in range(6): progress(i + 1, 6, f'step {i}'); time.sleep(0.25)"
    assert run_code(staging, code, view=view).exit_code == 0
    assert len(view.events) >= 3  # not all at the end
    assert view.events == sorted(view.events)
    assert view.events[-1] == (6, 6, "step 5")


def test_malformed_lines_are_ignored(staging):
    view = Recorder()
    code = (
        REPORT
        + """
progress(1, 4, "good")
time.sleep(0.5)
for line in (
    b"\\xff\\xfe", b"not json", b"[]", b'{"done": "2", "total": 4}', b'{"done": NaN, "total": 4}',
    b'{"done": 9, "total": 4}', b'{"done": -1, "total": 4}', b'{"done": true, "total": 4}',
    b'{"total": 4}', b'{"done": 2, "total": 4, "note": 5}', b"[" * 100000, b"x" * 1000000,
):
    report(line + b"\\n")
time.sleep(0.5)
progress(3, 4, "after")
report(b'{"done": 4, "total": 4')
"""
    )
    assert run_code(staging, code, view=view).exit_code == 0
    assert view.events == [(1, 4, "good"), (3, 4, "after")]


def test_a_flood_of_progress_is_read_up_to_a_limit(staging):
    view = Recorder()
    code = (
        REPORT
        + """
progress(1, 2, "before the flood")
time.sleep(0.5)
for _ in range(40): report(b"x" * 999_999 + b"\\n")
progress(2, 2, "beyond the limit")
"""
    )
    assert run_code(staging, code, view=view).exit_code == 0
    assert view.events == [(1, 2, "before the flood")]


@pytest.mark.parametrize(
    "trick", ["os.mkfifo(path)", "os.symlink('/dev/zero', path)", "os.mkdir(path)", "pass"]
)
def test_an_events_file_that_was_replaced_delays_nothing(staging, trick):
    view = Recorder()
    replace = f"path = os.environ['PHASES_EVENTS']; os.unlink(path); {trick}"
    code = REPORT + f"progress(1, 2, 'first'); time.sleep(0.5); {replace}"
    assert run_code(staging, code, view=view).exit_code == 0
    assert view.events == [(1, 2, "first")]


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.text(max_size=50))
def test_every_well_formed_line_is_parsed(first, second, note):
    done, total = sorted((first, second))
    line = json.dumps({"done": done, "total": total, "note": note}).encode()
    if any("\ud800" <= char <= "\udfff" for char in note):
        return
    assert worker.parse_event(line) == worker.Event(done, total, note)


@given(st.binary(max_size=200))
def test_no_line_raises(line):
    event = worker.parse_event(line)
    assert event is None or 0 <= event.done <= event.total


def test_an_error_of_the_view_ends_the_experiment(staging):
    class Broken:
        def progress(self, done, total, note):
            raise ZeroDivisionError

    write_pid = "open(os.environ['OUT'] + '/pid', 'w').write(str(os.getpid()))"
    code = REPORT + f"{write_pid}; progress(1, 2, ''); time.sleep(999)"
    with pytest.raises(ZeroDivisionError):
        run_code(staging, code, view=Broken(), OUT=str(staging.out))
    assert not Path("/proc", (staging.out / "pid").read_text()).exists()


#### the staging folder


def test_the_folder_is_private_and_goes_with_its_context(tmp_path):
    with worker.staging_folder(ROOT, tmp_path) as staging:
        assert staging.folder.parent == tmp_path
        assert staging.folder.stat().st_mode & 0o777 == 0o700
        assert sorted(path.name for path in staging.folder.iterdir()) == [
            "events.jsonl",
            "home",
            "lock",
            "out",
            "tmp",
        ]
        (staging.out / "deep").mkdir()
        (staging.out / "deep" / "file").write_text("x")
        (staging.out / "deep").chmod(0)
        (staging.out / "link").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere").mkdir(mode=0o750)
        (tmp_path / "elsewhere" / "file").write_text("unchanged")
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
    assert (tmp_path / "elsewhere" / "file").exists()
    assert (tmp_path / "elsewhere").stat().st_mode & 0o777 == 0o750


def test_it_goes_after_an_error_too(tmp_path):
    with pytest.raises(ZeroDivisionError), worker.staging_folder(ROOT, tmp_path):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_inside_the_repository_is_refused(tmp_path):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "tmp")
    for base in (tmp_path, tmp_path / "tmp", tmp_path / "alias"):
        with (
            pytest.raises(EnvironmentFaultError, match="is inside the repository") as excinfo,
            worker.staging_folder(tmp_path, base),
        ):
            pass
        assert "TMPDIR" in excinfo.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alias", "tmp"]


def test_a_killed_runners_folder_is_swept_and_a_running_ones_is_not(tmp_path):
    script = f"""
import os, sys
from pathlib import Path
from phases.execution import worker
with worker.staging_folder(Path({str(ROOT)!r}), Path({str(tmp_path)!r})) as staging:
    print(staging.folder, flush=True)
    sys.stdin.read()
"""
    runners = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    dead, running = (Path(runner.stdout.readline().strip()) for runner in runners)
    runners[0].kill()
    runners[0].wait()
    # The user's own, by chance of that name: no lock, so no runner's.
    foreign = tmp_path / "phases-run-notes"
    foreign.mkdir()
    assert dead.exists()
    with worker.staging_folder(ROOT, tmp_path):
        assert not dead.exists()
        assert running.exists()
        assert foreign.exists()
    runners[1].communicate("")
    runners[0].stdin.close()
    runners[0].stdout.close()
    assert not running.exists()


def test_what_a_kill_left_half_removed_is_swept(tmp_path, monkeypatch):
    """Killed before each file and folder of a removal: the next sweep removes the rest."""

    class Killed(BaseException):
        pass

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    removals = 0
    for number in range(50):
        folder = tmp_path / f"phases-run-{dead.pid}-abc"
        for name in ("out/artifacts", "home", "judge"):
            (folder / name).mkdir(parents=True)
        for name in ("events.jsonl", "lock", "out/result.json", "judge/verdict"):
            (folder / name).write_text("")
        calls_left = number

        def kill_at_the_last(function):
            def wrapper(*arguments, **options):
                nonlocal calls_left
                if calls_left == 0:
                    raise Killed
                calls_left -= 1
                return function(*arguments, **options)

            return wrapper

        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", kill_at_the_last(os.unlink))
            patch.setattr(os, "rmdir", kill_at_the_last(os.rmdir))
            try:
                worker.sweep_staging(tmp_path)
            except Killed:
                removals += 1
        worker.sweep_staging(tmp_path)
        assert not folder.exists(), f"killed at removal {number}"
        if calls_left:
            break
    assert removals >= 9  # files and folders


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_what_belongs_to_another_user_is_left_and_swept_later_i_61(tmp_path):
    """The experiment has taken lock and permissions away, too; its user is not root."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and not folder.stat().st_mode & 0o001:
            folder.chmod(0o711)
    base = tmp_path / "base"
    base.mkdir()
    os.chown(base, 65534, 65534)
    os.setresuid(65534, 65534, 0)
    try:
        with worker.staging_folder(ROOT, base) as staging:
            os.setresuid(0, 0, 0)
            (staging.tmp / "roots/private").mkdir(parents=True, mode=0o700)
            (staging.tmp / "roots/file").touch()
            (staging.out / "empty").mkdir(mode=0o700)
            os.setresuid(65534, 65534, 0)
            (staging.folder / "lock").unlink()
            for folder in (staging.tmp, staging.folder):
                folder.chmod(0)
        names = {path.name for path in staging.folder.rglob("*")}
        assert names == {"lock", "tmp", "roots"} | (names & {"private", "file"})
        staging.folder.chmod(0)
        with worker.staging_folder(ROOT, base) as other:
            assert staging.folder.exists()
        assert not other.folder.exists()
        os.setresuid(0, 0, 0)
        os.chown(staging.tmp / "roots", 65534, 65534)
        os.chown(staging.tmp / "roots/private", 65534, 65534)
        os.setresuid(65534, 65534, 0)
        worker.sweep_staging(base)
        assert list(base.iterdir()) == []
    finally:
        os.setresuid(0, 0, 0)


def test_a_folder_without_its_lock_held_is_never_visible_as_free(tmp_path):
    with worker.staging_folder(ROOT, tmp_path) as staging:
        descriptor = os.open(staging.folder / "lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
