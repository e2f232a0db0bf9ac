"""Drawn features computed again, each in a process that runs the code of its receipt's commit."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from lab.contract import Context, ContractError
from lab.replay import Part, Row, array_of, write_rows
from lab.synthesis.reproduction import rebuilding
from lab.synthesis.reproduction.comparing import compare
from lab.synthesis.reproduction.drawing import code_folder
from lab.synthesis.reproduction.measured import Candidate, ComparedRow, Replayed, Way
from lab.synthesis.reproduction.receipts import (
    Receipt,
    arguments,
    changes,
    code_digest,
    read_receipt,
)

# parts of a result.json, besides its measurements, that follow from what was measured
COMPARED = ("tables", "findings")
REPORT, RESULT = "report.md", "result.json"
WHOLE_REASON = "digits follow from numbers that float32 in another order changes"
DRAWN_REASON = "drawn by another version, or with other fonts"
# what another process must not take for its own
OWN = (
    "PHASES_OUT",
    "PHASES_INPUTS",
    "PHASES_EVENTS",
    "PHASES_STARTED",
    "PHASES_PROFILE",
    "PHASES_SEED",
    "PHASES_COMMIT",
)


def replay_feature(
    ctx: Context, candidate: Candidate, started: str, machine: Mapping[str, Any], scratch: Path
) -> Replayed:
    """Compute a drawn feature again, and compare; its rows' arrays are written below artifacts/.

    A replay that fails is what came of it, and no error.
    """
    # 1. What is run: the receipt's command on the receipt's code.
    feature = candidate.feature
    entry = ctx.inputs.entries[feature]
    outputs = ctx.inputs.path(feature)
    receipt = read_receipt(outputs, str(entry["receipt"]))
    code = code_folder(feature, entry, receipt)
    inputs = scratch / "inputs.json"
    inputs.write_text(json.dumps(rebuilding.inputs_of(ctx, receipt, code)), encoding="utf-8")
    result = json.loads((outputs / RESULT).read_text("utf-8"))
    differs = changes(receipt, result["environment"]["threads"], machine)

    # 2. The run, and its rows.
    file = ctx.out / "artifacts" / "replays" / f"{feature}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    rows: tuple[ComparedRow, ...] = ()
    failure = ""
    try:
        if candidate.way is Way.REPLAY:
            run_replay(ctx, receipt, code, outputs=outputs, inputs=inputs, draw=started, file=file)
        else:
            run_whole(ctx, receipt, code, inputs=inputs, out=scratch / "out")
            write_rows(file, rows_of_outputs(scratch / "out", receipt))
        rows = _compared(file, outputs, is_same_machine=not differs)
    except ContractError as error:
        failure = str(error)
        write_rows(file, [])
    replayed = Replayed(
        feature=feature,
        title=result["title"],
        way=Way(str(candidate.way)),
        commit=receipt.dependencies["git"]["gitCommit"],
        code_sha256=code_digest(code),
        changes=differs,
        seconds=time.perf_counter() - began,
        seconds_whole=receipt.seconds,
        rows=rows,
        failure=failure,
    )
    document = json.dumps(dataclasses.asdict(replayed), indent=1)
    file.write_text(document + "\n", encoding="utf-8")
    return replayed


def _compared(file: Path, outputs: Path, *, is_same_machine: bool) -> tuple[ComparedRow, ...]:
    described = json.loads(file.read_text("utf-8"))["rows"]
    arrays = load_file(file.with_suffix(".safetensors"))
    rows = []
    for number, row in enumerate(described):
        recomputed = arrays[str(number)]
        rows.append(compare(row, recomputed, outputs, is_same_machine=is_same_machine))
    return tuple(rows)


# Processes


def run_replay(
    ctx: Context,
    receipt: Receipt,
    code: Path,
    *,
    outputs: Path,
    inputs: Path,
    draw: str,
    file: Path,
) -> None:
    """Run the replay of a topic, which writes `file` and its arrays.

    Raises:
        ContractError: it failed, or it imported another lab than that of the commit.
    """
    topic = receipt.module.rpartition(".")[0]
    words = ["-m", f"{topic}.replay", "--stored", str(outputs), "--inputs", str(inputs)]
    words += ["--config", receipt.config, "--profile", receipt.profile]
    words += ["--seed", str(receipt.seed), "--draw", draw, "--out", str(file)]
    _run(words, code, ctx.config["timeout"])
    imported = json.loads(file.read_text("utf-8"))["lab"]
    expected = code.resolve() / "lab" / "__init__.py"
    if Path(imported).resolve() != expected:
        msg = f"the replay imported {imported}; expected the code of its receipt, {expected}"
        raise ContractError(msg)


def run_whole(ctx: Context, receipt: Receipt, code: Path, *, inputs: Path, out: Path) -> None:
    """Run an experiment again as a whole.

    Raises:
        ContractError: it failed.
    """
    _run(arguments(receipt, inputs, out), code, ctx.config["timeout"])


def _run(words: Sequence[str], code: Path, timeout: float) -> None:
    """Run Python in a folder of code, with nothing else of the lab in reach."""
    variables = {name: text for name, text in os.environ.items() if name not in OWN}
    variables |= {"PYTHONPATH": str(code), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        process = subprocess.run(
            [sys.executable, *words],
            cwd=code,
            env=variables,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        msg = f"it was stopped after {timeout} s"
        raise ContractError(msg) from error
    if process.returncode != 0:
        last = (process.stderr.splitlines() or ["no message"])[-1]
        msg = f"it ended with exit code {process.returncode}: {last}"
        raise ContractError(msg)


# A whole run


def rows_of_outputs(out: Path, receipt: Receipt) -> list[Row]:
    """Return a row for each output of a run that was repeated as a whole.

    Of a result each measurement's value, the tables and the findings are rows; its report is left
    out, as it is made from the result and names the machine.

    Raises:
        ContractError: a file is missing.
    """
    rows = []
    for file in sorted(receipt.outputs):
        path = out / file
        if path.name == REPORT:
            continue
        if not path.is_file():
            msg = f"the repeated run wrote no {file}"
            raise ContractError(msg)
        if path.name == RESULT:
            rows += _rows_of_result(path, file)
        else:
            rows.append(_row_of_file(path, file))
    return rows


def _row_of_file(path: Path, file: str) -> Row:
    is_picture = path.suffix in {".png", ".svg"}
    return Row(
        quantity=f"bytes of {file}",
        file=file,
        part=(),
        recomputed=np.frombuffer(path.read_bytes(), dtype=np.uint8),
        tolerance=1.0,
        reason=DRAWN_REASON if is_picture else WHOLE_REASON,
    )


def _rows_of_result(path: Path, file: str) -> list[Row]:
    result = json.loads(path.read_text("utf-8"))
    rows = []
    for name, measurement in result["measurements"].items():
        part: Part = ("measurements", name, "value")
        row = Row(f"measurement {name}", file, part, array_of(measurement["value"]))
        rows.append(row)
    for name in COMPARED:
        row = Row(
            quantity=f"{name} of {file}",
            file=file,
            part=(name,),
            recomputed=array_of(result[name]),
            tolerance=1.0,
            reason=WHOLE_REASON,
        )
        rows.append(row)
    return rows
