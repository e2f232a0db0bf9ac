"""A repository with the results of all tracks, and a home for the score of each test alone."""

from pathlib import Path

import pytest

from lab.synthesis.tracks import TRACKS
from tests.lab.quiz.user import ENV
from tests.lab.synthesis import track


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test begin without an earlier quiz, and leave the user's own file alone."""
    monkeypatch.setitem(ENV, "XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("quiz")
    for name in TRACKS:
        track.write_results(root / "lab/results", track=name)
    return root
