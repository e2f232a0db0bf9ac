"""What the views write: into a file, on a real pseudo-terminal, and nothing where nothing was wished."""

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phases.base.text import is_printable
from phases.views import live
from phases.views.live import choose_view

ROOT = Path(__file__).parents[2]
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ")
EVIL = "\x1b[2J\x07\r\nAPPROVED\u202e\u2028"


def tell_everything(view):
    with view:
        view.phase_started(2, "Track A", 2)
        view.feature_started("FEAT-006", "Learning rate", 14)
        for stage in live.STAGES:
            view.stage(stage)
            view.progress(1, 4, f"at {stage}")
        view.feature_finished("FEAT-006", "verified", ["9 checks passed", "receipt sha256:1f0c"])
        view.feature_started("FEAT-007", "LoRA rank", None)
        view.stage("work")
        view.feature_finished("FEAT-007", "failed", ["best_rank: 4 where 8 was recomputed"])
        view.message("phase 2 stopped\nnext: python -m phases why FEAT-007")


#### lines


def lines_of(tell, encoding="utf-8") -> list[str]:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    tell(live.LineView(stream))
    lines = raw.getvalue().decode(encoding).splitlines()
    assert all(STAMP.match(line) for line in lines)
    return [STAMP.sub("", line, count=1) for line in lines]


def test_lines_tell_what_happened_in_order():
    assert lines_of(tell_everything) == [
        "Phase 2 Track A: 2 features to run",
        "FEAT-006 Learning rate: started, about 14 min expected",
        "FEAT-006 work",
        "FEAT-006 work 1/4 (25%) at work",
        "FEAT-006 judge",
        "FEAT-006 judge 1/4 (25%) at judge",
        "FEAT-006 record",
        "FEAT-006 record 1/4 (25%) at record",
        "FEAT-006 commit",
        "FEAT-006 commit 1/4 (25%) at commit",
        "FEAT-006 verified after 0 s",
        "  9 checks passed",
        "  receipt sha256:1f0c",
        "FEAT-007 LoRA rank: started",
        "FEAT-007 work",
        "FEAT-007 failed after 0 s",
        "  best_rank: 4 where 8 was recomputed",
        "phase 2 stopped",
        "next: python -m phases why FEAT-007",
    ]


def progress_lines(steps, seconds, monkeypatch) -> list[str]:
    clock = [0.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: clock[0])

    def tell(view):
        view.feature_started("F", "t", None)
        view.stage("work")
        for step in range(steps):
            clock[0] += seconds / steps
            view.progress(step + 1, steps, "")

    return [line for line in lines_of(tell) if "/" in line]


def test_a_fast_run_writes_a_line_per_tenth(monkeypatch):
    assert 9 <= len(progress_lines(1000, 5.0, monkeypatch)) <= 10


def test_a_slow_run_writes_a_line_per_ten_seconds(monkeypatch):
    assert 59 <= len(progress_lines(100_000, 600.0, monkeypatch)) <= 66


def test_a_text_of_the_worker_stays_one_printable_line():
    def tell(view):
        view.phase_started(1, EVIL, 1)
        view.feature_started(EVIL, EVIL, 1)
        view.stage("work")
        view.progress(1, 1, EVIL)
        view.feature_finished(EVIL, EVIL, [EVIL])

    lines = lines_of(tell)
    assert len(lines) == 6
    assert all(is_printable(line) for line in lines)
    assert all("APPROVED" in line for line in lines)  # shown, but harmless


def test_an_ascii_stream_ends_no_run():
    lines = lines_of(lambda view: view.message("loss 2.71 ± 0.02 · näher"), encoding="ascii")
    assert lines == [r"loss 2.71 \xb1 0.02 \xb7 n\xe4her"]


#### choice


def test_silence_is_silent(capfd):
    tell_everything(choose_view(silent=True))
    assert capfd.readouterr() == ("", "")


def test_everything_goes_to_stderr(capfd):
    tell_everything(choose_view(silent=False))
    out, err = capfd.readouterr()
    assert out == ""
    assert "FEAT-006 verified" in err


@pytest.mark.parametrize(
    ("term", "wanted"),
    [("xterm-256color", live.TerminalView), ("dumb", live.LineView), ("", live.LineView)],
)
def test_a_terminal_that_can_move_its_cursor_gets_the_live_view(monkeypatch, term, wanted):
    monkeypatch.setenv("TERM", term)
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream:
        assert type(choose_view(silent=False, stream=stream)) is wanted
    os.close(master)
    assert type(choose_view(silent=False, stream=io.StringIO())) is live.LineView


#### the terminal

SHOW = """
import sys, time
sys.path.insert(0, "tests/phases")
import test_live
from phases.views import live
CODE
"""


