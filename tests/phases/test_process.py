"""Real child processes: their end, their limits, their output, and that nothing of them is left."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phases.errors import InterruptedRunError
from phases.execution import capped_log, process

ROOT = Path(__file__).parents[2]


def run_python(
    code: str, folder: Path, *, timeout_s: float = 60, grace_s: float = 0.5, **options
) -> process.ProcessResult:
    return process.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=process.clean_environment({"FOLDER": str(folder)}),
        log=folder / "log",
        timeout_s=timeout_s,
        grace_s=grace_s,
        **options,
    )


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition, seconds: float = 20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.02)


#### how it ended


@pytest.mark.parametrize("code", [0, 1, 77, 255])
def test_the_exit_code_is_the_jobs(tmp_path, code):
    result = run_python(f"import sys; sys.exit({code})", tmp_path)
    assert (result.exit_code, result.signal, result.timed_out) == (code, None, False)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGTERM, signal.SIGKILL])
def test_death_by_a_signal_is_no_exit_code(tmp_path, number):
    result = run_python(f"import os; os.kill(os.getpid(), {int(number)})", tmp_path)
    assert (result.exit_code, result.signal) == (None, number)


def test_a_command_that_cannot_start_ends_as_in_a_shell(tmp_path):
    plain = tmp_path / "plain.txt"
    plain.write_text("not executable")
    options = {
        "cwd": tmp_path,
        "env": process.clean_environment({}),
        "log": tmp_path / "log",
        "timeout_s": 60,
    }
    assert process.run(["no-such-command-anywhere"], **options).exit_code == 127
    assert "cannot start 'no-such-command-anywhere': No such file" in (tmp_path / "log").read_text()
    assert process.run([str(plain)], **options).exit_code == 126


def test_stdin_is_empty_and_output_and_errors_share_the_log(tmp_path):
    result = run_python(
        "import sys; print(repr(sys.stdin.read())); sys.stdout.flush(); sys.stderr.write('oh')",
        tmp_path,
    )
    assert (tmp_path / "log").read_bytes() == b"''\noh"
    assert (result.log_bytes, result.log_truncated) == (5, False)


def test_no_descriptor_of_the_runner_reaches_the_job(tmp_path):
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)  # noqa: FBT003
        run_python("import os; print(sorted(os.listdir('/proc/self/fd')))", tmp_path)
    assert (tmp_path / "log").read_text() == "['0', '1', '2', '3']\n"  # 3: the listing's own


def test_the_job_has_default_signals(tmp_path):
    run_python("import signal; print(*map(int, map(signal.getsignal, (13, 15, 1))))", tmp_path)
    # Python itself ignores SIGPIPE (13) at its start; the shell shows what it was given.
    run = process.run(
        ["sh", "-c", "grep SigIgn /proc/self/status"],
        cwd=tmp_path,
        env=process.clean_environment({}),
        log=tmp_path / "log",
        timeout_s=60,
    )
    assert run.exit_code == 0
    ignored = int((tmp_path / "log").read_text().split()[1], 16)
    # Bit n - 1 means signal n. 32 and 33 belong to the C library, which lets no program change
    # them: where the caller's own parent ignored them, so does every process below it.
    assert ignored & ~(1 << 31 | 1 << 32) == 0


def test_time_and_memory_are_those_of_the_job(tmp_path):
    busy = "end = time.process_time() + 0.4\nwhile time.process_time() < end: pass"
    code = f"import time; b = bytearray(120_000_000); {busy}"
    result = run_python(code, tmp_path)
    assert result.peak_memory_bytes >= 120_000_000
    assert 0.4 <= result.cpu_seconds < 5
    assert result.seconds >= 0.4
    small = run_python("pass", tmp_path)
    assert small.peak_memory_bytes < 60_000_000
    assert small.cpu_seconds < 0.4


def test_memory_and_time_of_a_whole_tree_are_added(tmp_path):
    code = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        block = b"x" * 60_000_000
        end = time.process_time() + 0.2
        while time.process_time() < end: pass
        time.sleep(1.5)
        os._exit(0)
for _ in range(3): os.wait()
"""
    result = run_python(code, tmp_path)
    assert result.peak_memory_bytes >= 180_000_000
    assert result.cpu_seconds >= 0.6


