"""`verify`: run gates again on stored results, with a fresh nonce; nothing is recorded."""

from __future__ import annotations

from collections.abc import Sequence

from phases.errors import UsageError
from phases.execution.inputs import copy_outputs
from phases.execution.sandbox import choose_sandbox
from phases.git.repo import Repo
from phases.git.tree import CommitTree
from phases.record import entries
from phases.record.ledger import EntryKind, Ledger
from phases.record.project import Project, Snapshot, load_verified
from phases.record.receipt import Receipt
from phases.record.state import FeatureStatus
from phases.record.states import FeatureState
from phases.run.plan_locks import require_plan
from phases.run.results import FeatureResult, count_checks, judgement_lines
from phases.run.workspace import open_workspace
from phases.views.live import Stage, View


def verify_features(
    project: Project, view: View, feature_ids: Sequence[str]
) -> list[FeatureResult]:
    """Judge stored results again; without ids those of every feature that has some.

    Raises:
        IntegrityError: what is stored is not what the receipt names.
        EnvironmentFaultError: an artifact or input is not on this machine.
    """
    repo = project.repo()
    snapshot = load_verified(project.probed_anew(), repo)
    state = snapshot.state
    for feature_id in feature_ids:
        if feature_id not in state.features:
            message = f"the plan has no feature {feature_id!r}"
            raise UsageError(message, hint="python -m phases status")
    if not feature_ids:
        feature_ids = [item.id for item in state.features.values() if item.receipt]
    results = []
    for feature_id in feature_ids:
        results.append(_verify_feature(project, repo, snapshot, state.features[feature_id], view))
    return results


def _verify_feature(
    project: Project, repo: Repo, snapshot: Snapshot, item: FeatureStatus, view: View
) -> FeatureResult:
    if item.receipt is None:
        message = f"{item.id} is {item.state} and has no stored results"
        raise UsageError(message, hint="python -m phases status")
    sandbox = choose_sandbox(project.plan.defaults.sandbox)
    tree = CommitTree(repo, repo.head())
    plan = require_plan(tree)
    _, feature = plan.feature(item.id)

    # 1. Judge a copy of the stored outputs: by HEAD's gate, with the inputs that they came from.
    with open_workspace(project, plan, snapshot.state, tree, sandbox, view=view) as workspace:
        out = workspace.staging.folder / "stored"
        outputs = copy_outputs(project.paths, item.id, item.receipt, out)
        receipt = _stored_receipt(project, item.id)
        judge = workspace.prepare_judge(
            [feature.gate],
            feature.inputs,
            feature.needs,
            with_code=feature.code_of_needs,
            inputs_tree=CommitTree(repo, receipt.commit),
        )
        view.feature_started(item.id, f"{item.title} [verify]", None)
        view.stage(Stage.JUDGE)
        started = _started_hash(
            snapshot.ledger, receipt.predicate.run_details.metadata.invocation_id
        )
        judgement = judge.judge_feature(feature, out, outputs, view, started=started)

    # 2. What the gate found.
    passed, failing = count_checks(judgement)
    result = FeatureResult(
        id=item.id,
        state=judgement.state,
        seconds=max(1, round(judgement.seconds)),
        lines=judgement_lines(feature.gate.name, judgement),
        passed=passed,
        failing=failing,
    )
    is_verified = judgement.state == FeatureState.VERIFIED
    verb = "verified again" if is_verified else judgement.state.value
    view.feature_finished(item.id, verb, result.lines)
    return result


def _stored_receipt(project: Project, feature_id: str) -> Receipt:
    """Return the receipt of a feature's results; its bytes were checked before."""
    path = project.root / project.paths.results(feature_id) / "receipt.json"
    return Receipt.decode(path.read_bytes())


def _started_hash(ledger: Ledger, txn: str) -> str:
    """Return the hash of the STARTED entry of a transaction; empty if there is none."""
    for entry in ledger.entries:
        stated = entry.match(entries.TRANSACTION)
        if entry.kind == EntryKind.STARTED and stated and stated["txn"] == txn:
            return entry.self_hash
    return ""
