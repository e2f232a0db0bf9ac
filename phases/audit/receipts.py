"""What a receipt states, recomputed from the commit that ran and from the ledger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from phases.audit.attempts import Attempt
from phases.audit.findings import Finding
from phases.audit.record import Record
from phases.audit.source_tree import SourceTree
from phases.base import durable
from phases.base.paths import is_artifact
from phases.base.text import printable
from phases.execution.collect import matches
from phases.execution.command_line import COMMAND_WORD, command_line
from phases.execution.process import EXIT_REASON
from phases.git.tree import CommitTree
from phases.plan.lock import PlanLock, PlanLockError
from phases.plan.schema import Feature
from phases.record import entries
from phases.record.feature_code import code_digest, feature_code
from phases.record.statement import ResourceDescriptor, file_subjects

Digests = Mapping[str, str]
"""A digest set: algorithm, or `sha256:FILE`, -> digest."""


def check_receipt(record: Record, attempt: Attempt) -> Iterator[Finding]:
    """Yield where a receipt is of another attempt, or contradicts commit, plan or lock."""
    # 1. It is of the attempt that its STARTED names.
    outcome, receipt = attempt.outcome, attempt.receipt
    parameters = receipt.parameters
    if (parameters.feature, parameters.phase) != (outcome.feature, outcome.entry.phase):
        message = f"the receipt is about {parameters.feature} in phase {parameters.phase}"
        yield outcome.finding("receipt-foreign", message, attempt.path)
    if not _is_of_started(attempt):
        message = "the receipt is not of the attempt that its STARTED entry names"
        yield outcome.finding("receipt-foreign", message, attempt.path)

    # 2. That commit is before the one that recorded it, with the tree that the receipt names.
    if not record.is_before(attempt.source, outcome.commit):
        message = "the receipt names a commit that is not before the one that recorded it"
        yield outcome.finding("receipt-commit", message, attempt.path)
        return
    started = outcome.started.seq if outcome.started else outcome.entry.seq
    if not record.has_entries_before(attempt.source, started):
        message = "the receipt names a commit that lacks entries which were recorded before"
        yield outcome.finding("receipt-commit", message, attempt.path)
    if receipt.dependency("git").get("gitTree") != record.tree_id(attempt.source):
        message = f"the receipt names another tree than commit {attempt.source[:12]} has"
        yield outcome.finding("receipt-commit", message, attempt.path)

    # 3. What follows from plan, commit, lock and the receipts before.
    for message in (
        *_parameter_contradictions(attempt),
        *_process_contradictions(attempt),
        *_subject_contradictions(attempt),
        *_dependency_contradictions(record, attempt),
    ):
        yield outcome.finding("receipt-contradicts", message, attempt.path)


def _is_of_started(attempt: Attempt) -> bool:
    """Return whether a receipt is of the attempt, commit and transaction that were started."""
    outcome, receipt = attempt.outcome, attempt.receipt
    line = (outcome.started.match(entries.STARTED) if outcome.started else None) or {}
    metadata = receipt.predicate.run_details.metadata
    stated = (str(receipt.parameters.attempt), receipt.commit, metadata.invocation_id)
    return stated == (line.get("attempt"), outcome.head, outcome.txn)


def _parameter_contradictions(attempt: Attempt) -> Iterator[str]:
    """Yield what a receipt states otherwise than plan and STARTED decide."""
    plan, feature, receipt = attempt.plan, attempt.feature, attempt.receipt
    parameters, definition = receipt.parameters, receipt.predicate.build_definition
    profile, seed = plan.profile_of(feature), plan.seed_of(feature)
    line = attempt.outcome.started.match(entries.STARTED) if attempt.outcome.started else None
    tier = (line or {}).get("sandbox")
    pairs = {
        "profile": (parameters.profile, profile),
        "seed": (parameters.seed, seed),
        "argv": (parameters.argv, command_line(feature, profile, seed)),
        "sandbox": (receipt.tier, tier),
        "builder": (receipt.predicate.run_details.builder.id, f"phases/{tier}"),
    }
    for name, (stated, expected) in pairs.items():
        if stated != expected:
            got = printable(str(stated), 200)
            yield f"of {name} the receipt states {got}; expected {printable(str(expected), 200)}"
    missing = sorted(set(plan.defaults.env) - set(definition.internal_parameters.env))
    if missing:
        yield f"the receipt lacks the plan's variables {', '.join(missing)}"


def _process_contradictions(attempt: Attempt) -> Iterator[str]:
    """Yield where the process of a receipt did not end as the outcome says."""
    byproducts = [item.name for item in attempt.receipt.predicate.run_details.byproducts]
    if len(set(byproducts)) != len(byproducts):
        yield "the receipt states a byproduct twice"
    process = attempt.receipt.process
    if not process:
        yield "the receipt does not say how the process ended"
        return
    exit_code, seconds = process.get("exitCode"), process.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds < 0:
        yield f"the receipt states {printable(str(seconds), 40)} as the seconds that it took"
    if attempt.verdict is not None and (exit_code != 0 or isinstance(exit_code, bool)):
        ended = "no exit code" if exit_code is None else f"exit code {exit_code}"
        yield f"the receipt states {ended} of an attempt that was judged"
    for reason in attempt.record.reasons if attempt.record else ():
        if reason.startswith(EXIT_REASON) and reason != f"{EXIT_REASON}{exit_code}":
            yield f"the receipt states exit code {exit_code}; its reason is: {printable(reason)}"


def _subject_contradictions(attempt: Attempt) -> Iterator[str]:
    """Yield where a receipt's outputs are not those that the plan declares."""
    receipt, feature = attempt.receipt, attempt.feature
    if receipt.subject != file_subjects(receipt.digests):
        yield "the receipt names an output twice, or otherwise than by its SHA-256 alone"
    declared = (*feature.outputs, *feature.publish)
    for name in receipt.digests:
        if not any(matches(pattern, name) for pattern in declared):
            yield f"the receipt names {printable(name)}, which the plan does not declare"
    if attempt.verdict is None:
        return
    for pattern in declared:
        if not any(matches(pattern, name) for name in receipt.digests):
            yield f"the receipt names no output {printable(pattern)}, which the plan declares"


