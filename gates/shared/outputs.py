"""What all gates share: reading judged outputs, integrity checks, a cache of what was recomputed.

A gate judges bytes. The runner names them by the environment:

- PHASES_OUT: the folder to judge;
- PHASES_INPUTS: JSON, name -> {"path": …} of what the experiment was given;
- PHASES_NONCE: hex, drawn after the outputs were frozen;
- PHASES_GATE_CACHE and PHASES_DIGESTS: see `cached`.

By hand, PHASES_OUT (and PHASES_INPUTS where a gate needs inputs) is enough:
`PHASES_OUT=DIR pytest gates/test_x.py`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import re
import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from gates.shared.images import stated_digest

UNLISTED = {"result.json", "report.md"}
SEAL = re.compile(rb"<!-- result\.json sha256:([0-9a-f]{64}) body sha256:([0-9a-f]{64}) -->\n")


def out() -> Path:
    """Give the folder to judge."""
    assert "PHASES_OUT" in os.environ, "PHASES_OUT is not set; name the folder of outputs to judge"
    return Path(os.environ["PHASES_OUT"])


def read_json(path: str) -> Any:
    """Give the content of a JSON file below the outputs; NaN and infinity are refused."""

    def refuse(word: str) -> None:
        msg = f"{path} holds {word}, which is no number"
        raise AssertionError(msg)

    return json.loads((out() / path).read_text("utf-8"), parse_constant=refuse)


def result(of: str = ".") -> dict[str, Any]:
    """Give the parsed result.json.

    `of` is the folder below the outputs, where they hold several results.
    """
    document = read_json(f"{of}/result.json")
    assert isinstance(document, dict), (
        f"result.json holds a {type(document).__name__}, wanted an object"
    )
    return document


def measurement(name: str, of: str = ".") -> dict[str, Any]:
    """Give one measurement of result.json."""
    measurements = result(of)["measurements"]
    assert name in measurements, (
        f"result.json has no measurement {name!r}; it has {', '.join(sorted(measurements))}"
    )
    found: dict[str, Any] = measurements[name]
    return found


def value(name: str, of: str = ".") -> Any:
    """Give the value of one measurement."""
    return measurement(name, of)["value"]


def assert_agrees(name: str, expected: Any, *, rtol: float = 1e-5, of: str = ".") -> None:
    """Check a measurement against what the gate computed.

    Numbers are compared to `rtol`, all else exactly; `true` is not 1. `expected` is the value, or
    {"value", "stderr", "n", "values"} of a sample (`sample` makes it), compared field by field. A
    measurement in result.json that claims to be exact must not carry a standard error.
    """
    found = measurement(name, of)
    wanted = expected if isinstance(expected, dict) else {"value": expected}
    assert not (found.get("exact") and found.get("stderr") is not None), (
        f"{name} is exact and has a standard error"
    )
    for field, right in wanted.items():
        assert same(found.get(field), right, rtol), (
            f"{name}: {field} is {found.get(field)}, recomputed {right}"
        )


def same(met: Any, wanted: Any, rtol: float) -> bool:
    """Say whether two JSON values agree.

    Floats to `rtol` (and 1e-9 near 0), lists item by item, all else exactly.
    """
    if isinstance(wanted, list):
        return (
            isinstance(met, list)
            and len(met) == len(wanted)
            and all(map(same, met, wanted, [rtol] * len(met)))
        )
    if isinstance(wanted, float):
        number = isinstance(met, (int, float)) and not isinstance(met, bool)
        return number and math.isclose(met, wanted, rel_tol=rtol, abs_tol=1e-9)
    return type(met) is type(wanted) and bool(met == wanted)


def sample(values: Sequence[float]) -> dict[str, Any]:
    """Give what a sample's measurement must hold: mean, sd / sqrt(n) (sd with n - 1), n, values."""
    spread = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return {
        "value": statistics.fmean(values),
        "stderr": spread,
        "n": len(values),
        "values": list(values),
    }


