"""A small record for the reproduction: features run on tiny models, with receipts and their code.

FEAT-003 takes a second, FEAT-005 and FEAT-021 have replays, and FEAT-900 is FEAT-021 by a commit
that had none yet.
"""

import hashlib
import json
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from lab.config import read_document
from lab.instruments import models
from lab.synthesis.reproduction.rebuilding import git_object
from lab.synthesis.reproduction.receipts import PACKAGES, code_digest
from tests.forks import run_module
from tests.gates.conftest import ROOT, digests_of

COMMIT, OLD_COMMIT = 40 * "a", 40 * "b"
MODEL = "tiny-model"
FEATURES = {
    "FEAT-003": ("questions", "cpu", 1.0),
    "FEAT-005": ("loss_curves", "cpu", 700.0),
    "FEAT-021": ("induction_heads", "smoke", 90.0),
}


def write_record(folder: Path) -> Path:
    """Run the features below a folder; return the file of the inputs."""
    code = write_code(folder / "code")
    models.save(models.tiny(0), folder / MODEL)
    entries: dict[str, dict[str, Any]] = {
        MODEL: {"kind": "input", "path": str(folder / MODEL)},
        "questions": {"kind": "input", "path": str(code / "docs/QUESTIONS.md")},
    }
    inputs = folder / "inputs.json"
    for feature, (topic, profile, seconds) in FEATURES.items():
        out = folder / feature
        inputs.write_text(json.dumps(entries))
        argv = command(topic, profile)
        words = [{"INPUTS": str(inputs), "OUT": str(out)}.get(word, word) for word in argv[3:]]
        log = folder / f"{feature}.log"
        assert run_module(argv[2], words, code, log) == 0, log.read_text()
        receipt = receipt_of(out, argv, profile, seconds, code=code)
        entries[feature] = write_receipt(out, receipt, code, COMMIT)

    # A feature of a commit that had no replay.
    old = write_code(folder / "old_code")
    (old / "lab/induction_heads/replay.py").unlink()
    out = Path(shutil.copytree(folder / "FEAT-021", folder / "FEAT-900"))
    (out / "receipt.json").unlink()
    argv = command("induction_heads", "smoke")
    receipt = receipt_of(out, argv, "smoke", 90.0, code=old, commit=OLD_COMMIT)
    entries["FEAT-900"] = write_receipt(out, receipt, old, OLD_COMMIT)
    inputs.write_text(json.dumps(entries))
    return inputs


def write_code(folder: Path) -> Path:
    """Copy the lab as the runner lays out a commit; every cpu profile is of the tiny model."""
    ignored = shutil.ignore_patterns("__pycache__", "results")
    shutil.copytree(ROOT / "lab", folder / "lab", ignore=ignored)
    (folder / "docs").mkdir()
    shutil.copy(ROOT / "docs/QUESTIONS.md", folder / "docs")
    (folder / "prd").mkdir()
    shutil.copy(ROOT / "prd/llm-learning-lab.json", folder / "prd")
    for path in (folder / "lab").glob("*/experiment.yaml"):
        document = read_document(path)
        smoke = document["profiles"].get("smoke") or {}
        if smoke.get("model") == "tiny":
            document["profiles"]["cpu"] = smoke | {"model": MODEL}
            path.write_text(yaml.safe_dump(document, sort_keys=False))
    return folder


def command(topic: str, profile: str) -> list[str]:
    """Return the command of a run, as receipts have it."""
    words = ["python", "-m", f"lab.{topic}.experiment", "--config"]
    words += [f"lab/{topic}/experiment.yaml", "--profile", profile, "--seed", "0"]
    return [*words, "--inputs", "INPUTS", "--out", "OUT"]


def receipt_of(
    out: Path, argv: list[str], profile: str, seconds: float, *, code: Path, commit: str = COMMIT
) -> dict[str, Any]:
    """Return the receipt of a run, with what a reproduction reads of it."""
    dependencies = [
        {"uri": "code:lab", "digest": {"sha256": code_digest(code)}},
        {"uri": "git", "digest": {"gitCommit": commit}},
        {"uri": "prd/llm-learning-lab.json", "digest": {"sha256": 64 * "0"}},
    ]
    if "questions" in argv[2]:
        digest = git_object(code / "docs/QUESTIONS.md")
        dependencies.append({"uri": "input:questions", "digest": {"gitObject": digest}})
    weights = out.parent / MODEL / "model.safetensors"
    if weights.is_file():
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        uri = f"input:{MODEL}"
        dependencies.append({"uri": uri, "digest": {"sha256:model.safetensors": digest}})
    host = {
        "system": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
    }
    byproducts = [
        {"name": "process", "content": {"seconds": seconds}},
        {"name": "host", "content": host},
        {"name": "packages", "content": {name: metadata.version(name) for name in PACKAGES}},
    ]
    subject = [
        {"name": name, "digest": {"sha256": digest}}
        for name, digest in sorted(digests_of(out).items())
    ]
    build = {
        "externalParameters": {"argv": argv, "profile": profile, "seed": 0},
        "resolvedDependencies": dependencies,
    }
    predicate = {"buildDefinition": build, "runDetails": {"byproducts": byproducts}}
    return {"subject": subject, "predicate": predicate}


def write_receipt(out: Path, receipt: dict[str, Any], code: Path, commit: str) -> dict[str, Any]:
    """Write a feature's receipt; return its entry among the inputs."""
    data = json.dumps(receipt).encode()
    (out / "receipt.json").write_bytes(data)
    return {
        "kind": "feature",
        "path": str(out),
        "receipt": f"sha256:{hashlib.sha256(data).hexdigest()}",
        "code": str(code),
        "commit": commit,
    }


def copy_record(inputs: Path, folder: Path, feature: str) -> Path:
    """Copy one feature of a record, to change it; return the file of the new inputs."""
    entries = json.loads(inputs.read_text())
    out = Path(shutil.copytree(entries[feature]["path"], folder / feature))
    entries[feature]["path"] = str(out)
    copy = folder / "inputs.json"
    copy.write_text(json.dumps(entries))
    return copy


def renew_receipt(inputs: Path, feature: str) -> None:
    """Write the receipt of a changed feature anew, as if it had been recorded so."""
    entries = json.loads(inputs.read_text())
    entry = entries[feature]
    out = Path(entry["path"])
    receipt = json.loads((out / "receipt.json").read_text())
    digests = digests_of(out)
    for one in receipt["subject"]:
        one["digest"]["sha256"] = digests[one["name"]]
    entries[feature] = write_receipt(out, receipt, Path(entry["code"]), entry["commit"])
    inputs.write_text(json.dumps(entries))
