"""The deciding half of FEAT-017, for its experiment: from this machine to all that is shown.

artifacts/decision holds copies of the YAML files, and this machine as `Machine.to_json` writes it.
"""

from __future__ import annotations

import json
from pathlib import Path

from lab.contract import Outcome
from lab.hardware.decision import decide, store_catalogue
from lab.hardware.decision_figures import decision_figures
from lab.hardware.decision_numbers import decision_measurements
from lab.hardware.decision_report import decision_findings
from lab.hardware.decision_tables import decision_tables
from lab.hardware.feasibility import Machine
from lab.hardware.verified import KEY


def decision_outcome(out: Path, this: Machine) -> Outcome:
    """Store what the decision is made of, and return what follows from it."""
    catalogue = store_catalogue(out / "artifacts")
    document = this.to_json()
    path = out / "artifacts" / "decision" / "machine.json"
    path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    decision = decide(catalogue, this)
    return Outcome(
        decision_measurements(decision),
        tables=decision_tables(decision),
        findings=decision_findings(decision),
        figures=decision_figures(decision),
        environment={KEY: document},
    )
