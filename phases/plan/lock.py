"""The plan lock: what a phase may not change once its first feature has started.

It lists the digest of each thing that decides what "done" means in a phase: the phase's part of the
plan with defaults and approval rules, its gates, configs, seeds, profiles and inputs, the
approvers' keys, the runner's own code and `constraints.txt`. A difference inside a phase stops the
run; only the approver's `relock` or `reject` goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import phases
from phases.base import durable
from phases.base.strict_json import StrictJsonError, loads
from phases.base.text import printable
from phases.plan.schema import Gate, Phase, Plan, SchemaVersion, canonical_json

FileReader = Callable[[str], bytes | None]
"""Returns a repository file's committed bytes, or None where there is no such file."""

ABSENT = "absent"
"""Takes the place of a digest where there is no such file."""

SHARED_GATES = "gates/shared/"
"""The folder that every topic's gate may import from."""


class PlanLockError(ValueError):
    """The bytes are no plan lock."""


class PlanLock(BaseModel):
    """What is locked, as the file `lock.json` says it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    schema_: SchemaVersion = Field(alias="schema")
    phase: int
    components: dict[str, str]
    """Name of each thing -> its SHA-256, or `absent`."""

    def encode(self) -> bytes:
        """Return the bytes of `lock.json`."""
        document = self.model_dump(mode="json", by_alias=True)
        text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False)
        return f"{text}\n".encode()

    @classmethod
    def decode(cls, data: bytes) -> PlanLock:
        """Parse the bytes of `lock.json`; PlanLockError names the first problem."""
        try:
            return cls.model_validate(loads(data))
        except StrictJsonError as error:
            reason = error.problems[0]
        except ValidationError as error:
            item = error.errors()[0]
            location = ".".join(map(str, item["loc"])) or "the document"
            reason = printable(f"{location}: {item['msg']}")
        message = f"not a plan lock: {reason}"
        raise PlanLockError(message)

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return durable.sha256(self.encode())


def compose_lock(
    plan: Plan, phase: Phase, read: FileReader, gate_files: list[str], runner: str
) -> PlanLock:
    """Return the lock of a phase as the plan is now.

    Args:
        plan: the plan.
        phase: the phase to lock.
        read: returns a file's committed bytes.
        gate_files: every committed file of `gates/`; the lock has those that a gate may import.
        runner: digest of the runner's code as imported (`runner_digest`).
    """
    # 1. What applies to the whole phase.
    components = {
        "plan: approval": _digest(plan.approval.model_dump(mode="json")),
        "plan: defaults": _digest(plan.defaults.model_dump(mode="json")),
        "plan: phase": _digest(phase.model_dump(mode="json", exclude={"features"})),
        "plan: results": _digest(plan.results),
        "runner": runner,
    }

    # 2. Each feature with its inputs and its config.
    for feature in phase.features:
        components[f"plan: {feature.id}"] = _digest(feature.model_dump(mode="json"))
        for name in feature.inputs:
            components[f"input: {name}"] = _digest(plan.input(name).model_dump(mode="json"))
        if feature.config:
            components[feature.config] = _file_digest(read, feature.config)

    # 3. Every file that one of the phase's gates may import, the gates themselves included.
    paths = []
    for gate in phase.gates:
        paths += [gate.pytest] if gate.pytest else []
        paths += gate_scope(plan, gate, gate_files)
    paths += ["prd/allowed_signers", "constraints.txt"]
    for path in paths:
        if path not in components:
            components[path] = _file_digest(read, path)
    return PlanLock(schema=1, phase=phase.id, components=dict(sorted(components.items())))


def gate_scope(plan: Plan, gate: Gate, files: Iterable[str]) -> list[str]:
    """Return which files of `gates/` are laid out, digested and locked for a gate.

    For a gate in a folder of its own, as `gates/TOPIC/test_x.py`, these are the files of that
    folder and of `gates/shared/`, and each `__init__.py` above. A folder below it that has another
    gate of the plan is a topic of its own. For a gate directly in `gates/` and for a shell gate it
    is every file. The plan's other gates are never among them: so a gate of a later phase changes
    nothing for this one.
    """
    other_gates = {each.pytest for phase in plan.phases for each in phase.gates}
    other_gates.discard(gate.pytest)
    topic = _topic_folder(gate)
    if topic is None:
        return [path for path in files if path not in other_gates]
    other_topics = _topics_below(topic, other_gates)
    scope = []
    for path in files:
        is_reachable = path.startswith((f"{topic}/", SHARED_GATES)) or _is_above(path, topic)
        if is_reachable and path not in other_gates and not path.startswith(other_topics):
            scope.append(path)
    return scope


def _topic_folder(gate: Gate) -> str | None:
    """Return the folder of a gate below `gates/`; None for one that has every file."""
    folder = (gate.pytest or "").rpartition("/")[0]
    return folder if "/" in folder else None


def _topics_below(topic: str, other_gates: Iterable[str | None]) -> tuple[str, ...]:
    """Return how the paths begin of the folders within a topic that have gates of their own."""
    folders = {(other or "").rpartition("/")[0] for other in other_gates}
    return tuple(f"{folder}/" for folder in folders if folder.startswith(f"{topic}/"))


def _is_above(path: str, topic: str) -> bool:
    """Return whether a file is the `__init__.py` of a folder that a topic is in."""
    folder, _, name = path.rpartition("/")
    return name == "__init__.py" and f"{topic}/".startswith(f"{folder}/")


def lock_differences(components: Mapping[str, str], lock: PlanLock) -> list[str]:
    """Return the sorted names of the components that differ between two locks.

    Args:
        components: the components that were locked.
        lock: the lock as it would be now.
    """
    names = sorted({*components, *lock.components})
    return [name for name in names if components.get(name) != lock.components.get(name)]


@cache
def runner_digest() -> str:
    """Return the digest over the runner's own code as imported, wherever it is installed.

    It is taken once, when a run begins: later edits of the files are not what this process runs.

    It covers every module and template of the package `phases`, in all its subpackages.
    """
    package = Path(phases.__file__).parent
    digests = {}
    for path in sorted(package.rglob("*")):
        if path.suffix in (".py", ".j2"):
            digests[path.relative_to(package).as_posix()] = durable.sha256_file(path)
    return _digest(digests)


def _file_digest(read: FileReader, path: str) -> str:
    data = read(path)
    if data is None:
        return ABSENT
    return durable.sha256(data)


def _digest(value: object) -> str:
    return durable.sha256(canonical_json(value))
