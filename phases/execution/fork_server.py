"""Start jobs by forking a process that has already started, and imported what each of them needs.

A fork takes a millisecond where a new interpreter takes 20, and one with pytest a tenth of a
second. Each job is still a process of its own under a supervisor of its own (supervisor.py); the
server itself never runs a job's code. The server is a program that is handed the end of a socket;
what it is asked and answers: `supervisor.serve`.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from phases.errors import EnvironmentFaultError
from phases.execution.supervisor import NUMBER_BYTES

SUPERVISOR = Path(__file__).absolute().with_name("supervisor.py")

ANSWER_S = 60.0  # that a server may take to start and to fork
END_S = 5.0  # that it may take to end
_TAIL_BYTES = 1500  # of what it printed, in a message


@dataclass(frozen=True)
class SupervisorPipes:
    """The ends that a supervisor gets: descriptors of this process, which closes them."""

    output: int
    """Gets stdout and stderr of the job."""
    control: int
    report: int


class ForkServer:
    """A process that is forked for each job. It starts with the first, and ends with this process.

    It is used by several threads.
    """

    def __init__(self, program: Sequence[str], env: Mapping[str, str]):
        """Remember how the server is started.

        Args:
            program: the command; the number of its socket is appended.
            env: its environment; a job has another.
        """
        self.program = list(program)
        self.env = dict(env)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._log: IO[bytes] | None = None

    def start(
        self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], pipes: SupervisorPipes
    ) -> int:
        """Start a job; return its supervisor's process id.

        Args:
            argv: the job, as the server's program understands it.
            cwd: its working directory.
            env: its whole environment.
            pipes: what its supervisor gets.

        Raises:
            OSError: there is no such working directory.
            EnvironmentFaultError: the server died, and a new one does not answer either.
        """
        request = {"argv": list(argv), "env": dict(env)}
        folder = os.open(cwd, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        descriptors = [folder, pipes.output, pipes.control, pipes.report]
        try:
            with self._lock:
                try:
                    return self._ask(request, descriptors)
                except (OSError, EOFError):
                    # A job of the same user can kill or stop it: the next job gets a new one.
                    self._end()
                    return self._ask_anew(request, descriptors)
        finally:
            os.close(folder)

    def wait(self, supervisor: int) -> None:
        """Wait until a supervisor is gone, and what it left, if it was killed.

        If the server is gone itself, there is nobody to ask.
        """
        with self._lock:
            if self._connection is None:
                return
            try:
                self._ask({"wait": supervisor}, [])
            except (OSError, EOFError):
                self._end()

    def close(self) -> None:
        """End the server; jobs are ended by those who started them."""
        with self._lock:
            self._end()

    def _ask_anew(self, request: Mapping[str, Any], descriptors: list[int]) -> int:
        """Ask a new server."""
        try:
            return self._ask(request, descriptors)
        except (OSError, EOFError) as error:
            message = f"the process that runs are forked from does not answer: {error}"
            raise EnvironmentFaultError(
                f"{message}\n{self._log_tail()}".rstrip(),
                hint="mend what the lines above name, or free memory; then run again",
            ) from error

    def _ask(self, request: Mapping[str, Any], descriptors: list[int]) -> int:
        """Send one request and return the number that answers it."""
        if self._connection is None:
            self._connection = self._start_server()
        data = json.dumps(request).encode()
        length = len(data).to_bytes(NUMBER_BYTES, "big")
        socket.send_fds(self._connection, [length], descriptors)
        self._connection.sendall(data)
        answer = self._connection.recv(NUMBER_BYTES, socket.MSG_WAITALL)
        if len(answer) < NUMBER_BYTES:
            message = "it ended"
            raise EOFError(message)
        return int.from_bytes(answer, "big")

    def _start_server(self) -> socket.socket:
        connection, server_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(ANSWER_S)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
        with server_end:
            self._process = subprocess.Popen(
                [*self.program, str(server_end.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                cwd="/",
                env=self.env,
                pass_fds=(server_end.fileno(),),
                # A signal to the runner's whole group must not end the server before its jobs.
                start_new_session=True,
            )
        atexit.register(self.close)
        return connection

    def _log_tail(self) -> str:
        """Return the end of what the server printed."""
        if self._log is None:
            return ""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - _TAIL_BYTES))
        return self._log.read().decode("utf-8", "replace")

    def _end(self) -> None:
        # The end of the connection ends the server.
        atexit.unregister(self.close)
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._log is not None:
            self._log.close()
        self._connection = self._process = self._log = None


_latest: dict[str, ForkServer] = {}


def shared_server(program: Sequence[str], env: Mapping[str, str]) -> ForkServer:
    """Return a server that many judgements use: the last one, if it is of this program and env."""
    server = _latest.get("server")
    if server is None or (server.program, server.env) != (list(program), dict(env)):
        if server is not None:
            server.close()
        server = _latest["server"] = ForkServer(program, env)
    return server


BARE_SERVER = ForkServer([sys.executable, "-I", "-S", "-X", "utf8", str(SUPERVISOR)], env={})
"""Executes a job's command: whatever is no run of pytest."""
