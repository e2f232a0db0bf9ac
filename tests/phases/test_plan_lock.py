"""The plan lock: what decides what "done" means in a phase changes it, and nothing else does."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import toy_plan

import phases
from phases.base import durable
from phases.plan.load import parse_plan
from phases.plan.lock import (
    PlanLock,
    PlanLockError,
    compose_lock,
    gate_scope,
    lock_differences,
    runner_digest,
)
from phases.plan.schema import Gate

EXEMPT = [{"files": "*.png", "reason": "drawn by hand"}]
FILES = {
    "gates/test_count.py": b"gate",
    "gates/test_exit.py": b"exit gate",
    "gates/shared/outputs.py": b"shared",
    "gates/test_other.py": b"of another phase",
    "lab/config.yaml": b"lr: 1",
    "constraints.txt": b"torch==2.13.0",
    "docs/a.md": b"text",
    "prd/allowed_signers": b"a key",
}


def document() -> dict[str, Any]:
    """Return a plan of two phases; the first feature runs a module with a config and an input."""
    plan = copy.deepcopy(toy_plan(phases=2))
    plan["inputs"] = [{"name": "texts", "path": "docs"}, {"name": "unused", "path": "docs"}]
    feature = plan["phases"][0]["features"][0]
    feature |= {"module": "lab.count", "config": "lab/config.yaml", "inputs": ["texts"]}
    del feature["command"]
    return plan


def lock(
    plan: dict[str, Any], files: dict[str, bytes], runner: str = "0" * 64, phase: int = 1
) -> PlanLock:
    """Return the lock of a phase of the plan over the committed files."""
    loaded = parse_plan(json.dumps(plan).encode())
    gates = sorted(path for path in files if path.startswith("gates/"))
    return compose_lock(loaded, loaded.phase(phase), files.get, gates, runner)


def differences(before: PlanLock, after: PlanLock) -> list[str]:
    return lock_differences(before.components, after)


def change_feature(plan: dict[str, Any], **changes: Any) -> None:
    plan["phases"][0]["features"][0] |= changes


#### components

CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "seed": (lambda plan: change_feature(plan, seed=1), "plan: TOY-001"),
    "profile": (lambda plan: change_feature(plan, profile="gpu"), "plan: TOY-001"),
    "prediction": (lambda plan: change_feature(plan, predictions=[]), "plan: TOY-001"),
    "exempt": (lambda plan: change_feature(plan, exempt=EXEMPT), "plan: TOY-001"),
    "gate": (lambda plan: change_feature(plan, gate={"shell": "true"}), "plan: TOY-001"),
    "default time-out": (lambda plan: plan["defaults"].update(timeout_s=61), "plan: defaults"),
    "attempts": (lambda plan: plan["defaults"].update(attempts=99), "plan: defaults"),
    "sandbox": (lambda plan: plan["defaults"].update(sandbox="none"), "plan: defaults"),
    "approval": (lambda plan: plan.update(approval={"mode": "presence"}), "plan: approval"),
    "exit gates": (lambda plan: plan["phases"][0].update(exit=[]), "plan: phase"),
    "setup": (lambda plan: plan["phases"][0].update(setup=["true"]), "plan: phase"),
    "results": (lambda plan: plan.update(results="elsewhere"), "plan: results"),
    "input": (lambda plan: plan["inputs"][0].update(path="elsewhere"), "input: texts"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_the_plan_is_named(name: str) -> None:
    change, component = CHANGES[name]
    before, plan = lock(document(), FILES), document()
    change(plan)
    after = lock(plan, FILES)
    assert component in differences(before, after)
    assert after.digest != before.digest


@pytest.mark.parametrize(
    "path",
    [
        "gates/test_count.py",
        "gates/test_exit.py",
        "gates/shared/outputs.py",
        "lab/config.yaml",
        "constraints.txt",
        "prd/allowed_signers",
    ],
)
def test_a_change_of_a_file_is_named_and_so_is_its_absence(path: str) -> None:
    before = lock(document(), FILES)
    assert differences(before, lock(document(), FILES | {path: b"changed"})) == [path]
    others = {name: data for name, data in FILES.items() if name != path}
    assert differences(before, lock(document(), others)) == [path]


def test_another_runner_is_named() -> None:
    before = lock(document(), FILES)
    assert differences(before, lock(document(), FILES, runner="1" * 64)) == ["runner"]


def test_what_does_not_bear_on_the_phase_does_not_change_its_lock() -> None:
    before, plan = lock(document(), FILES), document()
    plan["phases"][1]["features"][0]["seed"] = 9
    plan["inputs"][1]["path"] = "elsewhere"
    plan["description"] = "in other words"
    files = FILES | {"docs/a.md": b"changed"}
    assert lock(plan, files).encode() == before.encode()


def test_a_flat_gate_locks_every_file_of_gates() -> None:
    before = lock(document(), FILES)
    for path in ("gates/helpers.py", "gates/test_other.py", "gates/topic/test_new.py"):
        after = lock(document(), FILES | {path: b"more"})
        assert differences(before, after) == [path]


def topic_document() -> dict[str, Any]:
    """Return the plan with every gate of phase 1 in the folder of a topic."""
    plan = document()
    plan["phases"][0]["entry"] = []
    plan["phases"][0]["exit"] = [{"pytest": "gates/exit/test_exit.py"}]
    for feature in plan["phases"][0]["features"]:
        feature["gate"] = {"pytest": "gates/count/test_count.py"}
    return plan


TOPIC_FILES = {
    "gates/count/test_count.py": b"gate",
    "gates/count/arrays.py": b"a helper",
    "gates/exit/test_exit.py": b"exit gate",
    "gates/shared/outputs.py": b"shared",
    "gates/other/test_other.py": b"of another topic",
    "gates/other/arrays.py": b"a helper of another topic",
    "gates/__init__.py": b"",
    "lab/config.yaml": b"lr: 1",
    "constraints.txt": b"torch==2.13.0",
}


@pytest.mark.parametrize(
    ("path", "is_locked"),
    [
        ("gates/count/arrays.py", True),
        ("gates/count/test_new.py", True),
        ("gates/count/data/table.json", True),
        ("gates/exit/test_exit.py", True),
        ("gates/shared/outputs.py", True),
        ("gates/shared/deep/new.py", True),
        ("gates/other/arrays.py", False),
        ("gates/other/test_other.py", False),
        ("gates/__init__.py", True),
        ("gates/helpers.py", False),
        ("gates/counting/arrays.py", False),
    ],
)
def test_topic_gates_lock_their_topics_and_shared(path: str, *, is_locked: bool) -> None:
    before = lock(topic_document(), TOPIC_FILES)
    after = lock(topic_document(), TOPIC_FILES | {path: b"changed"})
    assert differences(before, after) == ([path] if is_locked else [])


@pytest.mark.parametrize("part", ["entry", "exit"])
def test_a_shell_gate_locks_every_file_of_gates(part: str) -> None:
    plan = topic_document()
    plan["phases"][0][part] = [{"shell": "sh gates/other/check.sh"}]
    before = lock(plan, TOPIC_FILES)
    after = lock(plan, TOPIC_FILES | {"gates/other/check.sh": b"exit 0"})
    assert differences(before, after) == ["gates/other/check.sh"]


NESTED_FILES = [
    "gates/__init__.py",
    "gates/count/__init__.py",
    "gates/count/arrays.py",
    "gates/count/data/table.json",
    "gates/count/deep/arrays.py",
    "gates/count/deep/test_count.py",
    "gates/count/deeper.py",
    "gates/count/test_count.py",
    "gates/deep/x.py",
    "gates/shared/y.py",
]


@pytest.mark.parametrize(
    ("gate", "scope"),
    [
        ("gates/count/test_count.py", [0, 1, 2, 3, 6, 7, 9]),
        ("gates/count/deep/test_count.py", [0, 1, 4, 5, 9]),
    ],
)
def test_a_topic_within_a_topic_has_a_scope_of_its_own(gate: str, scope: list[int]) -> None:
    raw = topic_document()
    raw["phases"][0]["features"][0]["gate"] = {"pytest": "gates/count/deep/test_count.py"}
    plan = parse_plan(json.dumps(raw).encode())
    expected = [NESTED_FILES[i] for i in scope]
    assert gate_scope(plan, Gate(pytest=gate), NESTED_FILES) == expected


@pytest.mark.parametrize("file", ["gates/test_three.py", "gates/count/test_three.py"])
def test_a_gate_of_another_phase_is_not_locked_i_56(file: str) -> None:
    """Case I-56: flat and shell gates are given all of gates/ but the plan's other gates."""
    plan = document()
    before = lock(plan, FILES)
    plan["phases"][1]["features"][0]["gate"] = {"pytest": file}
    assert lock(plan, FILES | {file: b"of phase 2"}).encode() == before.encode()


