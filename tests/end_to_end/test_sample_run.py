"""`make sample-run`: a script approves its own temporary clone, and no other repository."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/phases"))
from toy import EXPERIMENT, Toy, toy_plan  # noqa: E402

ASSURANCE = "assurance: scripted (sample run, approved by no human)"
SITE = """
(out / "artifacts/site").mkdir(parents=True)
(out / "artifacts/site/index.html").write_text("<p>a page</p>")
"""
MAKEFILE = f"""
next:
\t@test -e .venv || ln -s {sys.prefix} .venv
\t@.venv/bin/python -m phases run --next
"""


def load_script() -> ModuleType:
    path = ROOT / "docs/sample-run/make_sample_run.py"
    spec = importlib.util.spec_from_file_location("make_sample_run", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


script = load_script()


def make_project(root: Path) -> Toy:
    """Return a repository of two phases that `make next` runs, with an empty record."""
    plan = toy_plan(phases=2, features=1) | {"results": "lab/results"}
    for phase in plan["phases"]:
        (feature,) = phase["features"]
        feature["exempt"] = [{"files": "artifacts/site/*", "reason": "a page of the test"}]
    toy = Toy(root, plan)
    toy.git("mv", "prd/plan.json", script.PLAN)
    experiment = EXPERIMENT.replace('(out / "artifacts").mkdir()', SITE.strip())
    toy.write("experiment.py", experiment)
    toy.write("Makefile", MAKEFILE)
    toy.write(".gitignore", ".phases/\n.venv\n__pycache__/\n")
    toy.write("progress.txt", "# progress of Toy\n")
    toy.write("docs/sample-run/make_sample_run.py", "# the script")
    toy.write("docs/sample-run/older.md", "of an older sample")
    toy.commit("what make next runs")
    return toy


@pytest.fixture(scope="module")
def _sampled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Toy, str]:
    toy = make_project(tmp_path_factory.mktemp("sample") / "toy")
    before = toy.git("rev-parse", "HEAD")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "processor", lambda: "a processor")
        patch.setattr(script, "library_line", lambda packages: f"pytest {packages['pytest']}")
        script.sample_run(toy.root, toy.root / "docs/sample-run")
    return toy, before


@pytest.fixture
def sampled(_sampled: tuple[Toy, str]) -> Toy:
    return _sampled[0]


def test_the_repository_itself_is_not_run_and_not_approved(_sampled: tuple[Toy, str]) -> None:
    toy, before = _sampled
    assert toy.git("rev-parse", "HEAD") == before
    assert (toy.root / "progress.txt").read_text() == "# progress of Toy\n"
    assert not (toy.root / "prd/approvals").exists()
    changed = toy.git("status", "--porcelain", "-uall").splitlines()
    assert changed
    assert all(" docs/sample-run/" in f" {line.split()[-1]}" for line in changed), changed


def test_what_is_kept_says_what_it_is(sampled: Toy) -> None:
    kept = sampled.root / "docs/sample-run"
    assert ASSURANCE in (kept / "progress.txt").read_text()
    assert f"**{ASSURANCE}**" in (kept / "README.md").read_text()
    assert json.loads((kept / "plan.json").read_text())["sample"] is True
    for phase in (1, 2):
        record = json.loads((kept / f"approvals/phase-{phase}.1.json").read_text())
        assert record["predicate"]["assurance"] == "scripted"


def test_results_and_site_are_kept_and_an_older_sample_is_gone(sampled: Toy) -> None:
    kept = sampled.root / "docs/sample-run"
    assert (kept / "site/index.html").read_text() == "<p>a page</p>"
    for feature in ("TOY-001", "TOY-002"):
        names = {path.name for path in (kept / "results" / feature).iterdir()}
        assert names == {"result.json", "receipt.json"}
        assert f"| [{feature}](results/{feature}/report.md) " in (kept / "README.md").read_text()
    assert not (kept / "older.md").exists()
    assert (kept / "make_sample_run.py").read_text() == "# the script"


#### what it refuses


def test_a_repository_with_changes_or_with_entries_is_refused(tmp_path: Path) -> None:
    toy = make_project(tmp_path / "toy")
    toy.write("experiment.py", "changed")
    with pytest.raises(script.SampleRunError, match="uncommitted changes"):
        script.make_clone(toy.root)
    toy.git("checkout", "-q", "experiment.py")
    toy.git("rm", "-q", "progress.txt")
    toy.commit("the runner writes it anew")
    toy.run("run", "--next")
    with pytest.raises(script.SampleRunError, match="has entries"):
        script.make_clone(toy.root)


def other_token(clone: Any) -> None:
    (clone.folder / ".git" / script.MARK).write_text("of another process")


def no_token(clone: Any) -> None:
    (clone.folder / ".git" / script.MARK).unlink()


def no_sample(clone: Any) -> None:
    plan = (clone.folder / script.PLAN).read_text()
    (clone.folder / script.PLAN).write_text(plan.replace('"sample": true', '"sample": false'))


def no_sample_in_genesis(clone: Any) -> None:
    progress = (clone.folder / "progress.txt").read_text()
    (clone.folder / "progress.txt").write_text(progress.replace(f"- {ASSURANCE}\n", ""))


@pytest.mark.parametrize("change", [other_token, no_token, no_sample, no_sample_in_genesis])
def test_it_approves_no_other_repository(tmp_path: Path, change: Any) -> None:
    toy = make_project(tmp_path / "toy")
    clone = script.make_clone(toy.root)
    script.run_phase(clone, 1)
    change(clone)
    before = (clone.folder / "progress.txt").read_text()
    with pytest.raises(script.SampleRunError, match="is not the clone of this sample run"):
        script.approve(clone, 1)
    assert (clone.folder / "progress.txt").read_text() == before
    assert not (clone.folder / "prd/approvals").exists()
    shutil.rmtree(clone.folder)


def test_a_phase_that_fails_ends_it_without_an_approval(tmp_path: Path) -> None:
    toy = make_project(tmp_path / "toy")
    toy.set_mode("wrong")
    clone = script.make_clone(toy.root)
    with pytest.raises(script.SampleRunError, match="phase 1 did not come to its checkpoint"):
        script.run_all(clone)
    assert (clone.folder / "progress.txt").read_text().count("· FAILED ·") == script.MAX_RUNS
    assert "APPROVED" not in (clone.folder / "progress.txt").read_text()
    with pytest.raises(script.SampleRunError):
        script.require_clean(clone)
    shutil.rmtree(clone.folder)


def test_a_sample_that_is_too_large_is_refused_and_the_older_one_stays(tmp_path: Path) -> None:
    toy = make_project(tmp_path / "toy")
    clone = script.make_clone(toy.root)
    script.run_all(clone)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "MAX_BYTES", 1000)
        patch.setattr(script, "library_line", lambda packages: "")
        patch.setenv("TMPDIR", str(tmp_path))
        patch.setattr(script.tempfile, "tempdir", None)
        with pytest.raises(script.SampleRunError, match="expected at most 1,000"):
            script.keep(clone, toy.root / "docs/sample-run")
    assert (toy.root / "docs/sample-run/older.md").exists()
    shutil.rmtree(clone.folder)