def test_a_job_that_sleeps_costs_the_runner_nearly_nothing(tmp_path):
    # On a machine with many processes a look at all of them takes long.
    loop = "i=0; while [ $i -lt 300 ]; do sleep 60 & i=$((i + 1)); done; wait"
    crowd = subprocess.Popen(["sh", "-c", loop], process_group=0)
    try:
        wait_until(lambda: len(psutil.Process(crowd.pid).children()) == 300)
        run_python("pass", tmp_path)  # starts what jobs are forked from
        begin = time.process_time()
        result = run_python("import time; time.sleep(3)", tmp_path, on_tick=lambda: None)
        spent = time.process_time() - begin
    finally:
        os.killpg(crowd.pid, signal.SIGKILL)
        crowd.wait()
    # Ten ticks a second, and samples of memory: 0.3 % of a CPU at most; a busy machine is slower.
    assert spent < 0.015 * result.seconds


#### limits


def test_a_time_out_terminates_first(tmp_path):
    code = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
print("ready")
time.sleep(60)
"""
    result = run_python(code, tmp_path, timeout_s=1, grace_s=20)
    assert (result.exit_code, result.timed_out) == (5, True)
    assert 1 <= result.seconds < 15


def test_a_time_out_kills_who_does_not_listen(tmp_path):
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('deaf'); time.sleep(60)"
    )
    result = run_python(code, tmp_path, timeout_s=1, grace_s=0.5)
    assert (result.signal, result.timed_out) == (signal.SIGKILL, True)
    assert 1.5 <= result.seconds < 15
    assert (tmp_path / "log").read_text() == "deaf\n"


def test_a_time_out_reaches_a_job_that_floods_the_log(tmp_path):
    result = run_python("import os\nwhile True: os.write(1, b'x' * 65536)", tmp_path, timeout_s=1)
    assert result.timed_out
    assert result.seconds < 15


def test_ticks_come_while_the_job_runs_and_their_error_ends_it(tmp_path):
    ticks = []
    run_python(
        "import time; time.sleep(1)", tmp_path, on_tick=lambda: ticks.append(time.monotonic())
    )
    assert 3 <= len(ticks) <= 12

    def fail():
        if (tmp_path / "pid").exists():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_python(
            "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)",
            tmp_path,
            on_tick=fail,
        )
    wait_until(lambda: not is_alive(int((tmp_path / "pid").read_text() or 0)))


#### nothing is left


ESCAPES = {
    "child": "pid = os.fork()\nif pid == 0: sleep()",
    "own group": "pid = os.fork()\nif pid == 0: os.setpgid(0, 0); sleep()",
    "own session": "pid = os.fork()\nif pid == 0: os.setsid(); sleep()",
    "daemon": "if os.fork() == 0:\n os.setsid()\n if os.fork() == 0: sleep()\n os._exit(0)",
    "silent daemon": "if os.fork() == 0:\n os.setsid(); os.closerange(0, 99)\n"
    " if os.fork() == 0: sleep()\n os._exit(0)",
    "clean environment": "if os.fork() == 0:\n os.setsid()\n os.execve(sys.executable, ['x', '-c', "
    '\'import os, time; open("pid", "w").write(str(os.getpid())); time.sleep(999)\'], {})',
}
SLEEPER = """
import os, signal, sys, time
def sleep():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open("pid.tmp", "w") as file: file.write(str(os.getpid()))
    os.rename("pid.tmp", "pid")
    time.sleep(999)
