"""The toy repository of the runner's tests: built and run once, copied for each test."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))
from toy import Toy

# How long it takes to draw an example says how busy the machine is, and nothing of the test.
settings.register_profile("phases", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("phases")


@pytest.fixture
def make_toy(tmp_path: Path) -> Callable[..., Toy]:
    """Return a function that makes a fresh toy repository."""

    def make(plan: dict[str, Any] | None = None, name: str = "toy") -> Toy:
        return Toy(tmp_path / name, plan)

    return make


@pytest.fixture(scope="session")
def _halted(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    toy = Toy(tmp_path_factory.mktemp("halted") / "toy")
    toy.run("run", "--next")
    return toy


@pytest.fixture
def halted(_halted: Toy, tmp_path: Path) -> Toy:
    """Return a toy repository whose only phase was run and awaits approval."""
    return _halted.copy(tmp_path / "toy")
