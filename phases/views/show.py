"""show ID: everything about one feature in one place, read from the ledger and its committed files.

What a stored file says is shown only if it is the one that the ledger names; `audit` is what proves.
"""

from __future__ import annotations

from typing import Any

from phases.base import durable, strict_json
from phases.base.text import printable
from phases.record import entries
from phases.record.project import Project, Snapshot
from phases.record.state import FeatureStatus
from phases.views.sentences import sentence
from phases.views.status import coverage, verdict_details
from phases.views.why import entries_of, find


def show(project: Project, snapshot: Snapshot, feature_id: str) -> dict[str, Any]:
    """`show ID --json`."""
    phase, feature = find(project.outline, feature_id)
    current = snapshot.state.phase(phase.id)
    item = current.feature(feature_id)
    stored, problem = _stored(project, item)
    return {
        "id": item.id,
        "title": item.title,
        "phase": phase.id,
        "state": item.state,
        "attempts": item.attempts,
        "started": item.started,
        "needs": list(feature.needs),
        "decisions": [note.sentence for note in current.notes if note.feature in (None, item.id)],
        "entries": [
            {"seq": entry.seq, "time": entry.time, "kind": entry.kind, "sentence": sentence(entry)}
            for entry in entries_of(snapshot, item.id)
        ],
        "receipt": f"sha256:{item.receipt}" if item.receipt else None,
        "coverage": coverage(item),
        "verdict": verdict_details(stored["verdict.json"]) if stored else None,
        "predictions": _predictions(stored),
        "measurements": _measurements(stored),
        "files": _files(project, item),
        "problem": problem,
    }


def _stored(project: Project, item: FeatureStatus) -> tuple[dict[str, Any], str | None]:
    """Receipt, verdict and result of the newest verified attempt; empty, and why, where they are not what is named."""
    if item.receipt is None:
        return {}, None
    home = project.root / project.paths.results(item.id)
    found = {}
    for name in ("receipt.json", "verdict.json", "result.json"):
        path = home / name
        if path.is_file():
            found[name] = path.read_bytes()
    receipt = found.get("receipt.json", b"")
    if durable.sha256(receipt) != item.receipt or "verdict.json" not in found:
        return (
            {},
            f"{home / 'receipt.json'} is not the receipt that the ledger names, sha256 {item.receipt[:12]}…",
        )
    subjects = {
        entry["name"]: entry["digest"]["sha256"] for entry in strict_json.loads(receipt)["subject"]
    }
    if (
        "result.json" in subjects
        and durable.sha256(found.get("result.json", b"")) != subjects["result.json"]
    ):
        return {}, f"{home / 'result.json'} is not what the receipt names"
    return {name: strict_json.loads(data) for name, data in found.items()}, None


def _predictions(stored: dict[str, Any]) -> list[dict[str, str]]:
    scored = stored["verdict.json"]["predicate"].get("phases/predictions/v1", []) if stored else []
    return [{key: item[key] for key in ("id", "claim", "outcome", "reason")} for item in scored]


def _measurements(stored: dict[str, Any]) -> dict[str, str]:
    found = stored.get("result.json", {}).get("measurements", {})
    return {
        printable(name, 80): entries.number(item)
        for name, item in found.items()
        if isinstance(item, dict)
    }


def _files(project: Project, item: FeatureStatus) -> dict[str, str]:
    """Where things lie: only what is there."""
    paths = project.paths
    places = {
        "results": project.root / paths.results(item.id),
        "attempts": project.root / paths.results(item.id) / "attempts",
        "logs": paths.log(item.id, 1).parent,
        "outputs that were not verified": paths.quarantine(item.id, 1).parent,
    }
    return {
        word: place.relative_to(project.root).as_posix()
        for word, place in places.items()
        if place.is_dir()
    }


def text(told: dict[str, Any]) -> str:
    """The same for a person."""
    lines = [f"{told['id']} {told['title']} · phase {told['phase']} · {told['state']}"]
    lines += [f"  decided by a person: {printable(note, 400)}" for note in told["decisions"]]
    if told["problem"]:
        lines += [f"  DOES NOT HOLD: {told['problem']}; see python -m phases audit"]
    if told["needs"]:
        lines += [f"  needs {', '.join(told['needs'])}"]
    lines += [
        "",
        "entries",
        *(f"  {item['seq']:04d} {item['time']}  {item['sentence']}" for item in told["entries"]),
    ]
    if not told["entries"]:
        lines += ["  none yet"]
    if verdict := told["verdict"]:
        lines += [
            "",
            "verdict",
            f"  {verdict['passed']} checks passed; fails on {verdict['caught']} negative copies",
        ]
        lines += [f"  only claimed: {', '.join(verdict['claimed'])}"] if verdict["claimed"] else []
        lines += (
            [f"  unjudged by the plan's own word: {', '.join(verdict['unjudged'])}"]
            if verdict["unjudged"]
            else []
        )
    if told["predictions"]:
        lines += ["", "predictions"]
        lines += [
            f"  {item['outcome']:<12} {item['claim']}: {item['reason']}"
            for item in told["predictions"]
        ]
    if told["measurements"]:
        lines += [
            "",
            "measurements",
            *(f"  {name:<32} {value}" for name, value in told["measurements"].items()),
        ]
    if told["files"]:
        lines += ["", "files", *(f"  {word}: {place}/" for word, place in told["files"].items())]
    if told["receipt"]:
        lines += [f"  receipt {told['receipt']}"]
    return "\n".join(lines)
