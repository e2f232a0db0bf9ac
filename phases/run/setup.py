"""Before a phase's work: its setup commands and its entry gates, each in a copy of the commit.

Setup may use the network and writes to the cache only; what it fetched counts by the digests in the
plan, which the runner checks itself. Entry gates are preconditions; one that fails ends the run
with exit 1 and no entry.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from phases.base.paths import cache_dir
from phases.errors import EnvironmentFaultError, GateFailedError
from phases.execution import process
from phases.execution.command_line import shell_command
from phases.execution.inputs import cached_input, check_inputs
from phases.execution.process import clean_environment, log_tail
from phases.git.tree import Layout
from phases.judge.gate import GateOutcome, gate_spec, run_entry_gate
from phases.plan.schema import Phase
from phases.run.programs import resolve_programs
from phases.run.workspace import Workspace
from phases.views.live import View

TIMEOUT_S = 3600.0
_NETWORK = re.compile(
    r"(?i)((https?|all|no|ftp)_proxy|pip_\w+|ssl_cert_(file|dir)|requests_ca_bundle|curl_ca_bundle)"
)
"""Variables that say how this machine reaches its network; only setup gets them."""


def run_setup(workspace: Workspace, phase: Phase, view: View) -> None:
    """Run the phase's setup commands in a copy of the tree, then check every pinned input.

    Raises:
        EnvironmentFaultError: a command failed, or an input does not have the plan's digests.
    """
    # 1. The commands.
    if phase.setup:
        layout = workspace.tree.lay_out(workspace.staging.tree)
        for number, command in enumerate(phase.setup, start=1):
            view.message(f"{workspace.mark}setup: {command}")
            log = workspace.project.paths.log(f"phase-{phase.id}-setup", number)
            _run_command(workspace, layout, command, log)

    # 2. What they fetched.
    names = sorted({name for feature in phase.features for name in feature.inputs})
    inputs = [workspace.plan.input(name) for name in names]
    check_inputs([cached_input(item) for item in inputs if item.is_cached])


def _run_command(workspace: Workspace, layout: Layout, command: str, log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    cache_dir().mkdir(parents=True, exist_ok=True)
    network = {name: value for name, value in os.environ.items() if _NETWORK.fullmatch(name)}
    argv = workspace.sandbox.command(
        shell_command(resolve_programs(command, workspace.tree).text),
        writable=[cache_dir(), workspace.staging.folder],
        read_only=[],
        network=True,
    )
    result = process.run(
        argv,
        cwd=layout.folder,
        env=clean_environment({**workspace.environment(layout), **network}),
        log=log,
        timeout_s=TIMEOUT_S,
    )
    if result.exit_code == 0:
        return
    reason = f"ended with exit {result.exit_code}, signal {result.signal}"
    if result.timed_out:
        reason = "timed out"
    raise EnvironmentFaultError(
        f"setup {reason}: {command}\n{log_tail(log)}",
        hint=f"see {log}, fix the cause, run again",
    )


def run_entry_gates(workspace: Workspace, phase: Phase, view: View) -> None:
    """Run the phase's entry gates in a copy of the tree; GateFailedError at the first failure."""
    if not phase.entry:
        return
    layout = workspace.tree.lay_out(workspace.staging.tree)
    for number, gate in enumerate(phase.entry):
        spec = gate_spec(gate, workspace.plan.defaults.gate_timeout_s)
        if gate.shell:
            spec = replace(spec, target=resolve_programs(gate.shell, workspace.tree).text)
        run = run_entry_gate(
            spec,
            root=layout.folder,
            workspace=workspace.staging.folder / f"entry-{number}",
            env=workspace.environment(layout),
            sandbox=workspace.sandbox,
        )
        if run.outcome != GateOutcome.PASSED:
            raise GateFailedError(
                f"phase {phase.id} cannot start: "
                f"entry gate {gate.name} {run.outcome}: {run.reason}",
                hint="fix what it names, then python -m phases run --next",
            )
        view.message(f"entry gate {gate.name}: passed")
