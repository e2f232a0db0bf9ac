"""What a feature is given: found, checked by digest before and after use, and named in one file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from toy import Toy, toy_plan

from phases.base import durable
from phases.base.paths import Paths
from phases.errors import EnvironmentFaultError, IntegrityError
from phases.execution.inputs import (
    ResolvedInput,
    cached_input,
    check_inputs,
    encode_inputs,
    lay_out_outputs,
    resolve_inputs,
    tracked_input,
)
from phases.git.repo import Repo
from phases.plan.load import parse_plan
from phases.plan.schema import Plan
from phases.record.project import load_unverified, open_project
from phases.record.state import fold_state


def pinned(path: Path, **files: str) -> ResolvedInput:
    return ResolvedInput("model", "input", path, files, {})


def test_files_are_checked_by_their_digests(tmp_path: Path) -> None:
    (tmp_path / "w").write_text("weights")
    item = pinned(tmp_path, w=durable.sha256(b"weights"))
    check_inputs([item])
    (tmp_path / "other").write_text("not named, not looked at")
    check_inputs([item])
    (tmp_path / "w").write_text("weighty")
    with pytest.raises(
        EnvironmentFaultError, match=f"the PRD wants {durable.sha256(b'weights')}"
    ) as changed:
        check_inputs([item])
    assert durable.sha256(b"weighty") in str(changed.value)
    (tmp_path / "w").unlink()
    with pytest.raises(EnvironmentFaultError, match="is missing") as missing:
        check_inputs([item])
    assert missing.value.exit_code == 7
    assert "setup fetches it" in missing.value.hint


def test_a_single_file_may_be_an_input(tmp_path: Path) -> None:
    (tmp_path / "w").write_text("weights")
    check_inputs([pinned(tmp_path / "w", w=durable.sha256(b"weights"))])
    with pytest.raises(EnvironmentFaultError):
        check_inputs([pinned(tmp_path / "w", w="0" * 64)])


def test_a_cached_input_lies_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHASES_CACHE", str(tmp_path / "cache"))
    document = toy_plan()
    document["inputs"] = [
        {"name": "model", "path": "$PHASES_CACHE/m/v1", "sha256": {"w.bin": "0" * 64}}
    ]
    given = cached_input(parse_plan(json.dumps(document).encode()).input("model"))
    assert given.path == tmp_path / "cache/m/v1"
    assert given.files == {"w.bin": "0" * 64}
    assert given.identity == {"sha256:w.bin": "0" * 64}


def test_the_document_is_the_contract(tmp_path: Path) -> None:
    given = [
        pinned(tmp_path),
        ResolvedInput("FEAT-001", "feature", tmp_path / "f", {}, {}, "ab" * 32),
    ]
    assert json.loads(encode_inputs(given)) == {
        "model": {"kind": "input", "path": str(tmp_path)},
        "FEAT-001": {
            "kind": "feature",
            "path": str(tmp_path / "f"),
            "receipt": "sha256:" + "ab" * 32,
        },
    }


#### a repository's own paths


@pytest.fixture
def tracking(make_toy: Callable[..., Toy]) -> tuple[Toy, Plan]:
    document = toy_plan()
    document["inputs"] = [{"name": "texts", "path": "docs"}]
    toy = make_toy(document)
    toy.write("docs/a.md", "a\n")
    toy.commit("texts")
    return toy, parse_plan(json.dumps(document).encode())


def test_a_tracked_input_is_named_by_git(tracking: tuple[Toy, Plan]) -> None:
    toy, plan = tracking
    paths = Paths(toy.root, toy.root / ".git", "results")
    given = tracked_input(plan.input("texts"), paths, Repo(toy.root))
    assert given.identity == {"gitObject": toy.git("rev-parse", "HEAD:docs")}
    assert (given.path, given.files) == (toy.root / "docs", {})
    toy.git("rm", "-rq", "docs")
    toy.git("commit", "-qm", "no texts")
    with pytest.raises(EnvironmentFaultError, match="docs is not in HEAD"):
        tracked_input(plan.input("texts"), paths, Repo(toy.root))


#### the outputs of another feature


def laid_out(toy: Toy, target: Path, receipt: str | None = None) -> dict[str, str]:
    paths = Paths(toy.root, toy.root / ".git", "results")
    known = load_unverified(open_project(toy.root)).state.phase(1).feature("TOY-001").receipt
    return lay_out_outputs(paths, "TOY-001", receipt or known, target)


def test_outputs_are_laid_out_in_their_own_shape(halted: Toy, tmp_path: Path) -> None:
    outputs = laid_out(halted, tmp_path / "given")
    found = {
        path.relative_to(tmp_path / "given").as_posix()
        for path in (tmp_path / "given").rglob("*")
        if path.is_file()
    }
    assert found == set(outputs) == {"result.json", "note.md", "artifacts/numbers.json"}
    for name, digest in outputs.items():
        assert durable.sha256_file(tmp_path / "given" / name) == digest
    assert json.loads((tmp_path / "given/artifacts/numbers.json").read_text()) == [3, 1, 4, 1, 5]


def test_what_is_laid_out_is_a_copy(halted: Toy, tmp_path: Path) -> None:
    laid_out(halted, tmp_path / "given")
    for path in (tmp_path / "given").rglob("*"):
        if path.is_file():
            path.write_text("an experiment that writes into its inputs")
    laid_out(halted, tmp_path / "again")
    assert halted.git("status", "--porcelain") == ""


def test_a_changed_receipt_or_result_is_refused(halted: Toy, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError) as refused:
        laid_out(halted, tmp_path / "a", receipt="0" * 64)
    assert refused.value.code == "receipt-changed"
    halted.write("results/TOY-001/note.md", "better")
    with pytest.raises(IntegrityError) as refused:
        laid_out(halted, tmp_path / "b")
    assert refused.value.code == "result-changed"
    (halted.root / "results/TOY-001/note.md").unlink()
    with pytest.raises(IntegrityError) as refused:
        laid_out(halted, tmp_path / "c")
    assert refused.value.code == "result-missing"


def test_a_missing_artifact_is_the_machines_fault_and_a_changed_one_is_not(
    halted: Toy, tmp_path: Path
) -> None:
    artifact = next((halted.root / ".phases/artifacts").rglob("*/*"))
    artifact.write_text("[]")
    with pytest.raises(IntegrityError) as refused:
        laid_out(halted, tmp_path / "a")
    assert refused.value.code == "result-changed"
    artifact.unlink()
    with pytest.raises(
        EnvironmentFaultError, match=r"artifacts/numbers.json .* is not on this machine"
    ) as absent:
        laid_out(halted, tmp_path / "b")
    assert "copy .phases/artifacts/ from the machine that has it" in absent.value.hint


def test_a_feature_gets_what_it_needs(halted: Toy, tmp_path: Path) -> None:
    opened = open_project(halted.root)
    now = load_unverified(opened).state
    needy = opened.plan.phases[0].features[1].model_copy(update={"needs": ("TOY-001",)})
    given = resolve_inputs(opened.plan, needy, now, opened.paths, opened.repo(), tmp_path / "given")
    assert [(item.name, item.kind, item.path) for item in given] == [
        ("TOY-001", "feature", tmp_path / "given/TOY-001")
    ]
    assert given[0].identity == {"sha256": now.phase(1).feature("TOY-001").receipt}
    check_inputs(given)
    (given[0].path / "result.json").write_text("{}")  # changed while it was used
    with pytest.raises(EnvironmentFaultError, match=r"result\.json"):
        check_inputs(given)
    nothing = fold_state(opened.plan, (), ())
    with pytest.raises(
        EnvironmentFaultError, match="TOY-001 is pending and has no verified results"
    ):
        resolve_inputs(opened.plan, needy, nothing, opened.paths, opened.repo(), tmp_path / "none")
