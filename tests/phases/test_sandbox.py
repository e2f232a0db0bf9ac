"""The tier that is there is named honestly, and nothing weaker is taken for something stronger."""

from pathlib import Path

import pytest

from phases.errors import EnvironmentFaultError
from phases.execution import sandbox
from phases.execution.sandbox import choose_sandbox


@pytest.mark.parametrize("required", ["best", "none"])
def test_what_is_there_is_given_and_named(required):
    chosen = choose_sandbox(required)
    assert chosen.tier == "none"
    assert not chosen.probes  # nothing was probed, so nothing is claimed
    assert "no isolation" in chosen.statement


@pytest.mark.parametrize("required", ["bwrap", "unshare"])
def test_a_missing_tier_is_refused_and_never_replaced(required):
    with pytest.raises(EnvironmentFaultError) as caught:
        choose_sandbox(required)
    assert caught.value.exit_code == 7
    assert f"at least tier {required}" in str(caught.value)
    assert "strongest here is none" in str(caught.value)
    assert caught.value.hint


def test_an_unknown_tier_is_an_error():
    with pytest.raises(ValueError, match="'docker'"):
        choose_sandbox("docker")


@pytest.mark.parametrize(
    ("strongest", "required", "accepted"),
    [
        ("bwrap", "unshare", True),
        ("unshare", "unshare", True),
        ("unshare", "bwrap", False),
        ("unshare", "none", True),
    ],
)
def test_a_stronger_tier_satisfies_a_weaker_wish(monkeypatch, strongest, required, accepted):
    class Tier(sandbox.Unconfined):
        tier = strongest

    monkeypatch.setattr(sandbox, "available", lambda: (Tier(), sandbox.Unconfined()))
    if accepted:
        assert choose_sandbox(required).tier == strongest
    else:
        with pytest.raises(EnvironmentFaultError, match=f"strongest here is {strongest}"):
            choose_sandbox(required)


def test_the_tier_none_changes_no_command():
    argv = ("python", "-c", "pass")
    tier = choose_sandbox("none")
    assert tier.command(
        argv, writable=[Path("/tmp")], read_only=[Path("/")], network=False
    ) == list(argv)
