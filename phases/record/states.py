"""What a feature and a phase can be, each in one word."""

from __future__ import annotations

from enum import StrEnum


class FeatureState(StrEnum):
    """What a feature is."""

    PENDING = "pending"
    RUNNING = "running"
    VERIFIED = "verified"
    FAILED = "failed"
    ERRORED = "errored"
    WAIVED = "waived"


UNFINISHED_STATES = (FeatureState.RUNNING, FeatureState.FAILED, FeatureState.ERRORED)
"""A feature was started, and is neither verified nor waived: its phase cannot halt."""


class PhaseState(StrEnum):
    """What a phase is."""

    PENDING = "pending"
    RUNNING = "running"
    FAILED = "failed"
    AWAITING_APPROVAL = "awaiting_approval"
    APPROVED = "approved"
