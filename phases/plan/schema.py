"""The PRD: the plan that people write. Strict loading, every problem at once with its place and the value met.

One JSON file in `prd/` lists phases, each with features; a feature names the module (or command) to run, its config,
its inputs, the outputs it declares, its predictions and its gate. Nothing here runs anything.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from phases.base import strict_json
from phases.errors import InvalidPrdError

# No plugin of another package may change how a plan is read; and to look for them, pydantic would open the metadata of
# every installed package.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"

FEATURE_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
CACHE_PREFIX = "$PHASES_CACHE/"
DAMAGE_KINDS = ("measurements", "json", "arrays", "images", "text")
MAX_BYTES = 1 << 20

FeatureId = Annotated[str, StringConstraints(pattern=FEATURE_ID)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Line = Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=r"^[^\x00-\x1f\x7f]+$")]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    # Deferred: only Prd is ever validated, and its schema holds those of all its parts; `status` must start quickly.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True, defer_build=True)


class Gate(_Strict):
    """A judge: a pytest file in `gates/` or a shell command."""

    pytest: Line | None = None
    shell: Line | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Gate:
        if (self.pytest is None) == (self.shell is None):
            msg = 'wanted exactly one of {"pytest": FILE} and {"shell": COMMAND}'
            raise ValueError(msg)
        return self

    @property
    def name(self) -> str:
        """How views call it."""
        return self.pytest if self.pytest is not None else f"`{self.shell}`"


class Prediction(_Strict):
    """A claim about a measurement, written before the run and scored after it."""

    id: Name
    claim: Line
    measurement: Line
    comparator: Literal["==", "!=", "<", "<=", ">", ">=", "within"]
    value: bool | int | Number | Line | tuple[Number, Number]
    margin: Line | None = None
    source: Line | None = None

    @model_validator(mode="after")
    def _value_fits_comparator(self) -> Prediction:
        is_interval = isinstance(self.value, tuple)
        if is_interval != (self.comparator == "within"):
            msg = f"comparator {self.comparator!r} with value {self.value!r}; wanted [low, high] with 'within' only"
            raise ValueError(msg)
        if isinstance(self.value, tuple) and self.value[0] > self.value[1]:
            msg = f"interval {list(self.value)!r}; wanted [low, high] with low <= high"
            raise ValueError(msg)
        if isinstance(self.value, str) and self.comparator not in ("==", "!="):
            msg = f"comparator {self.comparator!r} with the text {self.value!r}; wanted == or != for text"
            raise ValueError(msg)
        return self


class Expect(_Strict):
    """What the author expects a feature to cost; shown by `plan`, never enforced."""

    minutes: Annotated[float, Field(gt=0)]
    memory_gb: Annotated[float, Field(gt=0)]


class Feature(_Strict):
    """One experiment: what to run, on what, what it must leave, and who judges it."""

    id: FeatureId
    title: Line
    description: str = ""
    module: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")] | None = None
    command: Line | None = None
    config: Line | None = None
    needs: tuple[FeatureId, ...] = ()
    inputs: tuple[Name, ...] = ()
    outputs: Annotated[tuple[Line, ...], Field(min_length=1)]
    predictions: tuple[Prediction, ...] = ()
    expect: Expect
    gate: Gate
    unjudged: tuple[Literal["measurements", "json", "arrays", "images", "text"], ...] = ()
    publish: dict[Line, Line] = {}
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    gate_timeout_s: Annotated[float, Field(gt=0)] | None = None
    profile: Name | None = None
    seed: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _one_way_to_run(self) -> Feature:
        if (self.module is None) == (self.command is None):
            msg = "wanted exactly one of module and command"
            raise ValueError(msg)
        if self.module is not None and self.config is None:
            msg = "a module needs a config"
            raise ValueError(msg)
        return self


class Phase(_Strict):
    """A group of features that a human opens and closes."""

    id: Annotated[int, Field(ge=1)]
    name: Line
    goal: str = ""
    entry: tuple[Gate, ...] = ()
    setup: tuple[Line, ...] = ()
    features: Annotated[tuple[Feature, ...], Field(min_length=1)]
    exit: tuple[Gate, ...] = ()


class Approval(_Strict):
    """How a human opens the next phase."""

    mode: Literal["auto", "presence", "signed"] = "auto"
    allow_self: bool = True


class Defaults(_Strict):
    """What holds for every feature that does not say otherwise."""

    timeout_s: Annotated[float, Field(gt=0)] = 3600.0
    gate_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    attempts: Annotated[int, Field(ge=1)] = 3
    sandbox: Literal["best", "bwrap", "unshare", "none"] = "best"
    profile: Name = "cpu"
    seed: Annotated[int, Field(ge=0)] = 0
    env: dict[Annotated[str, StringConstraints(pattern=r"^[A-Z_][A-Z0-9_]*$")], Line] = {}


class Input(_Strict):
    """Something an experiment reads: a pinned file set in the cache, or a tracked path of the repository."""

    name: Name
    path: Line
    sha256: dict[Line, Sha256] = {}

    @property
    def is_cached(self) -> bool:
        """Whether it lies in the user's cache and is named by digests, not by git."""
        return self.path.startswith(CACHE_PREFIX)