#### what went in


def _dependency_contradictions(record: Record, attempt: Attempt) -> Iterator[str]:
    """Yield where a receipt names other things that went in, or other digests of them."""
    # 1. Each thing once.
    resolved = attempt.receipt.predicate.build_definition.resolved_dependencies
    stated: dict[str, Digests] = {}
    for item in resolved:
        if item.uri is None or item.uri in stated:
            yield f"the receipt names {_name(item.uri)} twice, or a thing without a name"
        if item != ResourceDescriptor(uri=item.uri, digest=item.digest):
            yield f"the receipt states more of {_name(item.uri)} than its digest"
        stated[item.uri or ""] = item.digest or {}

    # 2. Those that plan, commit, lock and ledger decide.
    expected = dict(_expected_dependencies(record, attempt))
    for uri, digests in expected.items():
        if uri not in stated:
            if not _may_be_left_out(record, attempt, uri):
                yield f"the receipt does not name {printable(uri)}, which went in"
        elif not _agree(attempt, uri, stated[uri], digests):
            yield f"the receipt states another digest of {printable(uri)} than what went in"

    # 3. Nothing else, but for programs: what they were is not in the commit.
    words = COMMAND_WORD.findall(attempt.feature.command or "")
    for uri in stated:
        is_program = uri.startswith("program:") and uri.removeprefix("program:") in words
        if uri not in expected and not is_program:
            yield f"the receipt names {_name(uri)}, which did not go in"


def _name(uri: str | None) -> str:
    return printable(uri or "") or "nothing"


def _expected_dependencies(record: Record, attempt: Attempt) -> Iterator[tuple[str, Digests]]:
    """Yield the URI and digest set of everything that goes into an attempt, but for programs."""
    plan, feature, source = attempt.plan, attempt.feature, attempt.source
    tree = record.sources(source)

    # 1. Commit, plan, runner, config, gate.
    yield "git", {"gitCommit": source, "gitTree": record.tree_id(source) or ""}
    plan_path = record.plan_path(source)
    yield plan_path, {"sha256": record.file_digest(tree, plan_path) or ""}
    yield "runner", {"sha256": _locked_runner(record, attempt)}
    if feature.config:
        yield feature.config, {"sha256": record.file_digest(tree, feature.config) or ""}
    yield feature.gate.name, record.gate(source, feature.gate).digest or {}

    # 2. The code.
    for uri, paths in feature_code(tree, plan, feature).items():
        yield uri, {"sha256": code_digest(paths, record.contents(tree, paths))}

    # 3. The inputs, and the features whose outputs are inputs.
    for name in feature.inputs:
        item = plan.input(name)
        if item.is_cached:
            yield f"input:{name}", {f"sha256:{file}": sha for file, sha in item.sha256.items()}
        else:
            yield f"input:{name}", _tracked_identity(record, tree, source, item.tracked_path)
    for need in feature.needs:
        yield f"feature:{need}", {"sha256": attempt.outcome.receipts.get(need, "")}


def _tracked_identity(record: Record, tree: SourceTree, commit: str, path: str) -> Digests:
    """Return the digest set of a tracked input: git's id, and those of what its links lead to."""
    identity = {"gitObject": record.object_id(commit, path) or ""}
    if tree.has_links(path):
        # They may lead to the record, which `tree` is without.
        for entry in CommitTree(record.repo, commit).select([path]):
            if not entry.path.startswith(f"{path}/"):
                identity[f"gitObject:{printable(entry.path)}"] = entry.id
    return identity


def _locked_runner(record: Record, attempt: Attempt) -> str:
    """Return the digest of the runner that the lock in force names."""
    lock = attempt.outcome.lock
    line = lock.match(entries.LOCK) if lock else None
    if line is None:
        return ""
    data = record.read(attempt.outcome.commit.sha, line["path"]) or b""
    if durable.sha256(data) != line["sha256"]:
        return ""
    try:
        return PlanLock.decode(data).components.get("runner", "")
    except PlanLockError:
        return ""


def _agree(attempt: Attempt, uri: str, stated: Digests, expected: Digests) -> bool:
    """Return whether two digest sets are the same; in a cached folder may be more files."""
    name = uri.removeprefix("input:")
    if name in attempt.feature.inputs and attempt.plan.input(name).is_cached:
        return expected.items() <= stated.items()
    return dict(stated) == dict(expected)


def _may_be_left_out(record: Record, attempt: Attempt, uri: str) -> bool:
    """Return whether it is a folder that Python may not import: a library can have its name."""
    name = uri.removeprefix("code:")
    if name == uri or name == _top_package(attempt.feature):
        return False
    tree = record.sources(attempt.source)
    return f"{name}/__init__.py" not in tree.entries and f"{name}.py" not in tree.entries


def _top_package(feature: Feature) -> str:
    return (feature.module or "").partition(".")[0]


def committed_outputs(attempt: Attempt) -> dict[str, str]:
    """Return path -> SHA-256 of the outputs that are committed."""
    folder = attempt.path.rpartition("/")[0]
    digests = attempt.receipt.digests
    return {f"{folder}/{name}": sha for name, sha in digests.items() if not is_artifact(name)}
