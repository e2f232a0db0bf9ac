"""The audits of the tests, made again by a mutant: one test for each repository that was audited.

While the tests run on the original, `Toy` keeps a copy of each repository that it audits, with what
tests compare: the exit code, and in some modules the reviewed findings. To audit a copy costs a
fifth of the test that made it, so that a mutant can meet all of them. KEPT_AUDITS is their folder.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from phases.audit.audit import audit_at_rest
from phases.audit.findings import audit_json
from phases.errors import PhasesError
from phases.record.project import open_project
from tests.phases.reviewed_findings import describe_reports

KEPT = Path(os.environ["KEPT_AUDITS"])


@pytest.mark.parametrize("name", sorted(path.name for path in KEPT.iterdir()))
def test_audit_says_the_same(name: str) -> None:
    kept = json.loads((KEPT / name / "audit.json").read_text())
    root = KEPT / name / "repository"
    try:
        report = audit_at_rest(open_project(root))
    except PhasesError as error:
        assert (error.exit_code, kept["report"]) == (kept["code"], None)
        return
    assert report.ok == (kept["code"] == 0)
    if kept["report"] is not None:
        expected = describe_reports([(Path(kept["root"]), kept["report"])])
        assert describe_reports([(root, json.loads(json.dumps(audit_json(report))))]) == expected
