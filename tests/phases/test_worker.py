"""An experiment that is well, one that crashes, one that hangs, one that lies about its progress; and their folder."""

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
    """A view that remembers."""

    def __init__(self):
        self.events = []

    def progress(self, done, total, note):
        self.events.append((done, total, note))


@pytest.fixture
def place(tmp_path):
    with worker.staging(ROOT, tmp_path) as place:
        place.inputs_file.write_text('{"concepts": {"kind": "input", "path": "docs"}}')
        yield place


def run(place, code, *, view=None, timeout_s=60.0, **env):
    job = worker.Job(
        argv=[sys.executable, "-c", code],
        root=ROOT,
        env={**place.environment, **env},
        out=place.out,
        inputs_file=place.inputs_file,
        events=place.events,
        log=place.folder / "log",
        timeout_s=timeout_s,
        sandbox=choose_sandbox("none"),
        grace_s=0.5,
    )
    return worker.run(job, view or Recorder())


#### the run


def test_an_experiment_sees_its_root_its_inputs_and_a_private_home(place, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    code = """
import json, os, pathlib, tempfile
seen = {"cwd": os.getcwd(), "home": str(pathlib.Path.home()), "tmp": tempfile.gettempdir(),
        "inputs": json.load(open(os.environ["PHASES_INPUTS"])), "rank": os.environ["RANK"],
        "empty": os.listdir(os.environ["HOME"])}
with open(os.environ["OUT"] + "/result.json", "w") as file: json.dump(seen, file)
"""
    finished = run(place, code, OUT=str(place.out), RANK="8")
    assert finished.exit_code == 0
    assert json.loads((place.out / "result.json").read_text()) == {
        "cwd": str(ROOT),
        "home": str(place.home),
        "tmp": str(place.tmp),
        "inputs": {"concepts": {"kind": "input", "path": "docs"}},
        "rank": "8",
        "empty": [],
    }


def test_a_crash_is_data(place):
    finished = run(place, "print('so far'); raise RuntimeError('no convergence')")
    assert (finished.exit_code, finished.timed_out) == (1, False)
    assert "RuntimeError: no convergence" in (place.folder / "log").read_text()


def test_a_time_out_is_data_and_the_log_holds_what_was_printed(place):
    finished = run(place, "import time; print('epoch 1'); time.sleep(999)", timeout_s=1.5)
    assert finished.timed_out
    assert (place.folder / "log").read_text() == "epoch 1\n"


#### progress

REPORT = """
import json, os, time
def report(line):
    with open(os.environ["PHASES_EVENTS"], "ab") as file: file.write(line)
def progress(done, total, note): report(json.dumps({"done": done, "total": total, "note": note}).encode() + b"\\n")
"""


def test_progress_reaches_the_view_while_the_experiment_runs(place):
    view = Recorder()
    code = REPORT + "for i in range(6): progress(i + 1, 6, f'step {i}'); time.sleep(0.25)"
    assert run(place, code, view=view).exit_code == 0
    assert len(view.events) >= 3  # not all at the end
    assert view.events == sorted(view.events)
    assert view.events[-1] == (6, 6, "step 5")


def test_malformed_lines_are_passed_over(place):
    view = Recorder()
    code = (
        REPORT
        + """
progress(1, 4, "good")
time.sleep(0.5)
for line in (b"\\xff\\xfe", b"not json", b"[]", b'{"done": "2", "total": 4}', b'{"done": NaN, "total": 4}',
             b'{"done": 9, "total": 4}', b'{"done": -1, "total": 4}', b'{"done": true, "total": 4}',
             b'{"total": 4}', b'{"done": 2, "total": 4, "note": 5}', b"[" * 100000, b"x" * 1000000):
    report(line + b"\\n")
time.sleep(0.5)
progress(3, 4, "after")
report(b'{"done": 4, "total": 4')
"""
    )
    assert run(place, code, view=view).exit_code == 0
    assert view.events == [(1, 4, "good"), (3, 4, "after")]


def test_a_flood_of_progress_is_read_up_to_a_limit(place):
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
    assert run(place, code, view=view).exit_code == 0
    assert view.events == [(1, 2, "before the flood")]


@pytest.mark.parametrize(
    "trick", ["os.mkfifo(path)", "os.symlink('/dev/zero', path)", "os.mkdir(path)", "pass"]
)
def test_an_events_file_that_was_replaced_holds_nothing_up(place, trick):
    view = Recorder()
    code = (
        REPORT
        + f"progress(1, 2, 'first'); time.sleep(0.5); path = os.environ['PHASES_EVENTS']; os.unlink(path); {trick}"
    )
    assert run(place, code, view=view).exit_code == 0
    assert view.events == [(1, 2, "first")]


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.text(max_size=50))
def test_every_honest_line_is_understood(first, second, note):
    done, total = sorted((first, second))
    line = json.dumps({"done": done, "total": total, "note": note}).encode()
    if any("\ud800" <= char <= "\udfff" for char in note):
        return
    assert worker.parse_event(line) == worker.Event(done, total, note)


