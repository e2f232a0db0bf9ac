"""The plan's schema: what the one JSON file in `prd/` may say.

It lists phases, each with features; a feature names the module (or command) to run, its config, its
inputs, the outputs it declares, its predictions and its gate. Nothing here runs anything.
"""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from phases.base.text import line_problem

# No plugin of another package may change how a plan is read; and to look for plugins, pydantic
# would open the metadata of every installed package.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"

FEATURE_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
MODULE = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
CACHE_PREFIX = "$PHASES_CACHE/"
MAX_BYTES = 1 << 20
MAX_LINE = 2000  # characters
MAX_TITLE = 200
"""Characters of what an approver types or a commit's subject begins with: a terminal reads lines of
at most 4095 bytes."""

FeatureId = Annotated[str, StringConstraints(pattern=FEATURE_ID)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Z_][A-Z0-9_]*$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
RawLine = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_LINE, pattern=r"^[^\x00-\x1f\x7f]+$")
]
"""One line as it is: a shell command, a variable's value, the name of something that others made.
It is escaped wherever it is shown or recorded."""
Number = Annotated[float, Field(allow_inf_nan=False)]
# Not Literal[1]: that accepts true and 1.0 as well.
SchemaVersion = Annotated[int, Field(ge=1, le=1)]


def _require_name(text: str) -> str:
    problem = line_problem(text)
    if problem:
        raise ValueError(problem)
    return text


Line = Annotated[str, StringConstraints(max_length=MAX_LINE), AfterValidator(_require_name)]
"""One printable line that reads as it is stored: entries, commits and challenges have it."""
Title = Annotated[str, StringConstraints(max_length=MAX_TITLE), AfterValidator(_require_name)]
ModuleName = Annotated[Line, StringConstraints(pattern=MODULE)]


class ApprovalMode(StrEnum):
    """How an approval is given."""

    AUTO = "auto"
    PRESENCE = "presence"
    SIGNED = "signed"


class _StrictModel(BaseModel):
    # Deferred: only Plan is ever validated, and its schema contains those of all its parts;
    # `status` must start quickly.
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, defer_build=True
    )


class Gate(_StrictModel):
    """A judge: a pytest file in `gates/` or a shell command."""

    pytest: Line | None = None
    shell: RawLine | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Gate:
        if (self.pytest is None) == (self.shell is None):
            message = 'expected exactly one of {"pytest": FILE} and {"shell": COMMAND}'
            raise ValueError(message)
        return self

    @property
    def name(self) -> str:
        """How views call it."""
        if self.pytest is not None:
            return self.pytest
        return f"`{self.shell}`"


class Prediction(_StrictModel):
    """A claim about a measurement, written before the run and scored after it."""

    id: Name
    claim: Line
    measurement: RawLine
    comparator: Literal["==", "!=", "<", "<=", ">", ">=", "within"]
    value: bool | int | Number | RawLine | tuple[Number, Number]
    margin: RawLine | None = None
    source: Line | None = None

    @model_validator(mode="after")
    def _value_fits_comparator(self) -> Prediction:
        is_interval = isinstance(self.value, tuple)
        message = ""
        if is_interval != (self.comparator == "within"):
            message = (
                f"got comparator {self.comparator!r} with value {self.value!r}; "
                "expected [low, high] with 'within' only"
            )
        elif isinstance(self.value, tuple) and self.value[0] > self.value[1]:
            message = f"got {list(self.value)!r}; expected [low, high] with low <= high"
        elif isinstance(self.value, str) and self.comparator not in ("==", "!="):
            message = (
                f"got comparator {self.comparator!r} with the text {self.value!r}; "
                "expected == or != for text"
            )
        if message:
            raise ValueError(message)
        return self


class Expect(_StrictModel):
    """What the author expects a feature to cost; shown by `plan`, never enforced."""

    minutes: Annotated[float, Field(gt=0)]
    memory_gb: Annotated[float, Field(gt=0)]


class Exemption(_StrictModel):
    """Output files whose damage may go unnoticed by the gate, and why."""

    files: Line
    """A pattern, as those of `outputs`."""
    reason: Line

    def __str__(self) -> str:
        return f"{self.files}: {self.reason}"


