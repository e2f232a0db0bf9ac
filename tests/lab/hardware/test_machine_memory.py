"""The memory of this machine, and of a container with less."""

import psutil

from lab.hardware.machine_memory import machine_bytes


def test_it_is_at_most_what_the_kernel_has():
    assert 0 < machine_bytes() <= psutil.virtual_memory().total


def test_a_container_has_less(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       16384 kB\nMemFree:        1 kB\n")
    unlimited, limited, huge = (tmp_path / name for name in ("max", "limited", "huge"))
    unlimited.write_text("max\n")
    limited.write_text("4194304\n")
    huge.write_text("9223372036854771712\n")
    assert machine_bytes(meminfo, (unlimited, huge, tmp_path / "missing")) == 16384 * 1024
    assert machine_bytes(meminfo, (unlimited, limited)) == 4_194_304


def test_a_smaller_kernel_figure_counts(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 8 kB\n")
    assert machine_bytes(meminfo, ()) == 8192