def inputs() -> dict[str, Path]:
    """Give the paths of the inputs by name."""
    assert "PHASES_INPUTS" in os.environ, (
        "PHASES_INPUTS is not set; name the JSON file of the inputs"
    )
    entries = json.loads(Path(os.environ["PHASES_INPUTS"]).read_text("utf-8"))
    return {name: Path(entry["path"]) for name, entry in entries.items()}


def rng() -> random.Random:
    """Give a generator seeded by PHASES_NONCE.

    So the sample that a gate draws cannot be known to the experiment.
    """
    return random.Random(os.environ.get("PHASES_NONCE", "00"))


def cached(name: str, files: Iterable[str], compute: Callable[[], Any]) -> Any:
    """Give `compute()` (JSON values), kept in PHASES_GATE_CACHE while the bytes of `files` stay.

    The key is `name`, the nonce and the digests of `files` (paths below the outputs) as
    PHASES_DIGESTS states them. Name every file that `compute` reads: a forgotten one lets a damaged
    copy be judged by the true copy's numbers.
    """
    folder, digests = os.environ.get("PHASES_GATE_CACHE"), os.environ.get("PHASES_DIGESTS")
    if not (folder and digests):
        return json.loads(json.dumps(compute()))
    known = json.loads(Path(digests).read_text("utf-8"))
    parts = [
        name,
        os.environ.get("PHASES_NONCE", "00"),
        *(f"{file} {known.get(file)}" for file in sorted(set(files))),
    ]
    place = Path(folder) / (sha256("\n".join(parts).encode()) + ".json")
    if not place.exists():
        found = compute()
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as file:
            json.dump(found, file)
        # two runs may compute the same: the last rename wins, with the same content
        Path(file.name).replace(place)
    return json.loads(place.read_text("utf-8"))


def sha256(data: bytes) -> str:
    """Give the digest of some bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def digest_of(path: Path) -> str:
    """Give the sha256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def assert_files_match(of: str = ".") -> None:
    """Check that `files` of result.json lists every other output with its digest, nothing else."""
    folder, stated = out() / of, result(of)["files"]
    for name in stated:
        pure = PurePosixPath(name)
        assert not pure.is_absolute() and ".." not in pure.parts, (
            f"files: {name!r} leads out of the outputs"
        )
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - UNLISTED
    assert found == set(stated), (
        f"not listed: {sorted(found - set(stated))}; missing: {sorted(set(stated) - found)}"
    )
    changed = [name for name, digest in stated.items() if digest_of(folder / name) != digest]
    assert not changed, f"changed since result.json was written: {changed}"


def assert_report_matches(of: str = ".") -> None:
    """Check that report.md's last line names the digests of result.json and of its own body."""
    text = (out() / of / "report.md").read_bytes()
    start = text.rfind(b"\n", 0, -1) + 1
    seal = SEAL.fullmatch(text[start:])
    assert seal, "report.md does not end with the line that names its digests"
    assert seal[1].decode() == digest_of(out() / of / "result.json"), (
        "report.md was made from another result.json"
    )
    assert seal[2].decode() == sha256(text[:start]), "report.md was changed after it was written"


def assert_figures_match(of: str = ".") -> None:
    """Check that each image names its data file's digest, and each data file has its images."""
    folder = out() / of / "figures"
    named = {figure["name"] for figure in result(of)["figures"]}
    found = {path.stem for path in folder.iterdir()} if folder.is_dir() else set()
    assert found == named, (
        f"result.json names the figures {sorted(named)}, figures/ holds {sorted(found)}"
    )
    for name in sorted(named):
        wanted = digest_of(folder / f"{name}.json")
        for suffix in ("png", "svg"):
            stated = stated_digest(folder / f"{name}.{suffix}")
            assert stated == wanted, (
                f"figures/{name}.{suffix} was drawn from data with digest {stated}, not {wanted}"
            )