class Feature(_StrictModel):
    """One experiment: what to run, on what, what it must leave, and who judges it."""

    id: FeatureId
    title: Title
    description: str = ""
    module: ModuleName | None = None
    command: RawLine | None = None
    config: Line | None = None
    needs: tuple[FeatureId, ...] = ()
    code_of_needs: bool = False
    """Whether each needed feature comes with the code of the commit that its receipt names."""
    inputs: tuple[Name, ...] = ()
    outputs: Annotated[tuple[Line, ...], Field(min_length=1)]
    predictions: tuple[Prediction, ...] = ()
    expect: Expect
    gate: Gate
    exempt: tuple[Exemption, ...] = ()
    """Every view shows them."""
    publish: dict[Line, Line] = {}
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    gate_timeout_s: Annotated[float, Field(gt=0)] | None = None
    profile: Name | None = None
    seed: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _one_way_to_run(self) -> Feature:
        if (self.module is None) == (self.command is None):
            message = "expected exactly one of module and command"
            raise ValueError(message)
        if self.module is not None and self.config is None:
            message = "a module needs a config"
            raise ValueError(message)
        if self.code_of_needs and not self.needs:
            message = "code_of_needs is true and needs is empty"
            raise ValueError(message)
        return self

    @property
    def program(self) -> str:
        """The module or command that is run, for readers."""
        return self.module or self.command or ""


class Phase(_StrictModel):
    """A group of features that the approver opens and closes."""

    id: Annotated[int, Field(ge=1)]
    name: Title
    goal: str = ""
    entry: tuple[Gate, ...] = ()
    setup: tuple[RawLine, ...] = ()
    features: Annotated[tuple[Feature, ...], Field(min_length=1)]
    exit: tuple[Gate, ...] = ()

    @property
    def gates(self) -> tuple[Gate, ...]:
        """Every gate of the phase: entry gates, exit gates, those of its features."""
        return (*self.entry, *self.exit, *(feature.gate for feature in self.features))


class Approval(_StrictModel):
    """How the approver opens the next phase."""

    mode: ApprovalMode = ApprovalMode.AUTO
    allow_self: bool = True


class Defaults(_StrictModel):
    """What applies to every feature that does not set it itself."""

    timeout_s: Annotated[float, Field(gt=0)] = 3600.0
    gate_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    attempts: Annotated[int, Field(ge=1)] = 3
    sandbox: Literal["best", "bwrap", "unshare", "none"] = "best"
    profile: Name = "cpu"
    seed: Annotated[int, Field(ge=0)] = 0
    env: dict[VariableName, RawLine] = {}


class Input(_StrictModel):
    """What an experiment reads: a pinned file set in the cache, or a tracked path."""

    name: Name
    path: RawLine
    sha256: dict[RawLine, Sha256] = {}

    @property
    def is_cached(self) -> bool:
        """Whether it is in the user's cache and is named by digests, not by git."""
        return self.path.startswith(CACHE_PREFIX)

    @property
    def tracked_path(self) -> str:
        """The path of a tracked input as git writes it: no `./`, no slash at its end."""
        return PurePosixPath(self.path).as_posix()


class Plan(_StrictModel):
    """The whole plan."""

    schema_: SchemaVersion = Field(alias="schema")
    project: Title
    description: str = ""
    results: Line = "results"
    sample: bool = False
    """Whether a script answers for the approver: GENESIS records it, and every view says it."""
    approval: Approval = Field(default_factory=Approval)
    defaults: Defaults = Field(default_factory=Defaults)
    inputs: tuple[Input, ...] = ()
    phases: Annotated[tuple[Phase, ...], Field(min_length=1)]

    @property
    def module_packages(self) -> tuple[str, ...]:
        """The top packages of the features' modules, sorted."""
        packages = set()
        for phase in self.phases:
            for feature in phase.features:
                if feature.module:
                    packages.add(feature.module.split(".", 1)[0])
        return tuple(sorted(packages))

    def profile_of(self, feature: Feature) -> str:
        """Return the profile that a feature runs with."""
        return feature.profile or self.defaults.profile

    def seed_of(self, feature: Feature) -> int:
        """Return the seed that a feature runs with."""
        return self.defaults.seed if feature.seed is None else feature.seed

    def phase(self, phase_id: int) -> Phase:
        """Return the phase with this number; KeyError if there is none."""
        for phase in self.phases:
            if phase.id == phase_id:
                return phase
        raise KeyError(phase_id)

    def feature(self, feature_id: str) -> tuple[Phase, Feature]:
        """Return the feature with this id and its phase; KeyError if there is none."""
        for phase in self.phases:
            for feature in phase.features:
                if feature.id == feature_id:
                    return phase, feature
        raise KeyError(feature_id)

    def input(self, name: str) -> Input:
        """Return the input with this name; KeyError if there is none."""
        for item in self.inputs:
            if item.name == name:
                return item
        raise KeyError(name)


def canonical_json(value: Any) -> bytes:
    """Return canonical JSON: sorted keys, no whitespace, UTF-8; what digests are taken over."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()
