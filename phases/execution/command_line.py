"""The command that runs a feature; anyone can type the same one by hand."""

from __future__ import annotations

import os
import re

from phases.plan.schema import Feature

COMMAND_WORD = re.compile(r"""(?<![^\s;&|()'"=`])[^\s;&|()<>'"=`$*?\\]+(?![^\s;&|()<>'"`])""")
"""A word of a shell command that is written out: no variable, no wildcard, no escape."""


def shell_command(command: str) -> tuple[str, ...]:
    """Return how a command of the plan is run."""
    return ("/bin/sh", "-c", command)


def named_paths(command: str) -> list[str]:
    """Return the words of a shell command that could be paths of the repository."""
    paths = []
    for word in COMMAND_WORD.findall(command):
        path = os.path.normpath(word)
        if path != "." and not path.startswith(("/", "..", "-")):
            paths.append(path)
    return paths


def command_line(
    feature: Feature,
    profile: str,
    seed: int,
    *,
    python: str = "python",
    inputs: str = "INPUTS",
    out: str = "OUT",
) -> tuple[str, ...]:
    """Return the command that runs a feature; by default as its receipt states it.

    Args:
        feature: the feature.
        profile: the profile.
        seed: the seed.
        python: the interpreter; a receipt names no file of the machine.
        inputs: the file that names the inputs.
        out: the folder of the outputs.
    """
    if feature.command is not None:
        return shell_command(feature.command)
    options = {
        "--config": feature.config,
        "--profile": profile,
        "--seed": seed,
        "--inputs": inputs,
        "--out": out,
    }
    argv = [python, "-m", str(feature.module)]
    for option, value in options.items():
        argv += [option, str(value)]
    return tuple(argv)
