"""`python -m lab site`: the verified site as files to open."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

PAGES = {
    "artifacts/site/index.html": b"<p>first</p>",
    "artifacts/site/figures/FEAT-001/loss.svg": b"<svg/>",
    "artifacts/answers.json": b"{}",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a repository whose FEAT-018 made a site, and another feature none."""
    subjects = []
    for name, data in PAGES.items():
        digest = hashlib.sha256(data).hexdigest()
        stored = tmp_path / ".phases/artifacts" / digest[:2] / digest
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_bytes(data)
        subjects.append({"name": name, "digest": {"sha256": digest}})
    for feature, named in {"FEAT-001": [], "FEAT-018": subjects}.items():
        folder = tmp_path / "lab/results" / feature
        folder.mkdir(parents=True)
        (folder / "receipt.json").write_text(json.dumps({"subject": named}))
    return tmp_path


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lab", "site", "--root", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_site_is_laid_out_and_its_first_page_is_named(root: Path) -> None:
    for _ in range(2):  # an older one is replaced
        done = run(root)
        assert (done.returncode, done.stderr) == (0, "")
        first = Path(done.stdout.strip())
        assert first == root / ".phases/site/index.html"
        assert first.read_bytes() == PAGES["artifacts/site/index.html"]
        files = {path.relative_to(first.parent).as_posix() for path in first.parent.rglob("*.*")}
        assert files == {"index.html", "figures/FEAT-001/loss.svg"}
        (first.parent / "old.html").write_text("of an older site")


def test_another_folder_can_be_named_if_it_is_new(root: Path) -> None:
    assert run(root, "--out", str(root / "site")).returncode == 0
    (root / "mine").mkdir()
    (root / "mine/index.html").write_text("mine")
    refused = run(root, "--out", str(root / "mine"))
    assert refused.returncode == 2
    assert "mine exists; nothing was written\nnext: name a new folder" in refused.stderr
    assert (root / "mine/index.html").read_text() == "mine"


def test_a_page_that_was_changed_in_the_store_is_refused(root: Path) -> None:
    digest = hashlib.sha256(PAGES["artifacts/site/index.html"]).hexdigest()
    (root / ".phases/artifacts" / digest[:2] / digest).write_text("another")
    refused = run(root)
    assert refused.returncode == 2
    assert "index.html of the site is not on this machine, or was changed" in refused.stderr
    assert "next: python -m phases audit" in refused.stderr


def test_without_a_site_the_next_command_is_named(tmp_path: Path) -> None:
    refused = run(tmp_path)
    assert refused.returncode == 2
    assert "has a site\nnext: python -m phases status" in refused.stderr
