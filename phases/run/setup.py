"""Before a phase's work: its setup commands and its entry gates.

Setup may use the network and writes to the cache only; what it fetched counts by the digests in the PRD, which the
runner checks itself. Entry gates are preconditions; one that says no ends the run with exit 1 and no entry.
"""

from __future__ import annotations

import os
import re

from phases.base.paths import cache_dir
from phases.errors import EnvironmentFaultError, GateFailedError
from phases.execution import process, worker
from phases.execution.inputs import cached_input, check_inputs
from phases.execution.process import log_tail
from phases.execution.sandbox import Sandbox
from phases.judge.gate import gate_spec, run_entry_gate
from phases.plan.schema import Phase
from phases.record.project import Project
from phases.views.live import View

TIMEOUT_S = 3600.0
_NETWORK = re.compile(
    r"(?i)((https?|all|no|ftp)_proxy|pip_\w+|ssl_cert_(file|dir)|requests_ca_bundle|curl_ca_bundle)"
)
"""Variables by which a machine says how its network is reached; setup alone gets them."""


def run_setup(project: Project, phase: Phase, tier: Sandbox, view: View) -> None:
    """Runs the phase's setup commands, then checks every pinned input of its features.

    Raises:
        EnvironmentFaultError: a command failed, or an input does not have the PRD's digests.
    """
    network = {name: value for name, value in os.environ.items() if _NETWORK.fullmatch(name)}
    for number, command in enumerate(phase.setup):
        view.message(f"setup: {command}")
        log = project.paths.log(f"phase-{phase.id}-setup", number + 1)
        log.parent.mkdir(parents=True, exist_ok=True)
        cache_dir().mkdir(parents=True, exist_ok=True)
        with worker.staging(project.root) as place:
            env = process.clean_environment(
                {**project.plan.defaults.env, **place.environment, **network}
            )
            argv = tier.command(
                ["/bin/sh", "-c", command],
                writable=[cache_dir(), place.folder],
                read_only=[project.root],
                network=True,
            )
            done = process.run(argv, cwd=project.root, env=env, log=log, timeout_s=TIMEOUT_S)
        if done.exit_code != 0:
            how = (
                "timed out"
                if done.timed_out
                else f"ended with exit {done.exit_code}, signal {done.signal}"
            )
            raise EnvironmentFaultError(
                f"setup {how}: {command}\n{log_tail(log)}", hint=f"see {log}, mend it, run again"
            )
    names = sorted({name for feature in phase.features for name in feature.inputs})
    pinned = [project.plan.input(name) for name in names if project.plan.input(name).is_cached]
    check_inputs([cached_input(item) for item in pinned])


def run_entry_gates(project: Project, phase: Phase, tier: Sandbox, view: View) -> None:
    """Runs the phase's entry gates in the repository root; GateFailedError at the first that does not pass."""
    for number, item in enumerate(phase.entry):
        with worker.staging(project.root) as place:
            run = run_entry_gate(
                gate_spec(item, project.plan.defaults.gate_timeout_s),
                root=project.root,
                workspace=place.folder / f"entry-{number}",
                env={**project.plan.defaults.env, **place.environment},
                sandbox=tier,
            )
        if run.outcome != "passed":
            raise GateFailedError(
                f"phase {phase.id} cannot start: entry gate {item.name} {run.outcome}: {run.reason}",
                hint="mend what it names, then python -m phases run --next",
            )
        view.message(f"entry gate {item.name}: passed")