"""
WAIT = "\nwhile not os.path.exists('pid') or not open('pid').read(): time.sleep(0.01)\n"


@pytest.mark.parametrize("escape", ESCAPES)
def test_no_descendant_outlives_its_leader(tmp_path, escape):
    assert run_python(SLEEPER + ESCAPES[escape] + WAIT + "os._exit(0)", tmp_path).exit_code == 0
    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_no_descendant_outlives_a_time_out(tmp_path):
    code = SLEEPER + ESCAPES["daemon"] + WAIT + "time.sleep(999)"
    assert run_python(code, tmp_path, timeout_s=3, grace_s=0.2).timed_out
    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_a_job_that_kills_its_supervisor_is_killed_with_it(tmp_path):
    code = SLEEPER + ESCAPES["child"] + WAIT + "os.kill(os.getppid(), 9); time.sleep(999)"
    result = run_python(code, tmp_path)
    assert (result.exit_code, result.signal) == (None, signal.SIGKILL)
    assert not is_alive(int((tmp_path / "pid").read_text()))
    assert "supervisor of this process was killed" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("escape", ["daemon", "silent daemon", "clean environment"])
def test_what_a_killed_supervisor_leaves_dies_too(tmp_path, escape):
    code = SLEEPER + ESCAPES[escape] + WAIT + "os.kill(os.getppid(), 9); time.sleep(999)"
    assert run_python(code, tmp_path).signal == signal.SIGKILL
    assert not is_alive(int((tmp_path / "pid").read_text()))


PARENT_OF_PARENT = "int(open(f'/proc/{os.getppid()}/stat').read().rpartition(')')[2].split()[1])"


def test_a_job_that_kills_supervisor_and_server_is_killed_with_them(tmp_path):
    kill = f"server = {PARENT_OF_PARENT}; os.kill(server, 9); os.kill(os.getppid(), 9)"
    code = SLEEPER + ESCAPES["own group"] + WAIT + kill + "\ntime.sleep(999)"
    assert run_python(code, tmp_path).signal == signal.SIGKILL
    assert not is_alive(int((tmp_path / "pid").read_text()))
    assert run_python("pass", tmp_path).exit_code == 0  # by a new server


def test_a_job_whose_server_is_killed_goes_on(tmp_path):
    (tmp_path / "long").mkdir()
    code = SLEEPER + ESCAPES["daemon"] + WAIT + f"os.kill({PARENT_OF_PARENT}, 9); time.sleep(1)"
    with ThreadPoolExecutor(1) as pool:
        long_run = pool.submit(run_python, code + "\nsys.exit(7)", tmp_path / "long")
        wait_until((tmp_path / "long" / "pid").exists)
        assert run_python("pass", tmp_path).exit_code == 0
        assert long_run.result().exit_code == 7
    assert not is_alive(int((tmp_path / "long" / "pid").read_text()))


def test_all_jobs_are_forked_from_one_server_which_ends_with_the_runner(tmp_path):
    script = f"""
from pathlib import Path
from phases.execution import process
for number in range(3):
    log = Path({str(tmp_path)!r}) / str(number)
    argv = ["sh", "-c", "cut -d' ' -f4 /proc/$PPID/stat"]
    process.run(argv, cwd=log.parent, env=process.clean_environment({{}}), log=log, timeout_s=60)
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
    servers = {(tmp_path / str(number)).read_text() for number in range(3)}
    assert len(servers) == 1
    assert not is_alive(int(servers.pop()))


def test_no_descriptor_is_left_in_the_runner(tmp_path):
    def count() -> int:
        return psutil.Process().num_fds()

    run_python("pass", tmp_path)
    before = count()
    for _ in range(3):
        run_python("pass", tmp_path)
    with pytest.raises(FileNotFoundError):
        process.run(["true"], cwd=tmp_path / "absent", env={}, log=tmp_path / "log", timeout_s=1)
    assert count() == before


#### the log