class Prd(_Strict):
    """The whole plan."""

    schema_: Annotated[int, Field(alias="schema", ge=1, le=1)]  # not Literal[1]: that takes true and 1.0 as well
    project: Line
    description: str = ""
    results: Line = "results"
    approval: Approval = Field(default_factory=Approval)
    defaults: Defaults = Field(default_factory=Defaults)
    inputs: tuple[Input, ...] = ()
    phases: Annotated[tuple[Phase, ...], Field(min_length=1)]

    def phase(self, phase_id: int) -> Phase:
        """The phase with this number; KeyError if there is none."""
        for phase in self.phases:
            if phase.id == phase_id:
                return phase
        raise KeyError(phase_id)

    def feature(self, feature_id: str) -> tuple[Phase, Feature]:
        """The feature with this id and the phase it stands in; KeyError if there is none."""
        for phase in self.phases:
            for feature in phase.features:
                if feature.id == feature_id:
                    return phase, feature
        raise KeyError(feature_id)

    def input(self, name: str) -> Input:
        """The input with this name; KeyError if there is none."""
        for item in self.inputs:
            if item.name == name:
                return item
        raise KeyError(name)


def canonical(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no blanks, UTF-8; what digests of plans and records are taken over."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def find(root: Path) -> Path:
    """The one JSON file in `prd/`; InvalidPrdError if there is none or more than one."""
    found = sorted((root / "prd").glob("*.json"))
    if len(found) != 1:
        met = ", ".join(path.name for path in found) or "none"
        raise InvalidPrdError("prd/", [f"found {met}; wanted exactly one *.json file: the plan"])
    return found[0]


def load(root: Path) -> Prd:
    """Reads and checks the plan of the repository at `root`.

    Raises:
        InvalidPrdError: with every problem that was found, each as `place: value met; value wanted`.
    """
    path = find(root)
    name = path.relative_to(root).as_posix()
    try:
        prd = parse(path.read_bytes())
    except ValidationError as error:
        raise InvalidPrdError(name, [_explain(item) for item in error.errors()]) from None
    except strict_json.StrictJsonError as error:
        raise InvalidPrdError(name, [str(error)]) from None
    problems = [*_plan_problems(prd), *_file_problems(prd, root)]
    if problems:
        raise InvalidPrdError(name, problems)
    return prd


def parse(data: bytes) -> Prd:
    """Strict JSON, then the schema; what the plan refers to is not looked at."""
    strict_json.loads(data, max_bytes=MAX_BYTES, max_depth=32)
    return Prd.model_validate_json(data)


def _explain(error: Any) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
    met = repr(error["input"])
    met = met if len(met) <= 80 else met[:79] + "…"
    message = error["msg"].removeprefix("Value error, ")
    return f"{place or 'the document'}: met {met}; {message}"


def module_file(root: Path, module: str) -> Path | None:
    """The file that `python -m module` runs, found without importing anything; None if there is none."""
    base = root.joinpath(*module.split("."))
    candidates = (base.with_suffix(".py"), base / "__main__.py")
    return next((path for path in candidates if path.is_file()), None)


def _plan_problems(prd: Prd) -> Iterator[str]:
    """Problems inside the document: ids, order, needs, inputs, outputs."""
    yield from _bad_path("results", prd.results)
    yield from _duplicates("inputs", [item.name for item in prd.inputs])
    yield from _duplicates("features", [feature.id for phase in prd.phases for feature in phase.features])
    for index, phase in enumerate(prd.phases):
        if phase.id != index + 1:
            yield f"phases[{index}].id: met {phase.id}; wanted {index + 1}: phases are numbered 1, 2, 3 …"
    known = {item.name for item in prd.inputs}
    opened: set[str] = set()
    for place, phase in ((f"phases[{i}]", phase) for i, phase in enumerate(prd.phases)):
        opened |= {feature.id for feature in phase.features}
        for number, feature in enumerate(phase.features):
            yield from _feature_problems(f"{place}.features[{number}]", feature, known, opened)
        yield from _cycles(place, phase)


def _feature_problems(place: str, feature: Feature, inputs: set[str], opened: set[str]) -> Iterator[str]:
    for name in feature.inputs:
        if name not in inputs:
            yield f"{place}.inputs: met {name!r}; wanted one of the PRD's inputs: {', '.join(sorted(inputs)) or 'none'}"
    for need in feature.needs:
        if need not in opened:
            yield f"{place}.needs: met {need!r}; wanted a feature of this or an earlier phase"
    yield from _duplicates(f"{place}.predictions", [prediction.id for prediction in feature.predictions])
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
    if path.startswith(("/", "~")) or "\\" in path or ".." in parts or not parts or parts[0] == ".git":
        yield f"{place}: met {path!r}; wanted a relative path inside the repository, without '..'"


def _file_problems(prd: Prd, root: Path) -> Iterator[str]:
    """Problems with what the document refers to: files that are not there."""
    for index, item in enumerate(prd.inputs):
        yield from _input_problems(f"inputs[{index}]", item, root)
    for number, phase in enumerate(prd.phases):
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
