"""Receipts, verdicts, predictions and artifacts: what each VERIFIED entry names is what its commit holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from phases.audit import locks as audit_locks
from phases.audit.commits import History
from phases.audit.findings import Finding, Report
from phases.base import durable, strict_json
from phases.base.paths import is_artifact
from phases.git.repo import Commit, Repo
from phases.judge.predictions import score_all
from phases.record import state
from phases.record.ledger import Entry, Ledger
from phases.record.project import Project
from phases.record.receipt import dependency, subjects


def check_receipts(
    project: Project, repo: Repo, report: Report, ledger: Ledger, history: History
) -> None:
    newest = {entry.feature: entry for entry in ledger.entries if entry.kind == "VERIFIED"}
    for entry in ledger.entries:
        if entry.kind != "VERIFIED":
            continue
        commit = history.holder.get(entry.seq)
        if commit is None:
            continue
        read = _reader(repo, commit.sha)
        for finding in _receipt_findings(project, repo, report, entry, commit, read):
            report.findings.append(finding)
        if newest[entry.feature] is entry:
            report.findings += _work_tree_findings(project, entry)
            _artifacts(project, report, entry, read)


def _reader(repo: Repo, commit: str) -> Callable[[str], bytes | None]:
    return lambda path: repo.blob(commit, path)


def _receipt_findings(
    project: Project,
    repo: Repo,
    report: Report,
    entry: Entry,
    commit: Commit,
    read: Callable[[str], bytes | None],
) -> Iterator[Finding]:
    def bad(code: str, message: str, path: str | None = None) -> Finding:
        return Finding(code, f"{entry.feature}: {message}", entry.seq, commit.sha, path)

    documents = {}
    for word, pattern in (("receipt", state.RECEIPT), ("verdict", state.VERDICT)):
        named = entry.fact(pattern)
        data = read(named["path"]) if named else None
        if named is None or data is None or durable.sha256(data) != named["digest"]:
            yield bad(
                f"{word}-missing" if data is None else f"{word}-changed",
                f"the commit does not hold the {word} that the entry names",
                named["path"] if named else None,
            )
            return
        documents[word] = strict_json.loads(data)
    report.checked["receipts"] += 1
    made, judged = documents["receipt"], documents["verdict"]
    parameters = made["predicate"]["buildDefinition"]["externalParameters"]
    if (parameters["feature"], parameters["phase"]) != (entry.feature, entry.phase):
        yield bad("receipt-foreign", f"the receipt is of {parameters['feature']}")
    if commit.trailers.get("Phases-Receipt") not in (
        None,
        f"sha256:{(entry.fact(state.RECEIPT) or [''])[1]}",
    ):
        yield bad("commit-trailers", "the trailer names another receipt than the entry")
    if subjects(made) != subjects(judged):
        yield bad("verdict-foreign", "the verdict is about other outputs than the receipt")
    if judged["predicate"]["result"] != "PASSED" or judged["predicate"]["failedTests"]:
        yield bad("verdict-contradicts", "the entry says VERIFIED, the verdict does not say PASSED")
    commits = dependency(made, "git") or {}
    if not repo.is_ancestor(commits.get("gitCommit", ""), commit.sha):
        yield bad(
            "receipt-commit",
            "the receipt names a commit that is not before the one that recorded it",
        )
    home = f"{project.plan.results}/{entry.feature}"
    for name, digest in subjects(made).items():
        data = None if is_artifact(name) else read(f"{home}/{name}")
        if not is_artifact(name) and (data is None or durable.sha256(data) != digest):
            yield bad(
                "result-changed",
                "an output in the commit is not what the receipt names",
                f"{home}/{name}",
            )
    yield from _prediction_findings(
        repo, entry, commit, judged, read(f"{home}/result.json"), made, bad
    )


def _prediction_findings(
    repo: Repo,
    entry: Entry,
    commit: Commit,
    judged: Any,
    result: bytes | None,
    made: Any,
    bad: Callable[..., Finding],
) -> Iterator[Finding]:
    """Predictions are scored again from the committed numbers and the plan of that time."""
    ran_on = (dependency(made, "git") or {}).get("gitCommit", commit.sha)
    try:
        _, feature = audit_locks.plan_at(repo, ran_on).feature(entry.feature or "")
    except (ValueError, KeyError) as error:
        yield bad("plan-missing", f"the plan in commit {ran_on[:12]} cannot be read: {error}")
        return
    for output, target in feature.publish.items():
        data = repo.blob(commit.sha, target)
        if data is None or durable.sha256(data) != subjects(made).get(output):
            yield bad(
                "published-changed",
                f"the published copy of {output} is not what the receipt names",
                target,
            )
    measured = strict_json.loads(result)["measurements"] if result else {}
    again = [(item["id"], item["outcome"]) for item in score_all(feature, measured)]
    stated = [
        (item["id"], item["outcome"])
        for item in judged["predicate"].get("phases/predictions/v1", [])
    ]
    if again != stated:
        yield bad(
            "prediction-score",
            f"predictions scored again give {again}, the verdict states {stated}",
        )


def _published_since(
    project: Project, entry: Entry, outputs: Mapping[str, str]
) -> Iterator[Finding]:
    """A published copy that a person edited later is theirs to edit; that it is no longer the result is said."""
    try:
        publish = project.plan.feature(entry.feature or "")[1].publish
    except KeyError:
        return
    for output, target in publish.items():
        path = project.root / target
        if output in outputs and (
            not path.is_file() or durable.sha256_file(path) != outputs[output]
        ):
            message = (
                f"{entry.feature}: the published copy of {output} was changed since it was recorded"
            )
            yield Finding("published-changed", message, entry.seq, path=target, severity="warning")


def _work_tree_findings(project: Project, entry: Entry) -> Iterator[Finding]:
    """The newest results in the work tree are still what the receipt names."""
    home = project.root / project.plan.results / str(entry.feature)
    named = entry.fact(state.RECEIPT)
    path = home / "receipt.json"
    if named is None or not path.is_file() or durable.sha256_file(path) != named["digest"]:
        yield Finding(
            "receipt-changed",
            f"{entry.feature}: the work tree's receipt is not the one that the entry names",
            entry.seq,
            path=path.relative_to(project.root).as_posix(),
        )
        return
    outputs = subjects(strict_json.loads(path.read_bytes()))
    yield from _published_since(project, entry, outputs)
    for name, digest in outputs.items():
        file = home / name
        if not is_artifact(name) and (not file.is_file() or durable.sha256_file(file) != digest):
            yield Finding(
                "result-changed",
                f"{entry.feature}: an output in the work tree is not what the receipt names",
                entry.seq,
                path=file.relative_to(project.root).as_posix(),
            )


def _artifacts(
    project: Project, report: Report, entry: Entry, read: Callable[[str], bytes | None]
) -> None:
    data = read(f"{project.plan.results}/{entry.feature}/receipt.json")
    for name, digest in subjects(strict_json.loads(data)).items() if data else ():
        if not is_artifact(name):
            continue
        path = project.paths.artifact(digest)
        if not path.is_file():
            report.uncovered.append(
                {
                    "code": "artifact-absent",
                    "message": f"{entry.feature} {name}: sha256 {digest[:12]}… is not on this machine",
                }
            )
            continue
        report.checked["artifacts"] += 1
        if durable.sha256_file(path) != digest:
            report.findings.append(
                Finding(
                    "artifact-changed",
                    f"{entry.feature}: {name} in the store is not what the receipt names",
                    entry.seq,
                    path=str(path),
                )
            )
