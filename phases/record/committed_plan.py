"""The plan that a commit holds."""

from __future__ import annotations

import re
from collections.abc import Iterable

from phases.git.repo import Repo
from phases.plan.load import parse_plan
from phases.plan.schema import Plan

PLAN = re.compile(r"prd/[^/]*\.json", re.DOTALL)
"""The path of a plan."""


def plan_path(paths: Iterable[str]) -> str:
    """Return the path of the plan among these files; ValueError for none, or more than one."""
    plans = [path for path in paths if PLAN.fullmatch(path)]
    if len(plans) != 1:
        message = f"got {len(plans)} plans; expected 1"
        raise ValueError(message)
    return plans[0]


def committed_plan(repo: Repo, commit: str) -> Plan:
    """Return the plan that a commit holds; ValueError where it holds none that can be read."""
    return parse_plan(repo.blob(commit, plan_path(repo.files(commit, "prd"))) or b"")
