"""What the probes plan and observe: the data that their other modules share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# The properties and their classes; a label is a class's place in its row.
PART, STRING = "part", "string"
CLASSES: Mapping[str, tuple[str, ...]] = {
    PART: ("name", "parameter", "value", "punctuation", "body"),
    STRING: ("code", "string"),
}

# Whose vectors are read, and which labels: the property, the control task, the property with random
# weights.
TASK, CONTROL, RANDOM = "task", "control", "random"
READINGS = (TASK, CONTROL, RANDOM)

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)


@dataclass(frozen=True)
class ProbePlan:
    """The settings of the probes.

    train, validation, test: functions of each split; tokens: of each function; signature: tokens
    behind which a signature must be over; per_package: functions of one package at most; ridge: of
    the probe; random_depths: at how many depths, from 0 on, random weights are read.
    """

    train: int
    validation: int
    test: int
    tokens: int
    signature: int
    per_package: int
    ridge: float
    random_depths: int

    @classmethod
    def from_config(cls, probes: Mapping[str, Any]) -> ProbePlan:
        """Return the plan that the part `probes` of a config describes."""
        return cls(
            train=probes["train"],
            validation=probes["validation"],
            test=probes["test"],
            tokens=probes["tokens"],
            signature=probes["signature"],
            per_package=probes["per_package"],
            ridge=probes["ridge"],
            random_depths=probes["random_depths"],
        )

    def count(self, split: str) -> int:
        """Return the number of functions of a split."""
        return {TRAIN: self.train, VALIDATION: self.validation, TEST: self.test}[split]


@dataclass(frozen=True)
class ProbeFunction:
    """A function of the standard library: module ("queue"), name ("Queue.put"), and its split."""

    module: str
    name: str
    split: str

    @property
    def package(self) -> str:
        """Return the top-level package, all of whose functions are in one split."""
        return self.module.partition(".")[0]


@dataclass(frozen=True)
class ProbeObservations:
    """All that the probes measured. F functions in the order train, validation, test; T tokens.

    ids: [F, T]; labels, control: property -> classes of its tokens, of the control task, [F, T];
    predicted: property -> reading -> classes by the probe at each depth, [depths, F', T − 1]: of
    the F' functions of validation and test, tokens 1 to T − 1. Depth l is the stream that enters
    layer l; the last one leaves the last layer. Of random weights there are the first depths only.
    """

    plan: ProbePlan
    functions: Sequence[ProbeFunction]
    ids: np.ndarray
    labels: Mapping[str, np.ndarray]
    control: Mapping[str, np.ndarray]
    predicted: Mapping[str, Mapping[str, np.ndarray]]

    def rows(self, split: str) -> slice:
        """Return the functions of a split, as rows of `ids`."""
        start = {
            TRAIN: 0,
            VALIDATION: self.plan.train,
            TEST: self.plan.train + self.plan.validation,
        }[split]
        return slice(start, start + self.plan.count(split))
