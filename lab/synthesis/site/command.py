"""`python -m lab site`: lay the verified site out as files, and say which one to open.

The runner keeps artifacts by their digests, below `.phases/artifacts/`; the receipt of the feature
that made the site names each page's path and digest.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.digests import digest_of

RESULTS, STORE = "lab/results", ".phases/artifacts"
SITE = "artifacts/site/"
DEFAULT = ".phases/site"  # git ignores it


class SiteError(Exception):
    """There is no site to lay out; the message says why, and `hint` what to type."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def main(argv: Sequence[str]) -> int:
    """Lay the site out and print the path of its first page; return the exit code, 0 or 2."""
    parser = argparse.ArgumentParser(
        prog="python -m lab site",
        description="Lay out the site that the lab made of its results, and say what to open.",
    )
    parser.add_argument("--root", type=Path, default=Path(), help="the repository (default: here)")
    parser.add_argument(
        "--out", type=Path, help=f"a new folder (default: {DEFAULT} in the repository, replaced)"
    )
    args = parser.parse_args(argv)
    out = args.out or args.root / DEFAULT
    try:
        lay_out(args.root, out)
    except SiteError as error:
        sys.stderr.write(f"error: {error}\nnext: {error.hint}\n")
        return 2
    sys.stdout.write(f"{(out / 'index.html').resolve()}\n")
    return 0


def lay_out(root: Path, out: Path) -> None:
    """Write the files of the verified site below `out`.

    Raises:
        SiteError: no feature made a site, a page is not in the store or was changed there, or `out`
            exists and is not the default folder.
    """
    # 1. The pages, by the receipt that names them.
    pages = site_files(root)
    if not pages:
        msg = f"no result in {root / RESULTS} has a site"
        raise SiteError(msg, "python -m phases status: FEAT-018 makes it, in phase 6")
    for name, digest in pages.items():
        stored = root / STORE / digest[:2] / digest
        if not stored.is_file() or digest_of(stored) != digest:
            msg = f"{name} of the site is not on this machine, or was changed: {stored}"
            raise SiteError(msg, "python -m phases audit")

    # 2. Their copies, which may be edited; the store may not.
    if out.exists() and out != root / DEFAULT:
        msg = f"--out {out} exists; nothing was written"
        raise SiteError(msg, "name a new folder")
    shutil.rmtree(out, ignore_errors=True)
    for name, digest in pages.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / STORE / digest[:2] / digest, out / name)


def site_files(root: Path) -> dict[str, str]:
    """Return path in the site -> SHA-256 of its files; {} if no result has a site."""
    for path in sorted((root / RESULTS).glob("*/receipt.json")):
        files = {}
        for subject in json.loads(path.read_text("utf-8"))["subject"]:
            if subject["name"].startswith(SITE):
                files[subject["name"].removeprefix(SITE)] = subject["digest"]["sha256"]
        if "index.html" in files:
            return files
    return {}
