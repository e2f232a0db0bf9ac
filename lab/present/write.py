"""Writing what an experiment found.

First the figures, then result.json over all files, then the report over result.json.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab.digests import digest_of, sha256
from lab.present.draw import draw
from lab.present.figure import Figure
from lab.present.report import report
from lab.result import ContractError, Result

UNLISTED = {"result.json", "report.md"}


def write(out: Path, result: Result, figures: Sequence[Figure] = ()) -> None:
    """Write figures/, result.json and report.md below `out`.

    Everything else the run leaves there must exist by now. `result.files` becomes the sha256 of
    every file below `out` but result.json and report.md. The last line of report.md is an HTML
    comment with the digests of result.json and of all that stands above that line.
    """
    for figure in figures:
        _write_figure(out / "figures", figure)
    shown = tuple({"name": f.name, "title": f.title, "caption": f.caption} for f in figures)
    listed = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    files = {name: digest_of(out / name) for name in listed if name not in UNLISTED}
    document = as_json(replace(result, files=files, figures=shown).to_json())
    (out / "result.json").write_bytes(document)
    body = report(document).encode()
    seal = f"<!-- result.json sha256:{sha256(document)} body sha256:{sha256(body)} -->\n"
    (out / "report.md").write_bytes(body + seal.encode())


def as_json(value: Any) -> bytes:
    """Give the bytes of a JSON file of the lab: UTF-8, indented, no NaN, one final line break."""
    try:
        return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except ValueError as error:
        msg = f"a number that JSON cannot say (NaN or infinity) stands in the result: {error}"
        raise ContractError(msg) from error


def _write_figure(folder: Path, figure: Figure) -> None:
    folder.mkdir(exist_ok=True)
    data = as_json(figure.to_json())
    (folder / f"{figure.name}.json").write_bytes(data)
    for suffix, image in draw(figure, sha256(data)).items():
        (folder / f"{figure.name}.{suffix}").write_bytes(image)
