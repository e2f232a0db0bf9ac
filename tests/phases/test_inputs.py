"""The inputs of a feature: resolved, checked by digest before and after use, named in one file."""

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
    InputKind,
    ResolvedInput,
    cached_input,
    check_inputs,
    copy_outputs,
    encode_inputs,
    resolve_inputs,
    tracked_input,
)
from phases.git.repo import Repo
from phases.git.tree import CommitTree, Layout, WorkTree
from phases.plan.load import parse_plan
from phases.plan.schema import Plan
from phases.record.evidence import Evidence
from phases.record.project import Project, load_unverified, open_project
from phases.record.state import State, fold_state


def pinned_input(path: Path, **files: str) -> ResolvedInput:
    return ResolvedInput("model", InputKind.INPUT, path, files, {})


def toy_paths(toy: Toy) -> Paths:
    return Paths(toy.root, toy.root / ".git", "results")


#### files that are checked by digest


def test_files_are_checked_by_their_digests(tmp_path: Path) -> None:
    weights = tmp_path / "w"
    weights.write_text("weights")
    item = pinned_input(tmp_path, w=durable.sha256(b"weights"))
    check_inputs([item])
    (tmp_path / "other").write_text("not named, not looked at")
    check_inputs([item])

    # A changed file: the message has both digests.
    weights.write_text("weighty")
    expected = f"expected {durable.sha256(b'weights')}"
    with pytest.raises(EnvironmentFaultError, match=expected) as changed:
        check_inputs([item])
    assert f"got sha256 {durable.sha256(b'weighty')}" in str(changed.value)

    # A missing file.
    weights.unlink()
    with pytest.raises(EnvironmentFaultError, match="is missing") as missing:
        check_inputs([item])
    assert missing.value.exit_code == 7
    assert "setup fetches it" in missing.value.hint


def test_a_single_file_may_be_an_input(tmp_path: Path) -> None:
    (tmp_path / "w").write_text("weights")
    check_inputs([pinned_input(tmp_path / "w", w=durable.sha256(b"weights"))])
    with pytest.raises(EnvironmentFaultError):
        check_inputs([pinned_input(tmp_path / "w", w="0" * 64)])


def test_a_cached_input_is_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHASES_CACHE", str(tmp_path / "cache"))
    document = toy_plan()
    document["inputs"] = [
        {"name": "model", "path": "$PHASES_CACHE/m/v1", "sha256": {"w.bin": "0" * 64}}
    ]
    item = cached_input(parse_plan(json.dumps(document).encode()).input("model"))
    assert item.path == tmp_path / "cache/m/v1"
    assert item.files == {"w.bin": "0" * 64}
    assert item.identity == {"sha256:w.bin": "0" * 64}


def test_the_document_is_the_contract(tmp_path: Path) -> None:
    digest = "ab" * 32
    inputs = [
        pinned_input(tmp_path),
        ResolvedInput("FEAT-001", InputKind.FEATURE, tmp_path / "f", {}, {}, digest),
    ]
    assert json.loads(encode_inputs(inputs)) == {
        "model": {"kind": "input", "path": str(tmp_path)},
        "FEAT-001": {
            "kind": "feature",
            "path": str(tmp_path / "f"),
            "receipt": f"sha256:{digest}",
        },
    }


#### a repository's own paths


@pytest.fixture
def toy_with_input(make_toy: Callable[..., Toy]) -> tuple[Toy, Plan]:
    """Return a toy repository with a tracked input, and its plan."""
    document = toy_plan()
    document["inputs"] = [{"name": "texts", "path": "docs"}]
    toy = make_toy(document)
    toy.write("docs/a.md", "a\n")
    toy.commit("texts")
    return toy, parse_plan(json.dumps(document).encode())


def test_a_tracked_input_is_named_by_git(toy_with_input: tuple[Toy, Plan], tmp_path: Path) -> None:
    toy, plan = toy_with_input
    tree = head_tree(toy)
    layout = tree.lay_out(tmp_path / "tree")
    item = tracked_input(plan.input("texts"), tree, layout)
    assert item.identity == {"gitObject": toy.git("rev-parse", "HEAD:docs")}
    assert item.path == tmp_path / "tree/docs"
    assert item.files == {"a.md": durable.sha256(b"a\n")}
    check_inputs([item])
    (item.path / "a.md").write_text("changed while it was in use")
    with pytest.raises(EnvironmentFaultError, match=r"docs/a\.md: got sha256"):
        check_inputs([item])

    toy.git("rm", "-rq", "docs")
    toy.git("commit", "-qm", "no texts")
    with pytest.raises(EnvironmentFaultError, match="docs is not in commit"):
        tracked_input(plan.input("texts"), head_tree(toy), layout)


