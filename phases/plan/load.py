"""How the plan is found, read and checked: every problem at once, with its place and the value met."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from phases.base import strict_json
from phases.errors import InvalidPlanError
from phases.plan.schema import CACHE_PREFIX, MAX_BYTES, Feature, Gate, Input, Phase, Plan


def find_plan(root: Path) -> Path:
    """The one JSON file in `prd/`; InvalidPlanError if there is none or more than one."""
    found = sorted((root / "prd").glob("*.json"))
    if len(found) != 1:
        met = ", ".join(path.name for path in found) or "none"
        raise InvalidPlanError("prd/", [f"found {met}; wanted exactly one *.json file: the plan"])
    return found[0]


def load_plan(root: Path) -> Plan:
    """Reads and checks the plan of the repository at `root`.

    Raises:
        InvalidPlanError: with every problem that was found, each as `place: value met; value wanted`.
    """
    path = find_plan(root)
    name = path.relative_to(root).as_posix()
    try:
        plan = parse_plan(path.read_bytes())
    except ValidationError as error:
        raise InvalidPlanError(name, [_explain(item) for item in error.errors()]) from None
    except strict_json.StrictJsonError as error:
        raise InvalidPlanError(name, [str(error)]) from None
    problems = [*_plan_problems(plan), *_file_problems(plan, root)]
    if problems:
        raise InvalidPlanError(name, problems)
    return plan


def parse_plan(data: bytes) -> Plan:
    """Strict JSON, then the schema; what the plan refers to is not looked at."""
    strict_json.loads(data, max_bytes=MAX_BYTES, max_depth=32)
    return Plan.model_validate_json(data)


def _explain(error: Any) -> str:
    place = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]
    ).lstrip(".")
    met = repr(error["input"])
    met = met if len(met) <= 80 else met[:79] + "…"
    message = error["msg"].removeprefix("Value error, ")
    return f"{place or 'the document'}: met {met}; {message}"


def module_file(root: Path, module: str) -> Path | None:
    """The file that `python -m module` runs, found without importing anything; None if there is none."""
    base = root.joinpath(*module.split("."))
    candidates = (base.with_suffix(".py"), base / "__main__.py")
    return next((path for path in candidates if path.is_file()), None)


def _plan_problems(plan: Plan) -> Iterator[str]:
    """Problems inside the document: ids, order, needs, inputs, outputs."""
    yield from _bad_path("results", plan.results)
    yield from _duplicates("inputs", [item.name for item in plan.inputs])
    yield from _duplicates(
        "features", [feature.id for phase in plan.phases for feature in phase.features]
    )
    for index, phase in enumerate(plan.phases):
        if phase.id != index + 1:
            yield f"phases[{index}].id: met {phase.id}; wanted {index + 1}: phases are numbered 1, 2, 3 …"
    known = {item.name for item in plan.inputs}
    opened: set[str] = set()
    for place, phase in ((f"phases[{i}]", phase) for i, phase in enumerate(plan.phases)):
        opened |= {feature.id for feature in phase.features}
        for number, feature in enumerate(phase.features):
            yield from _feature_problems(f"{place}.features[{number}]", feature, known, opened)
        yield from _cycles(place, phase)


def _feature_problems(
    place: str, feature: Feature, inputs: set[str], opened: set[str]
) -> Iterator[str]:
    for name in feature.inputs:
        if name not in inputs:
            yield f"{place}.inputs: met {name!r}; wanted one of the PRD's inputs: {', '.join(sorted(inputs)) or 'none'}"
    for need in feature.needs:
        if need not in opened:
            yield f"{place}.needs: met {need!r}; wanted a feature of this or an earlier phase"
    yield from _duplicates(
        f"{place}.predictions", [prediction.id for prediction in feature.predictions]
    )
    for pattern in feature.outputs:
        yield from _bad_path(f"{place}.outputs", pattern)
    for target in feature.publish.values():
        if not target.startswith("docs/"):
            yield f"{place}.publish: met {target!r}; wanted a path below docs/"
        yield from _bad_path(f"{place}.publish", target)


def _duplicates(place: str, names: list[str]) -> Iterator[str]:
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{place}: met {name!r} {names.count(name)} times; wanted each id once"


def _cycles(place: str, phase: Phase) -> Iterator[str]:
    """Features of one phase that wait for each other in a circle can never run."""
    waiting = {feature.id: set(feature.needs) for feature in phase.features}
    for needs in waiting.values():
        needs &= set(waiting)
    while ready := [name for name, needs in waiting.items() if not needs]:
        for name in ready:
            del waiting[name]
        for needs in waiting.values():
            needs -= set(ready)
    if waiting:
        yield f"{place}.features: needs form a circle among {', '.join(sorted(waiting))}"


def _bad_path(place: str, path: str) -> Iterator[str]:
    parts = PurePosixPath(path).parts
    if (
        path.startswith(("/", "~"))
        or "\\" in path
        or ".." in parts
        or not parts
        or parts[0] == ".git"
    ):
        yield f"{place}: met {path!r}; wanted a relative path inside the repository, without '..'"


def _file_problems(plan: Plan, root: Path) -> Iterator[str]:
    """Problems with what the document refers to: files that are not there."""
    for index, item in enumerate(plan.inputs):
        yield from _input_problems(f"inputs[{index}]", item, root)
    for number, phase in enumerate(plan.phases):
        for name, gates in (("entry", phase.entry), ("exit", phase.exit)):
            for position, gate in enumerate(gates):
                yield from _gate_problems(f"phases[{number}].{name}[{position}]", gate, root)
        for position, feature in enumerate(phase.features):
            place = f"phases[{number}].features[{position}]"
            if feature.module and module_file(root, feature.module) is None:
                wanted = feature.module.replace(".", "/") + ".py"
                yield f"{place}.module: met {feature.module!r}; wanted a module with the file {wanted}"
            if feature.config:
                yield from _missing_file(f"{place}.config", feature.config, root)
            yield from _gate_problems(f"{place}.gate", feature.gate, root)


def _input_problems(place: str, item: Input, root: Path) -> Iterator[str]:
    if item.is_cached:
        if not item.sha256:
            yield f"{place}.sha256: met none; an input in the cache is named by the digests of its files"
        yield from _bad_path(f"{place}.path", item.path.removeprefix(CACHE_PREFIX))
        return
    yield from _bad_path(f"{place}.path", item.path)
    if item.sha256:
        yield f"{place}.sha256: met digests for a repository path; git names its content, leave them out"
    if not (root / item.path).exists():
        yield f"{place}.path: met {item.path!r}; no such file or folder in the repository"


def _gate_problems(place: str, gate: Gate, root: Path) -> Iterator[str]:
    if gate.pytest is None:
        return
    if not re.fullmatch(r"gates/(\w+/)*test_\w+\.py", gate.pytest):
        yield f"{place}.pytest: met {gate.pytest!r}; wanted gates/test_NAME.py"
        return
    yield from _missing_file(f"{place}.pytest", gate.pytest, root)


def _missing_file(place: str, path: str, root: Path) -> Iterator[str]:
    bad = list(_bad_path(place, path))
    yield from bad
    if not bad and not (root / path).is_file():
        yield f"{place}: met {path!r}; no such file in the repository"
