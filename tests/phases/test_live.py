"""What the views write: to a file, to a real pseudo-terminal, and nothing with `--json`."""

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

from phases.base.text import format_count, is_printable
from phases.views import live
from phases.views.live import Stage, choose_view

ROOT = Path(__file__).parents[2]
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ")
EVIL = "\x1b[2J\x07\r\nAPPROVED\u202e\u2028"


def show_everything(view):
    with view:
        view.phase_started(2, "Track A", 2)
        view.feature_started("FEAT-006", "Learning rate", 14)
        for stage in Stage:
            view.stage(stage)
            view.progress(1, 4, f"at {stage}")
        view.feature_finished("FEAT-006", "verified", ["9 checks passed", "receipt sha256:1f0c"])
        view.feature_started("FEAT-007", "LoRA rank", None)
        view.stage(Stage.WORK)
        view.feature_finished("FEAT-007", "failed", ["best_rank: got 4; expected 8"])
        view.message("phase 2 stopped\nnext: python -m phases why FEAT-007")


#### lines


def lines_of(show, encoding="utf-8") -> list[str]:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    show(live.LineView(stream))
    lines = raw.getvalue().decode(encoding).splitlines()
    assert all(STAMP.match(line) for line in lines)
    return [STAMP.sub("", line, count=1) for line in lines]


def test_lines_show_the_events_in_order():
    assert lines_of(show_everything) == [
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
        "  best_rank: got 4; expected 8",
        "phase 2 stopped",
        "next: python -m phases why FEAT-007",
    ]


def progress_lines(steps, seconds, monkeypatch) -> list[str]:
    clock = [0.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: clock[0])

    def show(view):
        view.feature_started("F", "t", None)
        view.stage(Stage.WORK)
        for step in range(steps):
            clock[0] += seconds / steps
            view.progress(step + 1, steps, "")

    return [line for line in lines_of(show) if "/" in line]


def test_a_fast_run_writes_a_line_per_tenth(monkeypatch):
    assert 9 <= len(progress_lines(1000, 5.0, monkeypatch)) <= 10


def test_a_slow_run_writes_a_line_per_ten_seconds(monkeypatch):
    assert 59 <= len(progress_lines(100_000, 600.0, monkeypatch)) <= 66


def test_a_text_of_the_worker_stays_one_printable_line():
    def show(view):
        view.phase_started(1, EVIL, 1)
        view.feature_started(EVIL, EVIL, 1)
        view.stage(Stage.WORK)
        view.progress(1, 1, EVIL)
        view.feature_finished(EVIL, EVIL, [EVIL])

    lines = lines_of(show)
    assert len(lines) == 6
    assert all(is_printable(line) for line in lines)
    assert all("APPROVED" in line for line in lines)  # escaped, so harmless


def test_an_ascii_stream_ends_no_run():
    lines = lines_of(lambda view: view.message("loss 2.71 ± 0.02 · größer"), encoding="ascii")
    assert lines == [r"loss 2.71 \xb1 0.02 \xb7 gr\xf6\xdfer"]


#### choice


def test_the_silent_view_writes_nothing(capfd):
    show_everything(choose_view(silent=True))
    assert capfd.readouterr() == ("", "")


def test_everything_goes_to_stderr(capfd):
    show_everything(choose_view(silent=False))
    out, err = capfd.readouterr()
    assert out == ""
    assert "FEAT-006 verified" in err


@pytest.mark.parametrize(
    ("term", "expected"),
    [("xterm-256color", live.TerminalView), ("dumb", live.LineView), ("", live.LineView)],
)
def test_a_terminal_that_can_move_its_cursor_gets_the_live_view(monkeypatch, term, expected):
    monkeypatch.setenv("TERM", term)
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream:
        assert type(choose_view(silent=False, stream=stream)) is expected
    os.close(master)
    assert type(choose_view(silent=False, stream=io.StringIO())) is live.LineView


#### the terminal

PROGRAM = """
import sys, time
sys.path.insert(0, "tests/phases")
import test_live
from phases.views.live import Stage, choose_view
CODE
"""


def on_terminal(code: str, expected_stdout: bytes = b"", **env: str) -> str:
    """Return what a program writes on a pseudo-terminal of 100 columns."""
    master, slave = pty.openpty()
    base = {
        "PATH": os.environ["PATH"],
        "TERM": "xterm-256color",
        "COLUMNS": "100",
        "LINES": "30",
        "LANG": "C.UTF-8",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("CODE", code)],
        cwd=ROOT,
        env={**base, **env},
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
    )
    os.close(slave)
    screen = b""
    try:
        while chunk := os.read(master, 65536):
            screen += chunk
    except OSError:  # Linux: the other end of a pseudo-terminal is closed
        pass
    stdout, _ = process.communicate(timeout=60)
    os.close(master)
    assert (process.returncode, stdout) == (0, expected_stdout)
    return screen.decode(env.get("PYTHONIOENCODING", "utf-8"))