def test_200_megabytes_of_output_leave_memory_flat_and_both_ends(tmp_path):
    script = f"""
import resource, sys
from pathlib import Path
from phases.execution import process
job = '''
import os
os.write(1, b"FIRST")
for _ in range(200): os.write(1, bytes([255]) * 2**20)
os.write(1, b"LAST")
'''
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = process.run([sys.executable, "-c", job], cwd=Path({str(tmp_path)!r}), env={{}},
                     log=Path({str(tmp_path / "log")!r}), timeout_s=100)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(grown // 1024, result.log_bytes, result.log_truncated)
"""
    child = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    grown_mb, total, is_truncated = child.stdout.split()
    assert int(grown_mb) < 40
    assert (int(total), is_truncated) == (200 * 2**20 + 9, "True")
    log = (tmp_path / "log").read_bytes()
    dropped = 200 * 2**20 + 9 - 16 * 2**20
    line = f"\n[phases: {dropped} bytes dropped here]\n".encode()
    assert len(log) == 16 * 2**20 + len(line)
    assert log[: 8 * 2**20] == b"FIRST" + b"\xff" * (8 * 2**20 - 5)
    assert log[8 * 2**20 :].startswith(line)
    assert log.endswith(b"\xffLAST")


@given(st.lists(st.binary(max_size=40)), st.integers(0, 12), st.integers(1, 12))
@settings(deadline=None)
def test_the_log_keeps_exactly_the_first_and_the_last_bytes(tmp_path_factory, chunks, head, tail):
    path = tmp_path_factory.mktemp("log") / "log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capped_log, "LOG_HEAD", head)
        patch.setattr(capped_log, "LOG_TAIL", tail)
        with capped_log.CappedLog(path) as log:
            for chunk in chunks:
                log.write(chunk)
            is_truncated, total = log.is_truncated, log.total
    data = b"".join(chunks)
    assert total == len(data)
    assert is_truncated == (len(data) > head + tail)
    dropped = len(data) - head - tail
    line = f"\n[phases: {dropped} bytes dropped here]\n".encode()
    expected = data
    if is_truncated:
        expected = data[:head] + line + data[-tail:]
    assert path.read_bytes() == expected


def test_a_log_is_never_written_through_a_link(tmp_path):
    (tmp_path / "precious").write_text("unchanged")
    (tmp_path / "log").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"):
        run_python("print('overwritten')", tmp_path)
    assert (tmp_path / "precious").read_text() == "unchanged"


#### signals to the runner

RUNNER = """
import json, sys
from pathlib import Path
from phases.execution import process
from phases.errors import InterruptedRunError
folder = Path(sys.argv[1])
job = '''
import os, signal, sys, time
STOP
open("pid.tmp", "w").write(str(os.getpid())); os.rename("pid.tmp", "pid")
time.sleep(999)
'''
try:
    process.run([sys.executable, "-c", job], cwd=folder, env={}, log=folder / "log", timeout_s=300,
                grace_s=float(sys.argv[2]))
except InterruptedRunError as error:
    print("interrupted:", error)
    sys.exit(error.exit_code)
"""
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
POLITE = "signal.signal(signal.SIGTERM, lambda *_: (open('goodbye', 'w').close(), sys.exit(0)))"


