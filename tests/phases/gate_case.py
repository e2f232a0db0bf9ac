"""Outputs of every kind of file and a gate for them: what judgements are tried on."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import tempfile
import textwrap
import zlib
from pathlib import Path

from phases.execution.sandbox import NoSandbox
from phases.judge.gate import judge_feature
from phases.judge.gate_run import GateKind, GateSpec

LOSSES = [2.0, 2.5, 3.0, 3.5]

PRELUDE = """
import hashlib, json, os, struct, sys
from pathlib import Path
import pytest

def out(): return Path(os.environ["PHASES_OUT"])
def result(): return json.loads((out() / "result.json").read_text())
def value(name): return result()["measurements"][name]["value"]
def losses():
    data = (out() / "artifacts/losses.safetensors").read_bytes()
    return struct.unpack("<4f", data[8 + int.from_bytes(data[:8], "little"):])
"""


def safetensors(values):
    raw = struct.pack(f"<{len(values)}f", *values)
    entry = {"dtype": "F32", "shape": [len(values)], "data_offsets": [0, len(raw)]}
    header = json.dumps({"loss": entry}).encode()
    return struct.pack("<Q", len(header)) + header + raw


def png():
    def chunk(name, body):
        checksum = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + checksum

    pixels = b"".join(b"\0" + bytes(range(row, row + 6)) for row in range(3))
    head = struct.pack(">IIBBBBB", 2, 3, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def exact_measurements(**values):
    return {name: {"value": value, "unit": "", "exact": True} for name, value in values.items()}


def write_outputs(folder, measurements):
    """Write one file of every kind; return path -> SHA-256.

    result.json holds the digests of the other files, and the report holds that of result.json.
    """
    files = {
        "artifacts/losses.safetensors": safetensors(LOSSES),
        "figures/loss.json": json.dumps({"y": LOSSES}).encode(),
        "figures/loss.png": png(),
    }
    digests = {path: sha256(data) for path, data in files.items()}
    files["result.json"] = json.dumps({"measurements": measurements, "files": digests}).encode()
    files["report.md"] = f"# Losses\n\nmean 2.75\n\n{sha256(files['result.json'])}\n".encode()
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return {path: sha256(data) for path, data in files.items()}


class GateCase:
    """Outputs, a folder for the gate, and what else `judge_feature` needs."""

    def __init__(self, root, measurements):
        self.root = root
        self.out = root / "out"
        self.outputs = write_outputs(self.out, measurements)
        self.gates = root / "materialised"
        (self.gates / "gates").mkdir(parents=True)
        (self.gates / "gates" / "__init__.py").touch()
        self.inputs = root / "inputs.json"
        self.inputs.write_text("{}")
        self.workspace = root
        """The private folder of the newest judgement."""
        self.repository = root / "repository"
        self.repository.mkdir()

    def only(self, *paths, measurements=None):
        """Keep these outputs only, so that a test about something else needs fewer runs."""
        if measurements is not None:
            data = json.dumps({"measurements": measurements, "files": {}}).encode()
            (self.out / "result.json").write_bytes(data)
            self.outputs["result.json"] = sha256(data)
        self.outputs = {path: self.outputs[path] for path in paths}
        return self

    def common(self):
        self.workspace = Path(tempfile.mkdtemp(prefix="workspace-", dir=self.root))
        return {
            "gates_dir": self.gates,
            "inputs_file": self.inputs,
            "workspace": self.workspace,
            "env": {},
            "sandbox": NoSandbox(),
            "root": self.repository,
            "blocked": ("lab",),
        }

    def pytest_gate(self, source, timeout_s=30.0):
        # As the runner does it: a gate is laid out without bytecode.
        shutil.rmtree(self.gates / "gates" / "__pycache__", ignore_errors=True)
        (self.gates / "gates" / "test_x.py").write_text(PRELUDE + textwrap.dedent(source))
        return GateSpec(GateKind.PYTEST, "gates/test_x.py", timeout_s)

    def judge(self, source, *, timeout_s=30.0, **more):
        return self.judge_spec(self.pytest_gate(source, timeout_s), **more)

    def judge_shell(self, command, *, timeout_s=30.0, **more):
        return self.judge_spec(GateSpec(GateKind.SHELL, command, timeout_s), **more)

    def judge_spec(self, spec, **more):
        arguments = self.common() | more
        return judge_feature(spec, out=self.out, outputs=self.outputs, **arguments)


def outcomes(judgement):
    """Return name of each mutant -> (outcome of its run, whether it was killed)."""
    return {mutant.mutation.name: (mutant.outcome, mutant.killed) for mutant in judgement.mutants}