@given(st.binary(max_size=200))
def test_no_line_raises(line):
    event = worker.parse_event(line)
    assert event is None or 0 <= event.done <= event.total


def test_an_error_of_the_view_ends_the_experiment(place):
    class Broken:
        def progress(self, done, total, note):
            raise ZeroDivisionError

    code = (
        REPORT
        + "open(os.environ['OUT'] + '/pid', 'w').write(str(os.getpid())); progress(1, 2, ''); time.sleep(999)"
    )
    with pytest.raises(ZeroDivisionError):
        run(place, code, view=Broken(), OUT=str(place.out))
    assert not Path("/proc", (place.out / "pid").read_text()).exists()


#### the staging folder


def test_the_folder_is_private_and_goes_with_its_context(tmp_path):
    with worker.staging(ROOT, tmp_path) as place:
        assert place.folder.parent == tmp_path
        assert place.folder.stat().st_mode & 0o777 == 0o700
        assert sorted(path.name for path in place.folder.iterdir()) == [
            "events.jsonl",
            "home",
            "lock",
            "out",
            "tmp",
        ]
        (place.out / "deep").mkdir()
        (place.out / "deep" / "file").write_text("x")
        (place.out / "deep").chmod(0)
        (place.out / "link").symlink_to(tmp_path / "kept")
        (tmp_path / "kept").mkdir(mode=0o750)
        (tmp_path / "kept" / "file").write_text("kept")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept" / "file").exists()
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o750


def test_it_goes_after_an_error_too(tmp_path):
    with pytest.raises(ZeroDivisionError), worker.staging(ROOT, tmp_path):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_inside_the_repository_is_refused(tmp_path):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "tmp")
    for base in (tmp_path, tmp_path / "tmp", tmp_path / "alias"):
        with (
            pytest.raises(EnvironmentFaultError, match="lies inside the repository") as caught,
            worker.staging(tmp_path, base),
        ):
            pass
        assert "TMPDIR" in caught.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alias", "tmp"]


def test_what_a_killed_runner_left_is_swept_and_a_living_ones_is_not(tmp_path):
    script = f"""
import os, sys
from pathlib import Path
from phases.execution import worker
with worker.staging(Path({str(ROOT)!r}), Path({str(tmp_path)!r})) as place:
    print(place.folder, flush=True)
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
    dead, living = (Path(runner.stdout.readline().strip()) for runner in runners)
    runners[0].kill()
    runners[0].wait()
    stranger = (
        tmp_path / "phases-run-notes"
    )  # the user's own, by chance of that name: no lock, so not ours
    stranger.mkdir()
    assert dead.exists()
    with worker.staging(ROOT, tmp_path):
        assert not dead.exists()
        assert living.exists()
        assert stranger.exists()
    runners[1].communicate("")
    runners[0].stdin.close()
    runners[0].stdout.close()
    assert not living.exists()


def test_what_a_kill_left_half_removed_is_swept(tmp_path, monkeypatch):
    """Killed before each file and folder that a removal takes away: the next sweep takes the rest."""

    class Killed(BaseException):
        pass

    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    removals = 0
    for number in range(50):
        folder = tmp_path / f"phases-run-{ended.pid}-abc"
        for name in ("out/artifacts", "home", "judge"):
            (folder / name).mkdir(parents=True)
        for name in ("events.jsonl", "lock", "out/result.json", "judge/verdict"):
            (folder / name).write_text("")
        left = number

        def dying(real):
            def step(*arguments, **more):
                nonlocal left
                if left == 0:
                    raise Killed
                left -= 1
                return real(*arguments, **more)

            return step

        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", dying(os.unlink))
            patch.setattr(os, "rmdir", dying(os.rmdir))
            try:
                worker.sweep(tmp_path)
            except Killed:
                removals += 1
        worker.sweep(tmp_path)
        assert not folder.exists(), f"killed at removal {number}"
        if left:
            break
    assert removals >= 9  # files and folders


def test_a_folder_without_its_lock_held_is_never_visible_as_free(tmp_path):
    with worker.staging(ROOT, tmp_path) as place:
        descriptor = os.open(place.folder / "lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