def on_terminal(code: str, wanted_stdout: bytes = b"", **env: str) -> str:
    """What a program wrote on a pseudo-terminal of 100 columns."""
    master, slave = pty.openpty()
    base = {
        "PATH": os.environ["PATH"],
        "TERM": "xterm-256color",
        "COLUMNS": "100",
        "LINES": "30",
        "LANG": "C.UTF-8",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", SHOW.replace("CODE", code)],
        cwd=ROOT,
        env={**base, **env},
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
    )
    os.close(slave)
    shown = b""
    try:
        while chunk := os.read(master, 65536):
            shown += chunk
    except OSError:  # Linux: the other end of a pseudo-terminal is closed
        pass
    stdout, _ = process.communicate(timeout=60)
    os.close(master)
    assert (process.returncode, stdout) == (0, wanted_stdout)
    return shown.decode(env.get("PYTHONIOENCODING", "utf-8"))


def plain(shown: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)


WATCHED = """
with choose_view(silent=False) as view:
    view.phase_started(2, "Track A", 1)
    view.feature_started("FEAT-006", "Learning rate", 14)
    view.stage("work")
    view.progress(3, 4, "lr=1e-3 loss 2.71")
    time.sleep(0.8)
    view.feature_finished("FEAT-006", "verified", ["9 checks passed"])
"""


def test_the_terminal_shows_the_running_feature_and_what_stays():
    shown = on_terminal(WATCHED)
    text = plain(shown)
    for wanted in (
        "Phase 2 · Track A · 1 feature",
        "▸ FEAT-006 Learning rate",
        "3/4",
        "75%",
        "lr=1e-3 loss 2.71",
    ):
        assert wanted in text
    assert "about 14 min expected" in text
    assert "✓ FEAT-006 Learning rate: verified after 0 s" in text
    assert "9 checks passed" in text
    assert re.search(r"\x1b\[[0-9;]*3[0-7]m", shown)  # colour
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is back


def test_no_color_is_honoured():
    shown = on_terminal(WATCHED, NO_COLOR="1")
    assert "verified" in plain(shown)
    assert not re.search(r"\x1b\[[0-9;]*\b(3[0-9]|4[0-9]|9[0-7])[;m]", shown)


def test_an_ascii_terminal_gets_ascii():
    shown = plain(on_terminal(WATCHED, PYTHONIOENCODING="ascii", LANG="C", PYTHONCOERCECLOCALE="0"))
    assert "+ FEAT-006 Learning rate: verified" in shown
    assert "> FEAT-006 Learning rate" in shown
    assert shown.isascii()


def test_the_cursor_comes_back_after_an_error():
    shown = on_terminal("""
try:
    with choose_view(silent=False) as view:
        view.feature_started("F", "t", None)
        time.sleep(0.3)
        raise ZeroDivisionError
except ZeroDivisionError:
    pass
""")
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_no_escape_of_a_worker_reaches_the_terminal():
    shown = on_terminal("""
with choose_view(silent=False) as view:
    view.feature_started("F", "[bold red]" + test_live.EVIL, 1)
    view.stage("work")
    view.progress(1, 2, "[link=x]" + test_live.EVIL)
    time.sleep(0.5)
    view.message(test_live.EVIL)
    view.feature_finished("F", "failed", [test_live.EVIL])
""")
    for raw in ("\x1b[2J", "\x07", "\u202e", "\u2028"):
        assert raw not in shown
    assert r"[bold red]\x1b[2J\x07" in plain(shown)  # shown as text, markup too
    assert "[link=x]" in plain(shown)


def test_stdout_is_left_to_the_caller():
    shown = on_terminal(
        WATCHED.replace("    time.sleep(0.8)", "    print('{}'); time.sleep(0.8)"), b"{}\n"
    )
    assert "{}" not in shown


def test_rich_is_not_loaded_for_lines():
    code = "import sys; from phases.views import live; choose_view(silent=False).message('x'); print('rich' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"


#### words, by law


@given(st.floats(0, 10**6))
def test_a_duration_keeps_its_value(seconds):
    numbers = {
        unit: int(value) for value, unit in re.findall(r"(\d+) (h|min|s)\b", live.duration(seconds))
    }
    told = numbers.get("h", 0) * 3600 + numbers.get("min", 0) * 60 + numbers.get("s", 0)
    assert 0 <= seconds - told < (60 if "h" in numbers else 1)


@given(st.floats(-10, 10**9), st.floats(-10, 10**9))
def test_a_share_is_between_nothing_and_all(done, total):
    assert 0 <= live.share(done, total) <= 1


def test_shares_and_counts():
    assert [live.share(1, 4), live.share(5, 4), live.share(1, 0)] == [0.25, 1.0, 0.0]
    assert [live.count(1, "feature"), live.count(0, "feature"), live.count(2, "check")] == [
        "1 feature",
        "0 features",
        "2 checks",
    ]
