"""Every row compared anew: the stored array from the feature's files, by a reader of its own."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gates.shared import outputs
from gates.shared.stored import artifact, cached, header
from gates.synthesis.reproduction import earlier

DIFFERENT, WITHIN, EQUAL = "not reproduced", "within tolerance", "bit-equal"
HOST = ("system", "machine", "cpus", "python")
PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "bitsandbytes",
    "safetensors",
    "numpy",
    "scipy",
    "matplotlib",
)
TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


def document(feature: str) -> dict[str, Any]:
    """Return what the experiment says of a drawn feature."""
    stated: dict[str, Any] = outputs.read_json(f"artifacts/replays/{feature}.json")
    return stated


def files(feature: str) -> list[str]:
    """Return the outputs that a feature's comparison depends on."""
    names = [f"replays/{feature}.json", f"replays/{feature}.safetensors", "machine.json"]
    return [f"artifacts/{name}" for name in names]


def machine() -> dict[str, Any]:
    """Return the machine that the experiment ran on, as it says."""
    stated: dict[str, Any] = outputs.read_json("artifacts/machine.json")
    return stated


def changes(feature: str) -> list[str]:
    """Return in what this machine differs from that of a feature's receipt."""
    host, packages = earlier.byproduct(feature, "host"), earlier.byproduct(feature, "packages")
    now = machine()
    before = {name: host.get(name) for name in HOST}
    before["threads"] = earlier.result(feature)["environment"]["threads"]
    before |= {name: packages.get(name) for name in PACKAGES}
    current = now | now["packages"]
    return [
        f"{name} {before[name]}, now {current[name]}"
        for name in before
        if before[name] != current[name]
    ]


def recomputed(feature: str) -> list[dict[str, Any]]:
    """Return values, promise, difference, outcome and digests of each row of a feature."""

    def compute() -> list[dict[str, Any]]:
        is_same_machine = not changes(feature)
        rows = document(feature)["rows"]
        path = artifact(f"replays/{feature}.safetensors")
        assert set(header(path)) == {str(number) for number in range(len(rows))}, feature
        return [
            _compare(feature, row, tensor(path, str(number)), is_same_machine=is_same_machine)
            for number, row in enumerate(rows)
        ]

    return list(cached(f"rows {feature}", files(feature), compute))


def _compare(
    feature: str, row: dict[str, Any], again: Any, *, is_same_machine: bool
) -> dict[str, Any]:
    stored = read(feature, row["file"], row["part"], row["indices"])
    apart = difference(stored, again)
    is_promised = row["is_deterministic"] and is_same_machine
    outcome = DIFFERENT
    if are_equal(stored, again):
        outcome = EQUAL
    elif not is_promised and apart <= row["tolerance"]:
        outcome = WITHIN
    return {
        "values": int(again.size),
        "is_promised": is_promised,
        "difference": apart,
        "outcome": outcome,
        "stored_sha256": outputs.sha256(stored.tobytes()),
        "recomputed_sha256": outputs.sha256(again.tobytes()),
    }


def are_equal(one: Any, other: Any) -> bool:
    """Return whether two arrays have the same shape, type and bits."""
    same_kind = one.dtype == other.dtype and one.shape == other.shape
    return bool(same_kind and one.tobytes() == other.tobytes())


def difference(one: Any, other: Any) -> float:
    """Return how far two arrays are apart, as the experiment defines it."""
    import numpy as np

    if are_equal(one, other):
        return 0.0
    if one.shape != other.shape:
        return 1.0
    if one.dtype.kind != "f":
        return float((one != other).sum() / one.size)
    both = np.stack([one.astype(float), other.astype(float)])
    if not np.isfinite(both).all() or not both.any():
        return 1.0
    return float(np.abs(both[0] - both[1]).max() / np.abs(both).max())


#### the stored arrays


def read(feature: str, file: str, part: Sequence[Any], indices: Sequence[int] | None = None) -> Any:
    """Return an array that a feature stored, from a file with the digest of its receipt."""
    import numpy as np

    path = earlier.folder(feature) / file
    assert_unchanged(feature, file)
    if not part:
        array = np.fromfile(path, dtype="u1")
    elif file.endswith(".safetensors"):
        array = tensor(path, part[0])
    else:
        array = _as_array(_value(path, part))
    return array if indices is None else array[np.array(indices, dtype=int)]


@functools.cache
def assert_unchanged(feature: str, file: str) -> None:
    """Check that a feature's file has the digest that its receipt names."""
    stated = earlier.output_digests(feature)
    assert file in stated, f"{feature}: its receipt names no {file}"
    actual = outputs.digest_of(earlier.folder(feature) / file)
    assert actual == stated[file], f"{feature}: {file} was changed"


def tensor(path: Path, name: str) -> Any:
    """Return a tensor of a safetensors file, read by the offsets in its header."""
    import numpy as np

    entry = header(path)[name]
    begin, end = entry["data_offsets"]
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        file.seek(start + begin)
        data = file.read(end - begin)
    return np.frombuffer(data, TYPES[entry["dtype"]]).reshape(entry["shape"])


def _value(path: Path, part: Sequence[Any]) -> Any:
    value = json.loads(path.read_text("utf-8"))
    for key in part:
        value = value[key]
    return value


def _as_array(value: Any) -> Any:
    """Return numbers as float64, and all else as the bytes of its sorted JSON."""
    import numpy as np

    numbers = value if isinstance(value, list) else [value]
    if numbers and all(type(one) in (int, float) for one in numbers):
        return np.array(numbers, dtype="<f8")
    return np.frombuffer(json.dumps(value, sort_keys=True).encode(), dtype="u1")


#### what a repeated run must be compared on


def expected_parts(feature: str) -> list[tuple[str, list[str]]]:
    """Return (file, part) of every row of a feature that was run again as a whole."""
    parts: list[tuple[str, list[str]]] = []
    for file in sorted(earlier.output_digests(feature)):
        name = file.rpartition("/")[2]
        if name == "report.md":
            continue
        if name != "result.json":
            parts.append((file, []))
            continue
        result = json.loads((earlier.folder(feature) / file).read_text("utf-8"))
        parts += [(file, ["measurements", one, "value"]) for one in result["measurements"]]
        parts += [(file, ["tables"]), (file, ["findings"])]
    return parts
