"""The tier of this machine is named honestly, and no weaker one replaces a stronger one."""

from pathlib import Path

import pytest

from phases.errors import EnvironmentFaultError
from phases.execution import sandbox
from phases.execution.sandbox import NoSandbox, Tier, choose_sandbox


@pytest.mark.parametrize("required", ["best", "none"])
def test_the_strongest_sandbox_is_chosen_and_named(required):
    chosen = choose_sandbox(required)
    assert chosen.tier == Tier.NONE
    assert not chosen.probes  # nothing was probed, so nothing is claimed
    assert "no isolation" in chosen.statement


@pytest.mark.parametrize("required", ["bwrap", "unshare"])
def test_a_missing_tier_is_refused_and_never_replaced(required):
    with pytest.raises(EnvironmentFaultError) as excinfo:
        choose_sandbox(required)
    assert excinfo.value.exit_code == 7
    assert f"at least tier {required}" in str(excinfo.value)
    assert "strongest here is none" in str(excinfo.value)
    assert excinfo.value.hint


def test_an_unknown_tier_is_an_error():
    with pytest.raises(ValueError, match="'docker'"):
        choose_sandbox("docker")


@pytest.mark.parametrize(
    ("strongest", "required", "is_enough"),
    [
        (Tier.BWRAP, "unshare", True),
        (Tier.UNSHARE, "unshare", True),
        (Tier.UNSHARE, "bwrap", False),
        (Tier.UNSHARE, "none", True),
    ],
)
def test_a_stronger_tier_satisfies_a_weaker_requirement(
    monkeypatch, strongest, required, is_enough
):
    class StrongestSandbox(NoSandbox):
        tier = strongest

    monkeypatch.setattr(sandbox, "available_sandboxes", lambda: (StrongestSandbox(), NoSandbox()))
    if is_enough:
        assert choose_sandbox(required).tier == strongest
    else:
        with pytest.raises(EnvironmentFaultError, match=f"strongest here is {strongest}"):
            choose_sandbox(required)


def test_the_tier_none_changes_no_command():
    argv = ("python", "-c", "pass")
    command = choose_sandbox("none").command(
        argv, writable=[Path("/tmp")], read_only=[Path("/")], network=False
    )
    assert command == list(argv)
