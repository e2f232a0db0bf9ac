"""The program that a gate's runs of pytest are forked from: it has imported pytest, once.

`gate_run` starts it from `gate_main.py` (import_block.py), which has blocked imports before;
so `phases` cannot be imported here, and this file is executed by its path. Its requests:
phases/execution/fork_server.py. What it forks is first the supervisor of a run, and that forks the
run.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import socket
import sys
from typing import Any

import pytest

NUMBER_BYTES = 8  # as in fork_server.py
DESCRIPTORS = 3  # output, control, report


def serve(descriptor: int, supervisor_file: str) -> None:
    """Fork a supervisor for each request, until the runner closes the connection.

    Args:
        descriptor: this end of the connection.
        supervisor_file: path of phases/execution/supervisor.py.
    """
    # 1. What every run needs; a first call of pytest loads the plugins that it has by itself.
    supervisor = runpy.run_path(supervisor_file)
    pytest.main(["--version", "-c", os.devnull, "--noconftest"])
    gc.freeze()
    # The kernel forgets a supervisor that has ended: nobody here waits for it.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    # 2. One supervisor per request. The run's own process leaves this loop by SystemExit, and ends
    #    as Python ends: it waits for threads and calls what is registered for the end.
    connection = socket.socket(fileno=descriptor)
    while True:
        length, descriptors, _, _ = socket.recv_fds(connection, NUMBER_BYTES, DESCRIPTORS)
        if not length:
            return
        data = connection.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL)
        pid = os.fork()
        if not pid:
            connection.close()
            _supervise(supervisor, json.loads(data), descriptors)
        for number in descriptors:
            os.close(number)
        connection.sendall(pid.to_bytes(NUMBER_BYTES, "big"))


def _supervise(supervisor: dict[str, Any], request: dict[str, Any], descriptors: list[int]) -> None:
    """Become the supervisor of one run of pytest, or, forked from it, that run; end by exiting."""
    output, control, report = descriptors
    argv = request["argv"]

    def run_pytest() -> None:
        # As an interpreter that was just started.
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        sys.argv = argv
        # The gate's own modules are compiled when its checks are collected, before there is
        # anything to judge; the other runs read that and write none.
        sys.dont_write_bytecode = "--collect-only" not in argv
        sys.exit(pytest.main(argv[1:]))

    # As a supervisor that was started by itself: a session, no input, the run's output.
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if supervisor["supervise"](control, report, run_pytest):
        os._exit(0)