def plain(screen: str) -> str:
    """Return the text without terminal escapes."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen)


RUN_ONE_FEATURE = """
with choose_view(silent=False) as view:
    view.phase_started(2, "Track A", 1)
    view.feature_started("FEAT-006", "Learning rate", 14)
    view.stage(Stage.WORK)
    view.progress(3, 4, "lr=1e-3 loss 2.71")
    time.sleep(0.8)
    view.feature_finished("FEAT-006", "verified", ["9 checks passed"])
"""


def test_the_terminal_shows_the_running_feature_and_what_stays():
    screen = on_terminal(RUN_ONE_FEATURE)
    text = plain(screen)
    for expected in (
        "Phase 2 · Track A · 1 feature",
        "▸ FEAT-006 Learning rate",
        "3/4",
        "75%",
        "lr=1e-3 loss 2.71",
    ):
        assert expected in text
    assert "about 14 min expected" in text
    assert "✓ FEAT-006 Learning rate: verified after 0 s" in text
    assert "9 checks passed" in text
    assert re.search(r"\x1b\[[0-9;]*3[0-7]m", screen)  # colour
    assert screen.rindex("\x1b[?25h") > screen.rindex("\x1b[?25l")  # the cursor is back


def test_no_color_is_honoured():
    screen = on_terminal(RUN_ONE_FEATURE, NO_COLOR="1")
    assert "verified" in plain(screen)
    assert not re.search(r"\x1b\[[0-9;]*\b(3[0-9]|4[0-9]|9[0-7])[;m]", screen)


def test_an_ascii_terminal_gets_ascii():
    screen = plain(
        on_terminal(RUN_ONE_FEATURE, PYTHONIOENCODING="ascii", LANG="C", PYTHONCOERCECLOCALE="0")
    )
    assert "+ FEAT-006 Learning rate: verified" in screen
    assert "> FEAT-006 Learning rate" in screen
    assert screen.isascii()


def test_the_cursor_comes_back_after_an_error():
    screen = on_terminal("""
try:
    with choose_view(silent=False) as view:
        view.feature_started("F", "t", None)
        time.sleep(0.3)
        raise ZeroDivisionError
except ZeroDivisionError:
    pass
""")
    assert screen.rindex("\x1b[?25h") > screen.rindex("\x1b[?25l")


def test_no_escape_of_a_worker_reaches_the_terminal():
    screen = on_terminal("""
with choose_view(silent=False) as view:
    view.feature_started("F", "[bold red]" + test_live.EVIL, 1)
    view.stage(Stage.WORK)
    view.progress(1, 2, "[link=x]" + test_live.EVIL)
    time.sleep(0.5)
    view.message(test_live.EVIL)
    view.feature_finished("F", "failed", [test_live.EVIL])
""")
    for raw in ("\x1b[2J", "\x07", "\u202e", "\u2028"):
        assert raw not in screen
    assert r"[bold red]\x1b[2J\x07" in plain(screen)  # as text, markup too
    assert "[link=x]" in plain(screen)


def test_stdout_is_left_to_the_caller():
    screen = on_terminal(
        RUN_ONE_FEATURE.replace("    time.sleep(0.8)", "    print('{}'); time.sleep(0.8)"), b"{}\n"
    )
    assert "{}" not in screen


def test_rich_is_not_loaded_for_lines():
    code = (
        "import sys; from phases.views.live import choose_view; "
        "choose_view(silent=False).message('x'); print('rich' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"


#### numbers, by property


@given(st.floats(0, 10**6))
def test_a_duration_keeps_its_value(seconds):
    parts = re.findall(r"(\d+) (h|min|s)\b", live.format_duration(seconds))
    seconds_of = {"h": 3600, "min": 60, "s": 1}
    total = sum(int(value) * seconds_of[unit] for value, unit in parts)
    precision = 60 if "h" in dict(map(reversed, parts)) else 1
    assert 0 <= seconds - total < precision


def test_durations_are_short():
    texts = [live.format_duration(seconds) for seconds in (0.9, 48, 412, 7500)]
    assert texts == ["0 s", "48 s", "6 min 52 s", "2 h 05 min"]


@given(st.floats(-10, 10**9), st.floats(-10, 10**9))
def test_a_fraction_is_between_0_and_1(done, total):
    assert 0 <= live.completed_fraction(done, total) <= 1


def test_fractions_and_counts():
    fractions = [live.completed_fraction(done, total) for done, total in ((1, 4), (5, 4), (1, 0))]
    assert fractions == [0.25, 1.0, 0.0]
    counts = [format_count(1, "feature"), format_count(0, "feature"), format_count(2, "check")]
    assert counts == ["1 feature", "0 features", "2 checks"]
