"""The toy repository of the runner's tests: built and run once, copied for each test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent / "faults"))
sys.path.insert(0, str(Path(__file__).parent))
from eventful import make_eventful
from forged_record import Place, rewind
from quick import Quick
from reviewed_findings import MODULES, REPORTS, compare, describe_reports
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


@pytest.fixture(scope="session")
def _eventful(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    quick = make_eventful(tmp_path_factory.mktemp("eventful") / "quick")
    quick.git("gc", "-q", "--prune=now")  # few files to copy
    return quick


@pytest.fixture
def eventful(_eventful: Quick, tmp_path: Path) -> Quick:
    """Return a repository in which everything happened that a record can state."""
    return _eventful.copy(tmp_path / "quick")


@pytest.fixture(scope="session")
def _rewound(
    _eventful: Quick, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Place], Quick]:
    """Return a function that returns that repository as it was after one of its records."""
    made: dict[Place, Quick] = {}

    def rewound(place: Place) -> Quick:
        if place not in made:
            kind, feature, number = place
            made[place] = _eventful.copy(tmp_path_factory.mktemp("rewound") / "quick")
            rewind(made[place], kind, feature, number=number)
        return made[place]

    return rewound


@pytest.fixture
def at(_rewound: Callable[[Place], Quick], tmp_path: Path) -> Callable[[Place], Quick]:
    """Return a function that returns a copy of it."""
    return lambda place: _rewound(place).copy(tmp_path / "quick")


@pytest.fixture(autouse=True)
def _reviewed_findings(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compare what `audit --json` says in a test with what was reviewed."""
    REPORTS.clear()
    yield
    module = Path(request.path).stem
    if module in MODULES:
        compare(module, request.node.name, describe_reports(REPORTS))
