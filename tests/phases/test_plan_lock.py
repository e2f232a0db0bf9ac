"""The plan lock: whatever decides what "done" means in a phase changes it, and nothing else does."""

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
from toy import toy_plan as toy_plan

import phases
from phases.base import durable
from phases.plan.load import parse_plan
from phases.plan.lock import PlanLock, compose_lock, lock_differences, runner_digest

FILES = {
    "gates/test_count.py": b"gate", "gates/test_exit.py": b"exit gate", "gates/outputs.py": b"shared",
    "gates/test_other.py": b"of another phase", "lab/config.yaml": b"lr: 1", "constraints.txt": b"torch==2.13.0",
    "docs/a.md": b"text", "prd/allowed_signers": b"a key",
}  # fmt: skip


def document() -> dict[str, Any]:
    plan = copy.deepcopy(toy_plan(phases=2))
    plan["inputs"] = [{"name": "texts", "path": "docs"}, {"name": "unused", "path": "docs"}]
    plan["phases"][0]["features"][0] |= {
        "module": "lab.count",
        "config": "lab/config.yaml",
        "inputs": ["texts"],
    }
    del plan["phases"][0]["features"][0]["command"]
    return plan


def lock(
    plan: dict[str, Any], files: dict[str, bytes], runner: str = "0" * 64, phase: int = 1
) -> PlanLock:
    loaded = parse_plan(json.dumps(plan).encode())
    gates = sorted(path for path in files if path.startswith("gates/"))
    return compose_lock(loaded, loaded.phase(phase), files.get, gates, runner)


def feature(plan: dict[str, Any], **changes: Any) -> None:
    plan["phases"][0]["features"][0] |= changes


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "seed": (lambda plan: feature(plan, seed=1), "plan: TOY-001"),
    "profile": (lambda plan: feature(plan, profile="gpu"), "plan: TOY-001"),
    "prediction": (lambda plan: feature(plan, predictions=[]), "plan: TOY-001"),
    "unjudged": (lambda plan: feature(plan, unjudged=["images"]), "plan: TOY-001"),
    "gate": (lambda plan: feature(plan, gate={"shell": "true"}), "plan: TOY-001"),
    "default time-out": (lambda plan: plan["defaults"].update(timeout_s=61), "plan: defaults"),
    "attempts": (lambda plan: plan["defaults"].update(attempts=99), "plan: defaults"),
    "sandbox": (lambda plan: plan["defaults"].update(sandbox="none"), "plan: defaults"),
    "approval": (lambda plan: plan.update(approval={"mode": "presence"}), "plan: approval"),
    "exit gates": (lambda plan: plan["phases"][0].update(exit=[]), "plan: phase"),
    "setup": (lambda plan: plan["phases"][0].update(setup=["true"]), "plan: phase"),
    "input": (lambda plan: plan["inputs"][0].update(path="elsewhere"), "input: texts"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_the_plan_is_named(name: str) -> None:
    change, component = CHANGES[name]
    before, plan = lock(document(), FILES), document()
    change(plan)
    after = lock(plan, FILES)
    assert component in lock_differences(before.components, after)
    assert after.digest != before.digest


@pytest.mark.parametrize(
    "path", ["gates/test_count.py", "gates/test_exit.py", "gates/outputs.py", "lab/config.yaml", "constraints.txt",
             "prd/allowed_signers"],
)  # fmt: skip
def test_a_change_of_a_file_is_named_and_so_is_its_absence(path: str) -> None:
    before = lock(document(), FILES)
    assert lock_differences(before.components, lock(document(), FILES | {path: b"changed"})) == [
        path
    ]
    gone = {name: data for name, data in FILES.items() if name != path}
    assert lock_differences(before.components, lock(document(), gone)) == [path]


def test_another_runner_is_named() -> None:
    before = lock(document(), FILES)
    assert lock_differences(before.components, lock(document(), FILES, runner="1" * 64)) == [
        "runner"
    ]


def test_what_does_not_bear_on_the_phase_does_not_change_its_lock() -> None:
    before, plan = lock(document(), FILES), document()
    plan["phases"][1]["features"][0]["seed"] = 9
    plan["inputs"][1]["path"] = "elsewhere"
    plan["description"] = "in other words"
    others = FILES | {"gates/test_other.py": b"changed", "docs/a.md": b"changed"}
    assert lock(plan, others).data == before.data


def test_a_new_shared_gate_file_is_named() -> None:
    before = lock(document(), FILES)
    after = lock(document(), FILES | {"gates/helpers.py": b"more"})
    assert lock_differences(before.components, after) == ["gates/helpers.py"]


def test_the_file_is_its_components_and_its_digest_is_the_files() -> None:
    made = lock(document(), FILES)
    assert json.loads(made.data) == {"schema": 1, "phase": 1, "components": dict(made.components)}
    assert made.digest == durable.sha256(made.data)
    assert list(made.components) == sorted(made.components)
    assert made.components["gates/test_count.py"] == durable.sha256(b"gate")


@given(st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xy")),
       st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xy")))  # fmt: skip
def test_differences_are_the_names_that_are_not_alike(
    old: dict[str, str], new: dict[str, str]
) -> None:
    found = lock_differences(old, PlanLock(1, new))
    assert found == [name for name in "abcd" if old.get(name) != new.get(name)]


def test_the_runners_digest_is_that_of_the_code_that_runs(tmp_path: Path) -> None:
    package = Path(phases.__file__).parent
    shutil.copytree(package, tmp_path / "phases", ignore=shutil.ignore_patterns("__pycache__"))

    def digest() -> str:
        code = "from phases.plan import lock as plan_lock; print(runner_digest())"
        env = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, check=True,
                              text=True).stdout.strip()  # fmt: skip

    assert digest() == runner_digest()
    with (tmp_path / "phases/execution/supervisor.py").open("a") as file:
        file.write("# weaker\n")
    changed = digest()
    assert changed != runner_digest()
    (tmp_path / "phases/notes.txt").write_text("no code")
    assert digest() == changed
