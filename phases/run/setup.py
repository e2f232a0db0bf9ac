"""Before a phase's work: its setup commands and its entry gates.

Setup may use the network and writes to the cache only; what it fetched counts by the digests in the
plan, which the runner checks itself. Entry gates are preconditions; one that fails ends the run
with exit 1 and no entry.
"""

from __future__ import annotations

import os
import re

from phases.base.paths import cache_dir
from phases.errors import EnvironmentFaultError, GateFailedError
from phases.execution import process
from phases.execution.inputs import cached_input, check_inputs
from phases.execution.process import clean_environment, log_tail
from phases.execution.sandbox import Sandbox
from phases.execution.worker import staging_folder
from phases.judge.gate import GateOutcome, gate_spec, run_entry_gate
from phases.plan.schema import Phase
from phases.record.project import Project
from phases.views.live import View

TIMEOUT_S = 3600.0
_NETWORK = re.compile(
    r"(?i)((https?|all|no|ftp)_proxy|pip_\w+|ssl_cert_(file|dir)|requests_ca_bundle|curl_ca_bundle)"
)
"""Variables that say how this machine reaches its network; only setup gets them."""


def run_setup(project: Project, phase: Phase, sandbox: Sandbox, view: View) -> None:
    """Run the phase's setup commands, then check every pinned input of its features.

    Raises:
        EnvironmentFaultError: a command failed, or an input does not have the plan's digests.
    """
    # 1. The commands.
    for number, command in enumerate(phase.setup, start=1):
        view.message(f"setup: {command}")
        _run_command(project, phase, sandbox, command, number)

    # 2. What they fetched.
    names = sorted({name for feature in phase.features for name in feature.inputs})
    inputs = [project.plan.input(name) for name in names]
    check_inputs([cached_input(item) for item in inputs if item.is_cached])


def _run_command(
    project: Project, phase: Phase, sandbox: Sandbox, command: str, number: int
) -> None:
    log = project.paths.log(f"phase-{phase.id}-setup", number)
    log.parent.mkdir(parents=True, exist_ok=True)
    cache_dir().mkdir(parents=True, exist_ok=True)
    network = {name: value for name, value in os.environ.items() if _NETWORK.fullmatch(name)}
    with staging_folder(project.root) as staging:
        argv = sandbox.command(
            ["/bin/sh", "-c", command],
            writable=[cache_dir(), staging.folder],
            read_only=[project.root],
            network=True,
        )
        env = {**project.plan.defaults.env, **staging.environment, **network}
        result = process.run(
            argv,
            cwd=project.root,
            env=clean_environment(env),
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


def run_entry_gates(project: Project, phase: Phase, sandbox: Sandbox, view: View) -> None:
    """Run the phase's entry gates in the repository root; GateFailedError at the first failure."""
    for number, gate in enumerate(phase.entry):
        with staging_folder(project.root) as staging:
            run = run_entry_gate(
                gate_spec(gate, project.plan.defaults.gate_timeout_s),
                root=project.root,
                workspace=staging.folder / f"entry-{number}",
                env={**project.plan.defaults.env, **staging.environment},
                sandbox=sandbox,
            )
        if run.outcome != GateOutcome.PASSED:
            raise GateFailedError(
                f"phase {phase.id} cannot start: "
                f"entry gate {gate.name} {run.outcome}: {run.reason}",
                hint="fix what it names, then python -m phases run --next",
            )
        view.message(f"entry gate {gate.name}: passed")
