"""Before a phase's work: its setup commands and its entry gates.

Setup may use the network and writes to the cache only; what it fetched counts by the digests in the PRD, which the
runner checks itself. Entry gates are preconditions; one that says no ends the run with exit 1 and no entry.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from phases.execution import inputs, process, worker
from phases.judge import gate
from phases.errors import EnvironmentFaultError, GateFailedError
from phases.views.live import View
from phases.base.paths import cache_dir
from phases.plan.schema import Gate, Phase
from phases.record.project import Project
from phases.execution.sandbox import Sandbox

TIMEOUT_S = 3600.0
_NETWORK = re.compile(r"(?i)((https?|all|no|ftp)_proxy|pip_\w+|ssl_cert_(file|dir)|requests_ca_bundle|curl_ca_bundle)")
"""Variables by which a machine says how its network is reached; setup alone gets them."""


def run_setup(opened: Project, phase: Phase, tier: Sandbox, view: View) -> None:
    """Runs the phase's setup commands, then checks every pinned input of its features.

    Raises:
        EnvironmentFaultError: a command failed, or an input does not have the PRD's digests.
    """
    network = {name: value for name, value in os.environ.items() if _NETWORK.fullmatch(name)}
    for number, command in enumerate(phase.setup):
        view.message(f"setup: {command}")
        log = opened.paths.log(f"phase-{phase.id}-setup", number + 1)
        log.parent.mkdir(parents=True, exist_ok=True)
        cache_dir().mkdir(parents=True, exist_ok=True)
        with worker.staging(opened.root) as place:
            env = process.clean_environment({**opened.prd.defaults.env, **place.environment, **network})
            argv = tier.command(
                ["/bin/sh", "-c", command], writable=[cache_dir(), place.folder], read_only=[opened.root], network=True
            )
            done = process.run(argv, cwd=opened.root, env=env, log=log, timeout_s=TIMEOUT_S)
        if done.exit_code != 0:
            how = "timed out" if done.timed_out else f"ended with exit {done.exit_code}, signal {done.signal}"
            raise EnvironmentFaultError(
                f"setup {how}: {command}\n{log_tail(log)}", remedy=f"see {log}, mend it, run again"
            )
    names = sorted({name for feature in phase.features for name in feature.inputs})
    pinned = [opened.prd.input(name) for name in names if opened.prd.input(name).is_cached]
    inputs.check([inputs.cached(item) for item in pinned])


def run_entry_gates(opened: Project, phase: Phase, tier: Sandbox, view: View) -> None:
    """Runs the phase's entry gates in the repository root; GateFailedError at the first that does not pass."""
    for number, item in enumerate(phase.entry):
        with worker.staging(opened.root) as place:
            run = gate.run_entry(
                spec(item, opened.prd.defaults.gate_timeout_s),
                root=opened.root,
                workspace=place.folder / f"entry-{number}",
                env={**opened.prd.defaults.env, **place.environment},
                sandbox=tier,
            )
        if run.outcome != "passed":
            raise GateFailedError(
                f"phase {phase.id} cannot start: entry gate {item.name} {run.outcome}: {run.reason}",
                remedy="mend what it names, then python -m phases run --next",
            )
        view.message(f"entry gate {item.name}: passed")


def spec(item: Gate, timeout_s: float) -> gate.GateSpec:
    """The PRD's gate as gate.py takes it."""
    kind, target = ("pytest", item.pytest) if item.pytest else ("shell", item.shell)
    return gate.GateSpec(kind, target or "", timeout_s)  # type: ignore[arg-type]


def log_tail(log: Path, limit: int = 1500) -> str:
    """The last characters of a log, for a message."""
    return log.read_bytes()[-limit:].decode("utf-8", "replace") if log.is_file() else ""
