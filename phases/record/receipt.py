"""The receipt: what ran, on what, with what, giving what. Written by the runner about a process that it started.

Names follow the in-toto Statement v1 and SLSA provenance v1 (https://in-toto.io/Statement/v1,
https://slsa.dev/provenance/v1); no SLSA level is claimed. The bytes of the file are what its digest is taken over.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phases import __version__

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "phases/feature-run/v1"


@dataclass(frozen=True)
class Run:
    """The facts of one attempt that the runner saw itself."""

    phase: int
    feature: str
    attempt: int
    argv: Sequence[str]
    profile: str
    seed: int
    env_names: Sequence[str]
    """Names only: values may be secrets."""
    commit: str
    started_on: str
    finished_on: str
    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    exit_code: int | None
    sandbox: str
    probes: Mapping[str, str]
    txn: str


def statement(
    run: Run,
    outputs: Mapping[str, str],
    materials: Mapping[str, Mapping[str, str]],
    log: Mapping[str, Any],
) -> dict[str, Any]:
    """The receipt as a document.

    Args:
        run: what was started and how it ended.
        outputs: path below the feature's output folder -> SHA-256.
        materials: name of everything that went in (code, config, plan, gate, inputs, commit) -> digest set.
        log: digest, size and whether the log was cut.
    """
    return {
        "_type": STATEMENT,
        "subject": [
            {"name": path, "digest": {"sha256": digest}} for path, digest in sorted(outputs.items())
        ],
        "predicateType": PROVENANCE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "phase": run.phase,
                    "feature": run.feature,
                    "attempt": run.attempt,
                    "argv": list(run.argv),
                    "profile": run.profile,
                    "seed": run.seed,
                },
                "internalParameters": {
                    "sandbox": {"tier": run.sandbox, "probes": dict(run.probes)},
                    "env": sorted(run.env_names),
                },
                "resolvedDependencies": [
                    {"uri": name, "digest": dict(digest)}
                    for name, digest in sorted(materials.items())
                ],
            },
            "runDetails": {
                "builder": {"id": f"phases/{run.sandbox}", "version": {"phases": __version__}},
                "metadata": {
                    "invocationId": run.txn,
                    "startedOn": run.started_on,
                    "finishedOn": run.finished_on,
                },
                "byproducts": [
                    {"name": "log", **log},
                    {
                        "name": "process",
                        "content": {
                            "exitCode": run.exit_code,
                            "seconds": round(run.seconds, 3),
                            "cpuSeconds": round(run.cpu_seconds, 3),
                            "peakMemoryBytes": run.peak_memory_bytes,
                        },
                    },
                    {"name": "host", "content": host()},
                    {"name": "packages", "content": packages()},
                ],
            },
        },
    }


def encode(document: Mapping[str, Any]) -> bytes:
    """The bytes of a receipt, verdict, request or record: indented for people, keys in their order, one end of line."""
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def subjects(document: Mapping[str, Any]) -> dict[str, str]:
    """Output path -> SHA-256 as a receipt or verdict names them."""
    return {item["name"]: item["digest"]["sha256"] for item in document["subject"]}


def dependency(document: Mapping[str, Any], name: str) -> Mapping[str, str] | None:
    """The digest set of one thing that went in, or None."""
    for item in document["predicate"]["buildDefinition"]["resolvedDependencies"]:
        if item["uri"] == name:
            found: Mapping[str, str] = item["digest"]
            return found
    return None


def process_facts(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Exit code, seconds, processor seconds and peak memory of the attempt."""
    byproducts = document["predicate"]["runDetails"]["byproducts"]
    found: Mapping[str, Any] = next(
        item["content"] for item in byproducts if item["name"] == "process"
    )
    return found


def host() -> dict[str, Any]:
    """The machine, as far as it bears on a result."""
    import platform
    import socket

    import psutil

    return {
        "name": socket.gethostname(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "memoryBytes": psutil.virtual_memory().total,
        "python": platform.python_version(),
        "executable": sys.executable,
    }


def packages() -> dict[str, str]:
    """Every installed distribution and its version."""
    import importlib.metadata

    found = {dist.metadata["Name"]: dist.version for dist in importlib.metadata.distributions()}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))
