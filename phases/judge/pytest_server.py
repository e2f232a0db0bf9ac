"""The program that runs of pytest are forked from: it has imported pytest, once for all judgements.

`phases` is not imported here, so this file is executed by its path. Its requests: `serve` of
phases/execution/supervisor.py. What it forks is first the supervisor of a run, and that forks the
run, which blocks imports (import_block.py) before it starts pytest.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import runpy
import signal
import sys
import threading
import time

import pytest


def run_pytest(argv: list[str], env: dict[str, str]) -> None:
    """Become a run of pytest, and end.

    Args:
        argv: the program that blocks imports, in the place of pytest, and pytest's arguments.
        env: the whole environment.
    """
    # 1. As an interpreter that was just started.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    sys.argv = argv
    # The gate's own modules are compiled when its checks are collected, before there is anything to
    # judge; the other runs read that and write none.
    sys.dont_write_bytecode = "--collect-only" not in argv

    # 2. The import block; a process that multiprocessing spawns runs the main file again.
    runpy.run_path(argv[0])
    vars(sys.modules["__main__"])["__file__"] = argv[0]
    code = pytest.main(argv[1:])

    # 3. The end, as of a process that multiprocessing has forked: threads are waited for, what is
    #    registered for the end is called. To take apart what the server has loaded takes long.
    sys.stdout.flush()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    supervisor_file, connection = sys.argv[1:]
    supervisor = runpy.run_path(supervisor_file)
    # A first call of pytest loads the plugins that it has by itself; this one writes no file.
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(["--markers", "--capture=no", "-c", os.devnull, "--noconftest"])
    supervisor["serve"](int(connection), run_pytest)