@given(
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xy")),
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xy")),
)
def test_differences_are_the_names_whose_digests_differ(
    before: dict[str, str], after: dict[str, str]
) -> None:
    names = lock_differences(before, PlanLock(schema=1, phase=1, components=after))
    assert names == [name for name in "abcd" if before.get(name) != after.get(name)]


#### the file


def test_the_file_is_its_components_and_its_digest_is_the_files() -> None:
    plan_lock = lock(document(), FILES)
    data = plan_lock.encode()
    components = plan_lock.components
    assert json.loads(data) == {"schema": 1, "phase": 1, "components": components}
    assert data.endswith(b"}\n")
    assert plan_lock.digest == durable.sha256(data)
    assert list(components) == sorted(components)
    assert components["gates/test_count.py"] == durable.sha256(b"gate")


def test_the_file_is_read_back() -> None:
    plan_lock = lock(document(), FILES)
    assert PlanLock.decode(plan_lock.encode()) == plan_lock


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1, column 1"),
        ("[]", "the document: "),
        ('{"phase": 1, "components": {}}', "schema: Field required"),
        ('{"schema": 1, "components": {}}', "phase: Field required"),
        ('{"schema": 1, "phase": 1}', "components: Field required"),
        ('{"schema": 2, "phase": 1, "components": {}}', "schema: "),
        ('{"schema": true, "phase": 1, "components": {}}', "schema: "),
        ('{"schema": 1, "phase": "1", "components": {}}', "phase: "),
        ('{"schema": 1, "phase": 1, "components": {"runner": 7}}', "components.runner: "),
        ('{"schema": 1, "phase": 1, "components": {}, "note": ""}', "note: Extra inputs"),
        ('{"schema": 1, "phase": 1, "phase": 1, "components": {}}', "phase: duplicate key"),
    ],
)
def test_what_is_no_lock_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(PlanLockError) as excinfo:
        PlanLock.decode(text.encode())
    assert str(excinfo.value).startswith(f"not a plan lock: {reason}")


