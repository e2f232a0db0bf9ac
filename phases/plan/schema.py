"""The PRD: the plan that people write. Strict loading, every problem at once with its place and the value met.

One JSON file in `prd/` lists phases, each with features; a feature names the module (or command) to run, its config,
its inputs, the outputs it declares, its predictions and its gate. Nothing here runs anything.
"""

from __future__ import annotations

import json
import os
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

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
Line = Annotated[
    str, StringConstraints(min_length=1, max_length=2000, pattern=r"^[^\x00-\x1f\x7f]+$")
]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    # Deferred: only Plan is ever validated, and its schema holds those of all its parts; `status` must start quickly.
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, defer_build=True
    )


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
    module: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")] | None = (
        None
    )
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


class Plan(_Strict):
    """The whole plan."""

    schema_: Annotated[
        int, Field(alias="schema", ge=1, le=1)
    ]  # not Literal[1]: that takes true and 1.0 as well
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
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()
