"""What all gates share: reading judged outputs, integrity checks, a cache of recomputed values.

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
    """Return the folder to judge."""
    assert "PHASES_OUT" in os.environ, "PHASES_OUT is not set; name the folder of outputs to judge"
    return Path(os.environ["PHASES_OUT"])


def read_json(path: str) -> Any:
    """Return the content of a JSON file below the outputs; NaN and infinity are refused."""

    def refuse(word: str) -> None:
        msg = f"{path} contains {word}, which is no number"
        raise AssertionError(msg)

    return json.loads((out() / path).read_text("utf-8"), parse_constant=refuse)


def result(of: str = ".") -> dict[str, Any]:
    """Return the parsed result.json.

    `of` is the folder below the outputs, where they hold several results.
    """
    document = read_json(f"{of}/result.json")
    kind = type(document).__name__
    assert isinstance(document, dict), f"result.json contains a {kind}; expected an object"
    return document


def measurement(name: str, of: str = ".") -> dict[str, Any]:
    """Return one measurement of result.json."""
    measurements = result(of)["measurements"]
    assert name in measurements, (
        f"result.json has no measurement {name!r}; it has {', '.join(sorted(measurements))}"
    )
    document: dict[str, Any] = measurements[name]
    return document


def value(name: str, of: str = ".") -> Any:
    """Return the value of one measurement."""
    return measurement(name, of)["value"]


def assert_agrees(name: str, expected: Any, *, rtol: float = 1e-5, of: str = ".") -> None:
    """Check a measurement against what the gate computed.

    Numbers are compared to `rtol`, all else exactly; `true` is not 1. `expected` is the value, or
    {"value", "stderr", "n", "values"} of a sample (`sample` makes it), compared field by field. A
    measurement in result.json that claims to be exact must not carry a standard error.
    """
    actual = measurement(name, of)
    fields = expected if isinstance(expected, dict) else {"value": expected}
    contradicts_itself = actual.get("exact") and actual.get("stderr") is not None
    assert not contradicts_itself, f"{name} is exact and has a standard error"
    for field, recomputed in fields.items():
        assert same(actual.get(field), recomputed, rtol), (
            f"{name}: {field} is {actual.get(field)}, recomputed {recomputed}"
        )


def same(actual: Any, expected: Any, rtol: float) -> bool:
    """Return whether two JSON values agree.

    Floats to `rtol` (and 1e-9 near 0), lists item by item, all else exactly.
    """
    if isinstance(expected, list):
        if not isinstance(actual, list) or len(actual) != len(expected):
            return False
        return all(same(a, b, rtol) for a, b in zip(actual, expected, strict=True))
    if isinstance(expected, float):
        # True is an int to Python, and no number here
        is_number = isinstance(actual, (int, float)) and not isinstance(actual, bool)
        return is_number and math.isclose(actual, expected, rel_tol=rtol, abs_tol=1e-9)
    return type(actual) is type(expected) and bool(actual == expected)


def sample(values: Sequence[float]) -> dict[str, Any]:
    """Return the fields of a sample's measurement: mean, sd / sqrt(n) (sd with n - 1), n, values.

    One value has no standard error.
    """
    stderr = None
    if len(values) > 1:
        stderr = statistics.stdev(values) / math.sqrt(len(values))
    return {
        "value": statistics.fmean(values),
        "stderr": stderr,
        "n": len(values),
        "values": list(values),
    }


def inputs() -> dict[str, Path]:
    """Return the paths of the inputs by name."""
    assert "PHASES_INPUTS" in os.environ, (
        "PHASES_INPUTS is not set; name the JSON file of the inputs"
    )
    entries = json.loads(Path(os.environ["PHASES_INPUTS"]).read_text("utf-8"))
    return {name: Path(entry["path"]) for name, entry in entries.items()}


def rng() -> random.Random:
    """Return a generator seeded by PHASES_NONCE.

    The experiment cannot know what a gate draws with it.
    """
    return random.Random(os.environ.get("PHASES_NONCE", "00"))


def cached(name: str, files: Iterable[str], compute: Callable[[], Any]) -> Any:
    """Return `compute()` (JSON values), from PHASES_GATE_CACHE while the bytes of `files` stay.

    The key is `name`, the nonce and the digests of `files` (paths below the outputs) as
    PHASES_DIGESTS states them. Name every file that `compute` reads: a forgotten one lets a mutant
    be judged by the numbers of the true outputs.
    """
    folder = os.environ.get("PHASES_GATE_CACHE")
    digests = stated_digests()
    if not folder or digests is None:
        return json.loads(json.dumps(compute()))

    # 1. The key names everything that the value depends on.
    parts = [name, os.environ.get("PHASES_NONCE", "00")]
    parts += [f"{file} {digests.get(file)}" for file in sorted(set(files))]
    entry = Path(folder) / (sha256("\n".join(parts).encode()) + ".json")

    # 2. Two runs may compute the same: the last rename wins, with the same content.
    if not entry.exists():
        computed = compute()
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as file:
            json.dump(computed, file)
        Path(file.name).replace(entry)
    return json.loads(entry.read_text("utf-8"))


def stated_digests() -> dict[str, str] | None:
    """Return path -> sha256 of the outputs as PHASES_DIGESTS states them; None by hand."""
    file = os.environ.get("PHASES_DIGESTS")
    if not file:
        return None
    digests: dict[str, str] = json.loads(Path(file).read_text("utf-8"))
    return digests


def sha256(data: bytes) -> str:
    """Return the digest of some bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def digest_of(path: Path) -> str:
    """Return the sha256 (hex) of a file: the runner's own, where it states the outputs' digests."""
    digests = stated_digests()
    if digests is not None and path.is_relative_to(out()):
        digest = digests.get(path.relative_to(out()).as_posix())
        if digest is not None:
            return digest
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def assert_files_match(of: str = ".") -> None:
    """Check that `files` of result.json lists every other output with its digest, nothing else."""
    folder = out() / of
    stated = result(of)["files"]
    # 1. No path leads out.
    for name in stated:
        pure = PurePosixPath(name)
        leads_out = pure.is_absolute() or ".." in pure.parts
        assert not leads_out, f"files: {name!r} leads out of the outputs"
    # 2. The files are those of the list.
    paths = [path for path in folder.rglob("*") if path.is_file()]
    actual = {path.relative_to(folder).as_posix() for path in paths} - UNLISTED
    assert actual == set(stated), (
        f"not listed: {sorted(actual - set(stated))}; missing: {sorted(set(stated) - actual)}"
    )
    # 3. Their bytes are those of the list.
    changed = [name for name, digest in stated.items() if digest_of(folder / name) != digest]
    assert not changed, f"changed since result.json was written: {changed}"


