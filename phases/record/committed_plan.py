"""The plan that a commit holds."""

from __future__ import annotations

from phases.git.repo import Repo
from phases.plan.load import parse_plan
from phases.plan.schema import Plan


def plan_path(repo: Repo, commit: str) -> str:
    """Return the path of a commit's plan; ValueError where it holds none, or more than one."""
    paths = []
    for path in repo.files(commit, "prd"):
        if path.endswith(".json") and path.count("/") == 1:
            paths.append(path)
    if len(paths) != 1:
        message = f"got {len(paths)} plans; expected 1"
        raise ValueError(message)
    return paths[0]


def committed_plan(repo: Repo, commit: str) -> Plan:
    """Return the plan that a commit holds; ValueError where it holds none that can be read."""
    return parse_plan(repo.blob(commit, plan_path(repo, commit)) or b"")
