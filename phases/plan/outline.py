"""The plan's bones for views that must start quickly: read without pydantic, from bytes that were fully checked before.

Loading pydantic costs eight times what a bare interpreter does. So each full check leaves a stamp in the git common
directory: the digest of the plan's bytes and of the code that checked them. `status` and `log` read a plan with that
stamp as plain JSON; any other plan goes through the full check first. Nothing that runs, judges or decides uses this.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol


class FeatureLike(Protocol):
    """What the state needs of a feature."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def title(self) -> str: ...  # noqa: D102
    @property
    def needs(self) -> Sequence[str]: ...  # noqa: D102


class PhaseLike(Protocol):
    """What the state needs of a phase."""

    @property
    def id(self) -> int: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def features(self) -> Sequence[FeatureLike]: ...  # noqa: D102


class DefaultsLike(Protocol):
    """What the state needs of the defaults."""

    @property
    def attempts(self) -> int: ...  # noqa: D102


class PlanLike(Protocol):
    """What state and views need of a plan: a `prd.Plan`, or its outline."""

    @property
    def project(self) -> str: ...  # noqa: D102
    @property
    def results(self) -> str: ...  # noqa: D102
    @property
    def defaults(self) -> DefaultsLike: ...  # noqa: D102
    @property
    def phases(self) -> Sequence[PhaseLike]: ...  # noqa: D102


def known(root: Path, common_dir: Path) -> PlanLike | None:
    """The outline of the repository's plan if exactly these bytes passed the full check before; else None."""
    data = _plan(root)
    if data is None or _read(_stamp(common_dir)) != _digest(data):
        return None
    document = json.loads(data)
    defaults = {"attempts": 3, **document.get("defaults", {})}
    phases = tuple(
        SimpleNamespace(**{**phase, "features": _features(phase)}) for phase in document["phases"]
    )
    results = document.get("results", "results")
    return SimpleNamespace(project=document["project"], results=results, defaults=SimpleNamespace(**defaults),
                           phases=phases)  # fmt: skip


def remember(root: Path, common_dir: Path) -> None:
    """Leaves the stamp after a full check; where it cannot be written, the next view is slower and nothing else."""
    data, stamp = _plan(root), _stamp(common_dir)
    if data is None or _read(stamp) == _digest(data):
        return
    try:
        stamp.parent.mkdir(exist_ok=True)
        stamp.write_bytes(_digest(data))
    except OSError:
        return


def _features(phase: Mapping[str, Any]) -> tuple[SimpleNamespace, ...]:
    return tuple(SimpleNamespace(**{"needs": (), **feature}) for feature in phase["features"])


def _plan(root: Path) -> bytes | None:
    found = sorted((root / "prd").glob("*.json"))
    return found[0].read_bytes() if len(found) == 1 else None


def _stamp(common_dir: Path) -> Path:
    return common_dir / "phases" / "plan-checked"


def _digest(data: bytes) -> bytes:
    checker = Path(__file__).with_name("schema.py").read_bytes()
    return hashlib.sha256(hashlib.sha256(checker).digest() + data).hexdigest().encode()


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