def assert_report_matches(of: str = ".") -> None:
    """Check that report.md's last line names the digests of result.json and of its own body."""
    text = (out() / of / "report.md").read_bytes()
    last_line = text.rfind(b"\n", 0, -1) + 1
    seal = SEAL.fullmatch(text[last_line:])
    assert seal, "report.md does not end with the line that names its digests"
    assert seal[1].decode() == digest_of(out() / of / "result.json"), (
        "report.md was made from another result.json"
    )
    assert seal[2].decode() == sha256(text[:last_line]), (
        "report.md was changed after it was written"
    )


def assert_figures_match(of: str = ".") -> None:
    """Check that each image names its data file's digest, and each data file has its images."""
    folder = out() / of / "figures"
    expected = {figure["name"] for figure in result(of)["figures"]}
    actual = set()
    if folder.is_dir():
        actual = {path.stem for path in folder.iterdir()}
    assert actual == expected, (
        f"result.json names the figures {sorted(expected)}, figures/ contains {sorted(actual)}"
    )
    for name in sorted(expected):
        digest = digest_of(folder / f"{name}.json")
        for suffix in ("png", "svg"):
            stated = stated_digest(folder / f"{name}.{suffix}")
            assert stated == digest, (
                f"figures/{name}.{suffix} was drawn from data with digest {stated}, not {digest}"
            )