def head_tree(toy: Toy) -> CommitTree:
    """Return the tree of HEAD."""
    repo = Repo(toy.root)
    return CommitTree(repo, repo.head())


#### the outputs of another feature


def copy_toy_outputs(toy: Toy, target: Path, receipt: str | None = None) -> dict[str, str]:
    """Copy the outputs of TOY-001 as the ledger or another receipt names them."""
    status = load_unverified(open_project(toy.root)).state.phase(1).feature("TOY-001")
    return copy_outputs(toy_paths(toy), "TOY-001", receipt or status.receipt, target)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_outputs_are_copied_in_their_own_shape(halted: Toy, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    outputs = copy_toy_outputs(halted, target)
    names = {path.relative_to(target).as_posix() for path in files_below(target)}
    assert names == set(outputs) == {"result.json", "note.md", "artifacts/numbers.json"}
    for name, digest in outputs.items():
        assert durable.sha256_file(target / name) == digest
    assert json.loads((target / "artifacts/numbers.json").read_text()) == [3, 1, 4, 1, 5]


def test_an_experiment_that_writes_into_its_inputs_changes_no_result(
    halted: Toy, tmp_path: Path
) -> None:
    copy_toy_outputs(halted, tmp_path / "copy")
    for path in files_below(tmp_path / "copy"):
        path.write_text("an experiment that writes into its inputs")
    copy_toy_outputs(halted, tmp_path / "second")
    assert halted.git("status", "--porcelain") == ""


def test_a_changed_receipt_or_result_is_refused(halted: Toy, tmp_path: Path) -> None:
    note = halted.root / "results/TOY-001/note.md"
    with pytest.raises(IntegrityError) as refused:
        copy_toy_outputs(halted, tmp_path / "a", receipt="0" * 64)
    assert refused.value.code == "receipt-changed"
    note.write_text("better")
    with pytest.raises(IntegrityError) as refused:
        copy_toy_outputs(halted, tmp_path / "b")
    assert refused.value.code == "result-changed"
    note.unlink()
    with pytest.raises(IntegrityError) as refused:
        copy_toy_outputs(halted, tmp_path / "c")
    assert refused.value.code == "result-missing"


def test_a_missing_artifact_is_the_machines_fault_and_a_changed_one_is_not(
    halted: Toy, tmp_path: Path
) -> None:
    artifact = next((halted.root / ".phases/artifacts").rglob("*/*"))
    artifact.write_text("[]")
    with pytest.raises(IntegrityError) as refused:
        copy_toy_outputs(halted, tmp_path / "a")
    assert refused.value.code == "result-changed"
    artifact.unlink()
    message = r"artifacts/numbers.json .* is not on this machine"
    with pytest.raises(EnvironmentFaultError, match=message) as missing:
        copy_toy_outputs(halted, tmp_path / "b")
    assert "copy .phases/artifacts/ from the machine that has it" in missing.value.hint


def resolve_needs(project: Project, state: State, folder: Path) -> tuple[ResolvedInput, ...]:
    """Resolve the inputs of a feature that needs TOY-001."""
    return resolve_inputs(
        project.plan,
        names=(),
        needs=("TOY-001",),
        state=state,
        paths=project.paths,
        tree=WorkTree(project.root),
        layout=Layout(project.root),
        folder=folder,
    )


def test_a_feature_gets_what_it_needs(halted: Toy, tmp_path: Path) -> None:
    project = open_project(halted.root)
    state = load_unverified(project).state
    inputs = resolve_needs(project, state, tmp_path / "inputs")
    assert [(item.name, item.kind, item.path) for item in inputs] == [
        ("TOY-001", "feature", tmp_path / "inputs/TOY-001")
    ]
    receipt = state.phase(1).feature("TOY-001").receipt
    assert inputs[0].identity == {"sha256": receipt}
    assert durable.sha256_file(inputs[0].path / "receipt.json") == receipt
    check_inputs(inputs)

    # Changed while it was used.
    (inputs[0].path / "result.json").write_text("{}")
    with pytest.raises(EnvironmentFaultError, match=r"result\.json"):
        check_inputs(inputs)

    # Not verified yet.
    pending = fold_state(project.plan, (), Evidence())
    message = "TOY-001 is pending and has no verified results"
    with pytest.raises(EnvironmentFaultError, match=message):
        resolve_needs(project, pending, tmp_path / "none")
