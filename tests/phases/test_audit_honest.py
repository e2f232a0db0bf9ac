"""Honest repositories of unusual shape: the audit finds nothing in them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from forged_record import audit_report, describe
from quick import Quick, feature, plan

MODULE = """
import json, os, pathlib
out = pathlib.Path(os.environ["PHASES_OUT"])
(out / "artifacts").mkdir()
(out / "artifacts" / "numbers.json").write_text("[14]\\n")
total = {"value": 14, "unit": "", "exact": True}
(out / "result.json").write_text(json.dumps({"measurements": {"total": total}}))
"""


def assert_nothing_found(quick: Quick) -> None:
    """Check that the audit has no finding at all."""
    code, report = audit_report(quick)
    assert (code, report["findings"]) == (0, []), describe(report["findings"])


def with_features(*features: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a plan of one phase with these features."""
    document = plan() | changes
    document["phases"][0]["features"] = list(features)
    return document


def module_feature(number: int, module: str) -> dict[str, Any]:
    """Return a feature that runs a module."""
    document = feature(number, module=module, config="settings.yaml")
    del document["command"]
    return document


def run_first(root: Path, document: dict[str, Any], files: dict[str, str]) -> Quick:
    """Return a repository with these files, whose first feature was verified."""
    quick = Quick(root, document)
    for path, text in files.items():
        quick.write(path, text)
    quick.commit("files")
    quick.run("run", "--feature", "Q-001")
    return quick


#### links


def test_a_package_with_results_inside_may_have_links(tmp_path: Path) -> None:
    document = with_features(
        module_feature(1, "lab.main"), module_feature(2, "lab.main"), results="lab/results"
    )
    files = {
        "lab/__init__.py": "",
        "lab/main.py": MODULE,
        "lab/data/x.txt": "x\n",
        "settings.yaml": "",
    }
    quick = run_first(tmp_path / "quick", document, files)
    add_links(quick, "lab", ("data/x.txt", "results/Q-001", "../progress.txt", "../prd"))
    quick.run("run", "--next")
    assert_nothing_found(quick)


def test_an_input_may_have_links_to_the_record(tmp_path: Path) -> None:
    document = with_features(
        feature(1), feature(2, inputs=["words"]), inputs=[{"name": "words", "path": "data"}]
    )
    quick = run_first(tmp_path / "quick", document, {"data/x.txt": "x\n"})
    add_links(quick, "data", ("../results/Q-001", "../results", "../progress.txt", "../prd"))
    quick.run("run", "--next")
    assert_nothing_found(quick)


def add_links(quick: Quick, folder: str, targets: Sequence[str]) -> None:
    """Commit a link to each of the targets."""
    for number, target in enumerate(targets):
        (quick.root / folder / f"link-{number}").symlink_to(target)
    quick.commit("links")


#### submodules


@pytest.mark.parametrize("has_its_commit", [False, True])
def test_a_repository_may_have_submodules(tmp_path: Path, *, has_its_commit: bool) -> None:
    document = with_features(feature(1), module_feature(2, "lab.main"))
    quick = Quick(tmp_path / "quick", document)
    for path, text in {"lab/__init__.py": "", "lab/main.py": MODULE, "settings.yaml": ""}.items():
        quick.write(path, text)
    quick.git("add", "-A")
    commit = quick.git("rev-parse", "HEAD") if has_its_commit else "ab" * 20
    quick.git("update-index", "--add", "--cacheinfo", f"160000,{commit},modules/other")
    (quick.root / "modules/other").mkdir(parents=True)
    quick.git("commit", "-q", "-m", "a submodule")
    quick.run("run", "--next")
    assert_nothing_found(quick)


#### trees of other tools


def test_a_tree_may_be_written_by_an_old_tool(tmp_path: Path) -> None:
    quick = Quick(tmp_path / "quick")
    tree = git_bytes(quick, "cat-file", "tree", "HEAD^{tree}")
    padded = tree.replace(b"40000 prd\0", b"040000 prd\0")
    padded = padded.replace(b"100644 worker.sh\0", b"100664 worker.sh\0")
    words = ("hash-object", "-t", "tree", "-w", "--stdin", "--literally")
    written = git_bytes(quick, *words, data=padded).decode().strip()
    assert padded != tree
    quick.git("reset", "-q", "--soft", quick.git("commit-tree", written, "-m", "an old tool"))
    quick.run("run", "--next")
    assert_nothing_found(quick)


def git_bytes(quick: Quick, *arguments: str, data: bytes = b"") -> bytes:
    """Run git and return the bytes that it printed."""
    words = ["git", *arguments]
    return subprocess.run(words, cwd=quick.root, input=data, capture_output=True, check=True).stdout


#### exit gates


def test_the_user_may_commit_while_exit_gates_fail(tmp_path: Path) -> None:
    root, document = tmp_path / "quick", plan()
    commit = f"git -C {root} commit -q --allow-empty -m meanwhile"
    document["phases"][0]["exit"] = [{"shell": f"{commit}; grep -q 15 Q-001/result.json"}]
    quick = Quick(root, document)
    quick.run("run", "--next", code=1)
    assert "meanwhile" in quick.git("log", "--format=%s")
    assert_nothing_found(quick)
