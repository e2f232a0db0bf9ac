"""Writing what an experiment measured: the files of its output folder.

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
from lab.present.heatmap import Heatmap
from lab.present.report import report
from lab.result import ContractError, Result

UNLISTED = {"result.json", "report.md"}


def write(out: Path, result: Result, figures: Sequence[Figure | Heatmap] = ()) -> None:
    """Write figures/, result.json and report.md below `out`.

    All other files of the run must exist by now. `result.files` becomes the sha256 of every file
    below `out` but result.json and report.md. The last line of report.md is an HTML comment with
    the digests of result.json and of everything above that line.
    """
    # 1. The figures.
    for figure in figures:
        _write_figure(out / "figures", figure)
    captions = tuple({"name": f.name, "title": f.title, "caption": f.caption} for f in figures)

    # 2. result.json, with the digest of every other file.
    names = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    files = {name: digest_of(out / name) for name in names if name not in UNLISTED}
    document = as_json(replace(result, files=files, figures=captions).to_json())
    (out / "result.json").write_bytes(document)

    # 3. The report, sealed with the digests of result.json and of itself.
    body = report(document).encode()
    seal = f"<!-- result.json sha256:{sha256(document)} body sha256:{sha256(body)} -->\n"
    (out / "report.md").write_bytes(body + seal.encode())


def as_json(value: Any) -> bytes:
    """Return the bytes of a JSON file of the lab: UTF-8, indented, no NaN, a final line break."""
    try:
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        msg = f"the result contains a number that JSON cannot express (NaN or infinity): {error}"
        raise ContractError(msg) from error
    return (text + "\n").encode()


def _write_figure(folder: Path, figure: Figure | Heatmap) -> None:
    folder.mkdir(exist_ok=True)
    data = as_json(figure.to_json())
    (folder / f"{figure.name}.json").write_bytes(data)
    for suffix, image in draw(figure, sha256(data)).items():
        (folder / f"{figure.name}.{suffix}").write_bytes(image)
