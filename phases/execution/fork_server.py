"""Start jobs by forking a process that has already imported what each of them needs.

A fork takes milliseconds where a new interpreter and its imports take a third of a second. Each job
is still a process of its own under a supervisor of its own (supervisor.py); the server itself
never runs a job's code. The server is a program that is handed the end of a socket; for each
request it gets its length, a JSON object (argv, cwd, env) and the descriptors of SupervisorPipes,
and answers with the supervisor's process id.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from phases.errors import EnvironmentFaultError
from phases.execution.process import SUPERVISOR, SupervisorPipes, log_tail

NUMBER_BYTES = 8  # of the length of a request, and of the process id that answers it

ANSWER_S = 60.0  # that a server may take to start and to fork
END_S = 5.0  # that it may take to end


@dataclass(frozen=True)
class ForkedSupervisor:
    """A supervisor that is no child of this process."""

    process: psutil.Process | None
    """None: it ended before it was looked for."""
    pid: int

    def wait(self) -> None:
        """Wait until the kernel has forgotten it."""
        if self.process is not None:
            self.process.wait()


class ForkServer:
    """A process that is forked for each job; leaving the context ends it.

    Its method `start` is the `start` of `process.run`.
    """

    def __init__(self, program: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path):
        """Remember how the server is started.

        Args:
            program: the command; the number of its socket and the path of supervisor.py are
                appended.
            cwd: its working directory.
            log: the file that gets what it prints.
            env: its environment, which is that of its jobs at their start.
        """
        self._program = program
        self._cwd = cwd
        self._log = log
        self._env = env
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_exc: object) -> None:
        # The end of the connection ends the server; jobs are ended by those who started them.
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._connection = self._process = None

    def start(
        self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], pipes: SupervisorPipes
    ) -> ForkedSupervisor:
        """Start a job; see `process.Starter`.

        Raises:
            EnvironmentFaultError: the server died, and a new one does not answer either.
        """
        request = json.dumps({"argv": list(argv), "cwd": str(cwd), "env": dict(env)}).encode()
        descriptors = [pipes.output, pipes.control, pipes.report]
        with self._lock:
            try:
                pid = self._ask(request, descriptors)
            except (OSError, EOFError):
                # A job of the same user can kill or stop the server: the next job gets a new one.
                self.__exit__()
                try:
                    pid = self._ask(request, descriptors)
                except (OSError, EOFError) as error:
                    message = f"the process that runs are forked from does not answer: {error}"
                    raise EnvironmentFaultError(
                        f"{message}\n{log_tail(self._log)}".rstrip(),
                        hint="mend what the lines above name, or free memory; then run again",
                    ) from error
        process = None
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
        return ForkedSupervisor(process, pid)

    def _ask(self, request: bytes, descriptors: list[int]) -> int:
        """Send one request and return the process id of the supervisor that was forked for it."""
        if self._connection is None:
            self._connection = self._start_server()
        length = len(request).to_bytes(NUMBER_BYTES, "big")
        socket.send_fds(self._connection, [length], descriptors)
        self._connection.sendall(request)
        answer = self._connection.recv(NUMBER_BYTES, socket.MSG_WAITALL)
        if len(answer) < NUMBER_BYTES:
            message = "it ended"
            raise EOFError(message)
        return int.from_bytes(answer, "big")

    def _start_server(self) -> socket.socket:
        connection, server_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(ANSWER_S)
        with server_end, self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._program, str(server_end.fileno()), str(SUPERVISOR)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._cwd,
                env=dict(self._env),
                pass_fds=(server_end.fileno(),),
                # A signal to the runner's whole group must not end the server before its jobs.
                start_new_session=True,
            )
        return connection
