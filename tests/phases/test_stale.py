"""Stale results: what changed in commits since a feature was verified is shown, and no more."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from terminal_user import as_asked, at_terminal
from test_views import after, approve_both_phases, halt_phase_1, spend_attempts
from toy import EXPERIMENT, Toy, feature, toy_plan, with_shell_gates

from phases.base import durable
from phases.git.probe import changed_paths
from phases.plan.load import parse_plan
from phases.views.checkpoint import checkpoint_text
from phases.views.plan import plan_json, plan_text
from phases.views.stale import Basis, changed_parts, parse_materials
from phases.views.status import status_text
from phases.views.why import explain_feature

MODULE, COMMAND = "TOY-001", "TOY-002"
SINCE = {MODULE: "changed since entry 0004", COMMAND: "changed since entry 0006"}
WORDS = "the words\n"


def stale_plan() -> dict[str, Any]:
    """Return a plan of two features: a module with every kind of input, a command that needs it."""
    module = feature(
        1,
        module="exp.count",
        config="exp/count.yaml",
        inputs=["sales", "prices", "words"],
        publish={"note.md": "docs/note.md"},
    )
    del module["command"]
    document = toy_plan()
    document["phases"][0]["features"] = [module, feature(2, needs=[MODULE])]
    document["inputs"] = [
        {"name": "sales", "path": "data/sales.csv"},
        {"name": "prices", "path": "data/prices/"},
        {
            "name": "words",
            "path": "$PHASES_CACHE/words",
            "sha256": {"words.txt": durable.sha256(WORDS.encode())},
        },
    ]
    return with_shell_gates(document)


@pytest.fixture(scope="module")
def _verified(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    folder = tmp_path_factory.mktemp("stale")
    (folder / "cache/words").mkdir(parents=True)
    (folder / "cache/words/words.txt").write_text(WORDS)
    toy = Toy(folder / "toy", stale_plan())
    toy.write("exp/count.py", EXPERIMENT)
    toy.write("exp/count.yaml", "n: 5\n")
    toy.write("data/sales.csv", "1\n")
    toy.write("data/prices/april.csv", "1\n")
    toy.commit("what the module needs")
    toy.run("run", "--next", env={"PHASES_CACHE": str(folder / "cache")})
    return toy


@pytest.fixture
def verified(_verified: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """Return a toy repository whose two features are verified."""
    monkeypatch.setenv("PHASES_CACHE", str(_verified.root.parent / "cache"))
    return _verified.copy(tmp_path / "toy")


def stale(toy: Toy) -> dict[str, list[str]]:
    """Return feature id -> `stale` of `status --json`, without those that have none."""
    changes = {}
    for phase in toy.status()["phases"]:
        for item in phase["features"]:
            if item["stale"]:
                changes[item["id"]] = item["stale"]
    return changes


def expected(module: str, command: str = "") -> dict[str, list[str]]:
    """Return what is stale where this of the module and this of the command changed."""
    parts = {MODULE: module, COMMAND: command}
    return {name: [f"{part} {SINCE[name]}"] for name, part in parts.items() if part}


#### what changed


def test_what_the_runner_commits_makes_nothing_stale(verified: Toy) -> None:
    assert (verified.root / "docs/note.md").exists()
    assert stale(verified) == {}
    assert "stale" not in verified.call("status").stdout
    assert json.loads(verified.call("why", MODULE, "--json").stdout)["stale"] == []
    assert json.loads(verified.call("plan", "--json").stdout)["stale"] == []


CHANGED = {
    # path of the changed or new file: (of the module, of the command)
    "exp/count.py": ("code", "1 file (exp/count.py)"),
    "exp/numbers.json": ("code", "1 file (exp/numbers.json)"),
    "exp.py": ("code", "1 file (exp.py)"),
    "exp/count.yaml": ("config exp/count.yaml", "1 file (exp/count.yaml)"),
    "gates/test_count.py": ("gate", "gate"),
    "data/sales.csv": ("input sales", "1 file (data/sales.csv)"),
    "data/prices/may.csv": ("input prices", "1 file (data/prices/may.csv)"),
    # Controls: what the module does not read, and what neither does.
    "README.md": ("", "1 file (README.md)"),
    "data/prices.csv": ("", "1 file (data/prices.csv)"),
    "experiment/count.py": ("", "1 file (experiment/count.py)"),
    "prd/notes.md": ("", ""),
    "results/notes.md": ("", ""),
    "docs/note.md": ("", ""),
}


@pytest.mark.parametrize("path", CHANGED)
def test_a_committed_change_is_named_by_what_it_is(verified: Toy, path: str) -> None:
    verified.write(path, "changed")
    # The work tree does not count, nor does the index.
    verified.git("add", "-A")
    assert stale(verified) == {}
    verified.commit("a change")
    assert stale(verified) == expected(*CHANGED[path])
    # Trees are compared: what was brought back did not change.
    verified.git("revert", "--no-edit", "HEAD")
    assert stale(verified) == {}


def test_a_deleted_file_and_a_changed_mode_are_changes(verified: Toy) -> None:
    (verified.root / "experiment.py").chmod(0o755)
    (verified.root / "data/prices/april.csv").unlink()
    (verified.root / "data/prices/may.csv").write_text("1\n")
    verified.commit("changes")
    files = "3 files (data/prices/april.csv, data/prices/may.csv, experiment.py)"
    assert stale(verified) == expected("input prices", files)


def test_of_many_changed_files_a_few_are_named(verified: Toy) -> None:
    for number in range(5):
        verified.write(f"tools/{number}.py", "")
    verified.commit("tools")
    files = "5 files (tools/0.py, tools/1.py, tools/2.py and 2 more)"
    assert stale(verified) == expected("", files)


def test_names_may_be_any_bytes(verified: Toy) -> None:
    for name in (b"a\nb \xff.txt", "größe.txt".encode()):
        (verified.root / os.fsdecode(name)).write_text("")
    verified.commit("names")
    files = r"2 files (a\x0ab \udcff.txt, größe.txt)"
    assert stale(verified) == expected("", files)


def test_each_change_is_a_line_of_its_own(verified: Toy) -> None:
    for path in ("exp/count.py", "exp/count.yaml", "gates/test_count.py", "data/sales.csv"):
        verified.write(path, "changed")
    verified.commit("everything")
    parts = ("code", "config exp/count.yaml", "gate", "input sales")
    assert stale(verified)[MODULE] == [f"{part} {SINCE[MODULE]}" for part in parts]
    files = "3 files (data/sales.csv, exp/count.py, exp/count.yaml)"
    assert stale(verified)[COMMAND] == [f"{part} {SINCE[COMMAND]}" for part in (files, "gate")]


@pytest.mark.parametrize("path", ["results/own", "results/own/notes.txt", "results"])
def test_an_input_in_the_results_is_compared(verified: Toy, path: str) -> None:
    document = stale_plan()
    document["inputs"][1]["path"] = path
    verified.write("results/own/notes.txt", "new")
    verified.write("prd/plan.json", json.dumps(document, indent=1))
    verified.commit("an input among the results")
    assert stale(verified) == expected("input prices")


def test_other_digests_of_a_cached_input(verified: Toy) -> None:
    document = stale_plan()
    document["inputs"][2]["sha256"] = {"words.txt": "0" * 64}
    verified.write("prd/plan.json", json.dumps(document))
    verified.commit("other words")
    assert stale(verified) == expected("input words")


def test_a_needed_feature_that_was_verified_again(verified: Toy) -> None:
    verified.write("exp/count.py", f"{EXPERIMENT}\n# the same\n")
    verified.commit("the module changes")
    verified.run("run", "--feature", MODULE, "--force")
    # The module is stale no more; the command still has its old results.
    lines = [f"{part} {SINCE[COMMAND]}" for part in ("1 file (exp/count.py)", f"input {MODULE}")]
    assert stale(verified) == {COMMAND: lines}


def test_a_feature_that_is_not_verified_is_not_stale(verified: Toy) -> None:
    verified.write("MODE", "crash")
    verified.commit("no luck")
    assert stale(verified) == expected("", "1 file (MODE)")
    verified.run("run", "--feature", COMMAND, "--force", code=1)
    assert verified.states()[COMMAND] == "errored"
    assert stale(verified) == {}


def test_a_topics_gate_has_its_own_folders() -> None:
    document = stale_plan()
    document["phases"][0]["features"][0]["gate"] = {"pytest": "gates/count/test_count.py"}
    plan = parse_plan(json.dumps(document).encode())

    def parts(path: str) -> list[str]:
        return changed_parts(plan, plan.feature(MODULE)[1], Basis({}, {path}, {}))

    assert parts("gates/count/arrays.py") == parts("gates/shared/outputs.py") == ["gate"]
    assert parts("gates/sums/arrays.py") == []


#### where it is shown


def test_case_I_57_a_changed_input_is_shown_and_changes_nothing(verified: Toy) -> None:  # noqa: N802
    before = verified.states(), verified.progress
    verified.write("data/sales.csv", "2\n")
    verified.commit("other sales")
    change = f"input sales {SINCE[MODULE]}"

    # status, why and plan say it, and all exit 0.
    status = verified.call("status").stdout.splitlines()
    line = next(index for index, text in enumerate(status) if MODULE in text)
    assert status[line + 1] == f"      stale: {change}"
    assert f"\nStale: {change}.\n" in verified.call("why", MODULE).stdout
    plan = verified.call("plan").stdout
    assert f"  stale   {MODULE}: {change}\n" in plan
    assert f"          `python -m phases run --feature {MODULE} --force` runs it again\n" in plan
    assert plan.endswith("\nnext: python -m phases approve 1\n")
    assert json.loads(verified.call("plan", "--json").stdout)["stale"][0] == {
        "id": MODULE,
        "changes": [change],
        "command": f"python -m phases run --feature {MODULE} --force",
    }
    assert verified.call("audit").stdout.endswith("audit: ok\n")
    assert (verified.states(), verified.progress) == before

    # The approver reads it before the checks, and may approve; the result stays stale.
    code, screen = at_terminal(verified.root, "approve", "1", answer=as_asked)
    assert code == 0
    assert screen.index(f"    stale: {change}") < screen.index("    checks: ")
    assert stale(verified)[MODULE] == [change]
    assert json.loads(verified.call("plan", "--json").stdout)["stale"] == []


def test_the_plan_names_what_is_stale_after_what_it_would_run() -> None:
    changes = {"TOY-001": ["code changed since entry 0003", "gate changed since entry 0003"]}
    line = "  stale   TOY-001: code changed since entry 0003; gate changed since entry 0003"
    plan, snapshot = after(halt_phase_1().add("STARTED", 1, "TOY-002"))
    text = plan_text(plan, snapshot, stale=changes)
    assert text.index("  TOY-002 ") < text.index(line) < text.index("in all about")
    assert [item["id"] for item in plan_json(plan, snapshot, stale=changes)["stale"]] == ["TOY-001"]

    # It is named where nothing would run; not of another phase than the open one.
    plan, snapshot = after(spend_attempts())
    text = plan_text(plan, snapshot, stale={"TOY-002": ["gate changed since entry 0003"]})
    assert "\n  stale   TOY-002: gate changed since entry 0003\n" in text
    assert text.splitlines()[-1].startswith("next: ")
    plan, snapshot = after(approve_both_phases())
    assert plan_json(plan, snapshot, stale=changes)["stale"] == []


def test_what_is_not_stale_is_shown_as_before() -> None:
    plan, snapshot = after(halt_phase_1())
    changes = {"TOY-002": ["gate changed since entry 0005"]}
    assert status_text(plan, snapshot, stale=changes).count("stale") == 1
    assert (
        checkpoint_text(snapshot.state.phase(1), {}, "results", stale=changes).count("stale") == 1
    )
    assert explain_feature(plan, snapshot, "TOY-001", stale=changes).stale == ()
    assert len(explain_feature(plan, snapshot, "TOY-001", stale=changes).sentences) == 2


#### what cannot be compared


RECEIPTS = {
    "empty": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "null": b"null",
    "no predicate": b"{}",
    "a predicate that is text": b'{"predicate": "git"}',
    "dependencies that are a number": b'{"predicate": {"buildDefinition": '
    b'{"resolvedDependencies": 1}}}',
    "a dependency that is text": b'{"predicate": {"buildDefinition": '
    b'{"resolvedDependencies": ["git"]}}}',
    "a digest that is text": b'{"predicate": {"buildDefinition": '
    b'{"resolvedDependencies": [{"uri": "git", "digest": "abc"}]}}}',
}


@pytest.mark.parametrize("name", RECEIPTS)
def test_a_malformed_receipt_names_nothing(name: str) -> None:
    assert parse_materials(RECEIPTS[name]) == {}


def remove(path: Path) -> None:
    path.unlink()


def edit(path: Path) -> None:
    path.write_text(path.read_text().replace("gitCommit", "gitcommit"))


@pytest.mark.parametrize("damage", [remove, edit])
def test_a_receipt_that_the_ledger_does_not_name_is_not_read(
    verified: Toy, damage: Callable[[Path], None]
) -> None:
    verified.write("data/sales.csv", "2\n")
    verified.commit("other sales")
    damage(verified.root / f"results/{MODULE}/receipt.json")
    assert stale(verified) == expected("", "1 file (data/sales.csv)")


def test_a_commit_that_is_not_in_the_repository(verified: Toy, tmp_path: Path) -> None:
    verified.git("clone", "-q", "--depth", "1", f"file://{verified.root}", str(tmp_path / "clone"))
    clone = object.__new__(Toy)
    clone.root = tmp_path / "clone"
    for name, entry in ((MODULE, "entry 0004"), (COMMAND, "entry 0006")):
        receipt = json.loads((clone.root / f"results/{name}/receipt.json").read_text())
        dependencies = receipt["predicate"]["buildDefinition"]["resolvedDependencies"]
        commit = next(item["digest"]["gitCommit"] for item in dependencies if item["uri"] == "git")
        line = f"unknown, as commit {commit[:12]} of {entry} is not in this repository"
        assert stale(clone)[name] == [line]
    assert f"Stale: unknown, as commit {commit[:12]}" in clone.call("why", COMMAND).stdout


#### what it costs


def test_it_costs_two_calls_of_git_and_none_where_nothing_is_verified(
    verified: Toy, make_toy: Callable[..., Toy], caplog: pytest.LogCaptureFixture
) -> None:
    def calls(toy: Toy) -> int:
        caplog.clear()
        with caplog.at_level(logging.DEBUG, logger="phases"):
            toy.call("status")
        return sum("git " in record.getMessage() for record in caplog.records)

    assert calls(make_toy(name="pending")) == 3  # one is for what merges left out
    assert calls(verified) == 6  # one more is for the history of the record


def test_all_pairs_of_trees_are_compared_at_once(verified: Toy) -> None:
    head = verified.git("rev-parse", "HEAD")
    verified.git("commit", "-q", "--allow-empty", "-m", "the same tree")
    same = verified.git("rev-parse", "HEAD")
    verified.write("README.md", "changed")
    verified.commit("a change")
    changed = verified.git("rev-parse", "HEAD")
    tree = verified.git("rev-parse", f"{changed}^{{tree}}")

    ids = [tree, head, "0" * 40, same, changed]
    expected_paths = {tree: set(), head: {"README.md"}, same: {"README.md"}, changed: set()}
    assert changed_paths(verified.root, changed, ids) == expected_paths
    assert changed_paths(verified.root, "0" * 40, ids) == {}


def test_one_folder_is_not_compared(verified: Toy) -> None:
    head = verified.git("rev-parse", "HEAD")
    paths = {"out/a/new.txt", "outer.txt", "o*/new.txt", "ou/out/new.txt"}
    for path in paths:
        verified.write(path, "new")
    verified.commit("new files")
    changed = verified.git("rev-parse", "HEAD")
    for folder, inside in (
        ("out", "out/a/new.txt"),
        ("out/a", "out/a/new.txt"),
        ("ou/out", "ou/out/new.txt"),
        ("o*", "o*/new.txt"),
    ):
        found = changed_paths(verified.root, changed, [head], folder)
        assert found == {head: paths - {inside}}