def start_runner(folder: Path, stop: str, grace_s: float) -> tuple[subprocess.Popen[str], int]:
    runner = subprocess.Popen(
        [sys.executable, "-c", RUNNER.replace("STOP", stop), str(folder), str(grace_s)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    wait_until((folder / "pid").exists)
    return runner, int((folder / "pid").read_text())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_signal_is_forwarded_and_ends_in_interrupted(tmp_path, number):
    runner, job = start_runner(tmp_path, POLITE, 60)
    runner.send_signal(number)
    output, _ = runner.communicate(timeout=30)
    assert runner.returncode == 130
    assert "interrupted: " in output
    assert (tmp_path / "goodbye").exists()
    assert not is_alive(job)


def test_a_second_signal_kills_at_once(tmp_path):
    runner, job = start_runner(tmp_path, DEAF, 300)
    runner.send_signal(signal.SIGINT)
    time.sleep(1)
    assert is_alive(job)
    assert runner.poll() is None
    runner.send_signal(signal.SIGINT)
    runner.communicate(timeout=30)
    assert runner.returncode == 130
    assert not is_alive(job)


def test_a_deaf_job_is_killed_after_the_grace(tmp_path):
    runner, job = start_runner(tmp_path, DEAF, 0.5)
    runner.send_signal(signal.SIGTERM)
    runner.communicate(timeout=30)
    assert runner.returncode == 130
    assert not is_alive(job)


@pytest.mark.parametrize("whole_group", [False, True])
def test_a_killed_runner_takes_its_job_with_it(tmp_path, whole_group):
    runner, job = start_runner(tmp_path, DEAF, 300)
    if whole_group:
        os.killpg(runner.pid, signal.SIGKILL)
    else:
        runner.kill()
    runner.communicate(timeout=30)
    wait_until(lambda: not is_alive(job))


def test_an_ignored_signal_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        runner, job = start_runner(tmp_path, POLITE, 60)
    finally:
        signal.signal(signal.SIGHUP, before)
    runner.send_signal(signal.SIGHUP)
    time.sleep(1)
    assert is_alive(job)
    assert not (tmp_path / "goodbye").exists()
    runner.send_signal(signal.SIGINT)
    runner.communicate(timeout=30)
    assert runner.returncode == 130


def test_handlers_are_restored(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    run_python("pass", tmp_path)
    assert [
        signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ] == before


def test_one_signal_stops_the_runs_of_all_threads(tmp_path):
    folders = [tmp_path / str(index) for index in range(3)]
    for folder in folders:
        folder.mkdir()
    code = "open('begun', 'w').close(); import time; time.sleep(999)"

    def stop():
        wait_until(lambda: (folders[0] / "begun").exists() and (folders[1] / "begun").exists())
        os.kill(os.getpid(), signal.SIGTERM)

    helper = threading.Thread(target=stop)
    helper.start()
    with process.forward_signals(), ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(run_python, code, folder) for folder in folders]
        for future in futures:
            with pytest.raises(InterruptedRunError):
                future.result(timeout=60)
    helper.join()
    assert not (folders[2] / "log").exists()  # the third had not begun, and did not
    assert run_python("pass", tmp_path).exit_code == 0  # the count begins anew


def test_runs_in_two_threads_do_not_touch_each_other(tmp_path):
    (tmp_path / "long").mkdir()
    alive = "time.sleep(2); print(os.path.exists('/proc/' + open('pid').read()))"
    long_code = SLEEPER + ESCAPES["daemon"] + WAIT + alive
    with ThreadPoolExecutor(2) as pool:
        long_run = pool.submit(run_python, long_code, tmp_path / "long")
        wait_until((tmp_path / "long" / "pid").exists)
        for _ in range(4):
            assert pool.submit(run_python, "pass", tmp_path).result().exit_code == 0
        assert long_run.result().exit_code == 0
    assert (tmp_path / "long" / "log").read_text() == "True\n"


#### environment


def test_only_allowed_variables_pass(tmp_path, monkeypatch):
    for name in (
        "GIT_DIR",
        "LD_PRELOAD",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "AWS_SECRET_ACCESS_KEY",
        "HF_TOKEN",
        "HOME",
    ):
        monkeypatch.setenv(name, "/secret")
    monkeypatch.setenv("LC_TIME", "C")
    monkeypatch.setenv("PHASES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    env = process.clean_environment({"HOME": "/h", "TZ": "UTC"})
    assert "/secret" not in env.values()
    assert env["LC_TIME"] == "C"
    assert env["PHASES_CACHE"] == str(tmp_path / "cache")
    assert (env["HOME"], env["TZ"]) == ("/h", "UTC")
    assert (env["PYTHONHASHSEED"], env["PYTHONDONTWRITEBYTECODE"]) == ("0", "1")
    result = process.run(
        [
            "python",
            "-c",
            "import json, os, sys; print(json.dumps([sys.executable, dict(os.environ)]))",
        ],
        cwd=tmp_path,
        env=env,
        log=tmp_path / "log",
        timeout_s=60,
    )
    assert result.exit_code == 0
    executable, environment = json.loads((tmp_path / "log").read_text())
    assert Path(executable) == Path(sys.executable)  # `python` is the runner's own
    assert {name: environment[name] for name in env} == env
    assert set(environment) - set(env) <= {
        "LC_CTYPE",
        "__CF_USER_TEXT_ENCODING",
    }  # Python's own coercion of the C locale
