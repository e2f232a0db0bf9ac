"""The benchmarks of the runner measure what they say, and say what is missed."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks import audit_scale, runner_vs_peers
from tests.benchmarks._processes import Usage, measure, medians
from tests.benchmarks._runner_rows import DOIT, DVC, PHASES, SNAKEMAKE, TOOLS
from tests.benchmarks.audit_scale import Record
from tests.benchmarks.runner_vs_peers import Row

BURN = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
FAST = Usage(wall_s=1.0, own_cpu_s=0.5, cpu_s=1.0, peak_mb=20.0, started=100.0)


def python(text: str, folder: Path) -> Usage:
    return measure([sys.executable, "-S", "-c", text], folder, os.environ)


def test_time_of_children_is_told_from_the_own_time(tmp_path: Path) -> None:
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {BURN!r}])"
    alone, with_child = python(BURN, tmp_path), python(parent, tmp_path)
    assert alone.own_cpu_s == pytest.approx(alone.cpu_s, abs=0.05)
    assert with_child.cpu_s >= 0.3
    assert with_child.own_cpu_s < 0.2
    assert with_child.started >= 2


def test_the_peak_is_that_of_the_largest_process_and_not_of_the_benchmark(tmp_path: Path) -> None:
    large = "b = bytearray(60_000_000)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {large!r}])"
    ballast = bytearray(50_000_000)
    assert python("pass", tmp_path).peak_mb < 30, len(ballast)
    assert python(parent, tmp_path).peak_mb > 57


def test_a_command_that_fails_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="exit 3\nno luck"):
        python("import sys; print('no luck'); sys.exit(3)", tmp_path)


def test_medians_are_taken_field_by_field() -> None:
    usages = [replace(FAST, wall_s=wall_s, peak_mb=5 / wall_s) for wall_s in (1.0, 2.0, 9.0)]
    assert medians(usages).wall_s == 2.0
    assert medians(usages).peak_mb == 2.5


def test_make_and_the_runner_do_the_same_tasks(tmp_path: Path) -> None:
    tools = [tool for tool in TOOLS if tool.name in ("make", PHASES)]
    rows = runner_vs_peers.measure_round(tools, tmp_path, 2)
    made = [(tmp_path / "make/out" / f"{number}.json").read_text() for number in range(2)]
    results = tmp_path / PHASES / "results"
    assert made == [(results / f"TASK-000{number}/number.json").read_text() for number in range(2)]
    assert rows["make"].waiting is None
    assert rows[PHASES].waiting is not None
    table = runner_vs_peers.lines(TOOLS, rows, 2)
    assert len(table) == len(TOOLS) + 2
    assert "| Snakemake | not installed |" in "\n".join(table)


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({}, []),
        ({"first": replace(FAST, own_cpu_s=1.2)}, ["own CPU"]),
        ({"first": replace(FAST, wall_s=4.5)}, ["first run", "first run"]),
        ({"no_op": replace(FAST, wall_s=1.5)}, ["no-op"]),
    ],
)
def test_what_is_missed_is_named(change: dict[str, Usage], missed: list[str]) -> None:
    peer = Row(replace(FAST, wall_s=1.4), None, replace(FAST, wall_s=1.2), FAST)
    rows = {DOIT: peer, SNAKEMAKE: peer, DVC: peer}
    ours = replace(Row(FAST, FAST, FAST, FAST), **change)
    found = runner_vs_peers.aims({**rows, PHASES: ours}, 20, 0.001)
    texts = [text for text, is_met in found if not is_met]
    assert len(texts) == len(missed)
    assert all(text.startswith(word) for text, word in zip(texts, missed, strict=True))


def test_a_runner_that_is_busy_while_it_waits_misses_its_aim() -> None:
    rows = {PHASES: Row(FAST, FAST, FAST, FAST)}
    assert not all(is_met for _, is_met in runner_vs_peers.aims(rows, 20, 0.12))
    assert all(is_met for _, is_met in runner_vs_peers.aims(rows, 20, 0.005))


def test_every_command_is_timed_on_an_honest_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    record = audit_scale.measure_record(tmp_path, 50, rounds=1)
    assert record.entries >= 50
    assert set(record.usages) == {audit_scale.FLOOR, *audit_scale.COMMANDS}
    assert record.usages["audit"].cpu_s > record.usages[audit_scale.FLOOR].cpu_s
    table = audit_scale.lines([record, Record(10_043, 1_953, {"audit": FAST})])
    assert table[-1] == "| 10,043 | 1,953 | audit | 1.00 | 0.50 | 1.00 | 20 |"