#### the runner's own code

CHANGE_EACH_FILE = """
import json
from pathlib import Path
import phases
from phases.plan.lock import runner_digest as cached_digest

runner_digest = cached_digest.__wrapped__

package = Path(phases.__file__).parent
digests = {"unchanged": runner_digest()}
for path in sorted(package.rglob("*.py")):
    source = path.read_bytes()
    path.write_bytes(source + b"# weaker\\n")
    digests[path.relative_to(package).as_posix()] = runner_digest()
    path.write_bytes(source)
digests["restored"] = runner_digest()
(package / "notes.txt").write_text("no code")
digests["no code"] = runner_digest()
(package / "added").mkdir()
(package / "added" / "module.py").write_text("")
digests["new subpackage"] = runner_digest()
print(json.dumps(digests))
"""


@pytest.fixture(scope="module")
def digests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what was changed in a copy of the runner -> the digest that the copy then has."""
    folder = tmp_path_factory.mktemp("copy")
    package = Path(phases.__file__).parent
    shutil.copytree(package, folder / "phases", ignore=shutil.ignore_patterns("__pycache__"))
    child = subprocess.run(
        [sys.executable, "-c", CHANGE_EACH_FILE],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        check=True,
        text=True,
    )
    result: dict[str, str] = json.loads(child.stdout)
    return result


def modules() -> list[str]:
    """Return every Python file of the runner, relative to its package."""
    package = Path(phases.__file__).parent
    return sorted(path.relative_to(package).as_posix() for path in package.rglob("*.py"))


def test_the_runners_digest_is_that_of_the_code_that_runs(digests: dict[str, str]) -> None:
    assert digests["unchanged"] == digests["restored"] == digests["no code"] == runner_digest()


def test_every_package_of_the_runner_is_changed_by_these_tests() -> None:
    package = Path(phases.__file__).parent
    folders = {path.name for path in package.iterdir() if (path / "__init__.py").is_file()}
    assert len(folders) >= 10
    assert {path.split("/")[0] for path in modules() if "/" in path} == folders


@pytest.mark.parametrize("change", [*modules(), "new subpackage"])
def test_a_change_of_the_runner_changes_the_lock(change: str, digests: dict[str, str]) -> None:
    before = lock(document(), FILES, runner=digests["unchanged"])
    after = lock(document(), FILES, runner=digests[change])
    assert differences(before, after) == ["runner"]
