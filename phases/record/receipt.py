"""The receipt: what ran, on what, with what, giving what.

The runner writes it about a process that it started itself.

It is an in-toto Statement v1 whose predicate is SLSA provenance v1.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, Self

from pydantic import Field, model_validator

from phases.record.statement import (
    Document,
    ResourceDescriptor,
    Statement,
    find_descriptor,
    is_commit_id,
)

PROVENANCE = "https://slsa.dev/provenance/v1"
LONGEST_NAME = 255
"""Bytes that the name of one file may have; a longer one fails wherever it is opened."""
BUILD_TYPE = "phases/feature-run/v1"


class ExternalParameters(Document):
    """What the plan decides about a run."""

    phase: int
    feature: str
    attempt: int
    argv: tuple[str, ...]
    profile: str
    seed: int


class SandboxReport(Document):
    """The tier that the run had, and what was probed inside it."""

    tier: str
    probes: dict[str, str]


class InternalParameters(Document):
    """What the runner decides about a run."""

    sandbox: SandboxReport
    env: tuple[str, ...]
    """Names only: values may be secrets."""


class BuildDefinition(Document):
    """Everything that went in."""

    build_type: str = Field(BUILD_TYPE, pattern=f"^{BUILD_TYPE}$")
    external_parameters: ExternalParameters
    internal_parameters: InternalParameters
    resolved_dependencies: tuple[ResourceDescriptor, ...]
    """Commit, plan, runner, code, config, gate and inputs, each by URI and digest set."""


class Builder(Document):
    """Who ran it."""

    id: str
    version: dict[str, str]


class Metadata(Document):
    """When it ran, and the transaction that recorded it."""

    invocation_id: str
    started_on: str
    finished_on: str


class RunDetails(Document):
    """How the run went."""

    builder: Builder
    metadata: Metadata
    byproducts: tuple[ResourceDescriptor, ...]
    """`log`, `process`, `host` and `packages`."""


class Provenance(Document):
    """The predicate of a receipt."""

    build_definition: BuildDefinition
    run_details: RunDetails


class Receipt(Statement):
    """The receipt of one attempt; its subjects are the outputs."""

    predicate_type: str = Field(PROVENANCE, pattern=f"^{PROVENANCE}$")
    predicate: Provenance

    @model_validator(mode="after")
    def _names_are_file_names(self) -> Self:
        for name, digest in self.digests.items():
            if not re.fullmatch("[0-9a-f]{64}", digest):
                raise ValueError(f"subject: {name!r} has a SHA-256 that is none")
            parts = name.split("/")
            if {"", ".", ".."} & set(parts) or "\0" in name:
                raise ValueError(f"subject: {name!r} is no path of an output")
            if max(len(part.encode()) for part in parts) > LONGEST_NAME:
                raise ValueError(f"subject: {name[:40]}… has a part that no file can be called by")
        return self

    @property
    def parameters(self) -> ExternalParameters:
        """Phase, feature, attempt and how it was run."""
        return self.predicate.build_definition.external_parameters

    @property
    def tier(self) -> str:
        """The tier of isolation that the run had."""
        return self.predicate.build_definition.internal_parameters.sandbox.tier

    @property
    def process(self) -> Mapping[str, Any]:
        """How the process ended and what it used; {} where the receipt does not say."""
        descriptor = find_descriptor(self.predicate.run_details.byproducts, "process")
        return (descriptor.content or {}) if descriptor else {}

    def dependency(self, uri: str) -> Mapping[str, str]:
        """Return the digest set of one thing that went in; {} where the receipt names none."""
        for item in self.predicate.build_definition.resolved_dependencies:
            if item.uri == uri:
                return item.digest or {}
        return {}

    @property
    def commit(self) -> str:
        """The commit that the run was started on; empty where the receipt names none."""
        commit = self.dependency("git").get("gitCommit", "")
        return commit if is_commit_id(commit) else ""


def describe_host() -> dict[str, Any]:
    """Return the machine, as far as it bears on a result."""
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


def list_packages() -> dict[str, str]:
    """Return every installed distribution and its version, sorted by name."""
    return dict(_read_packages(_metadata_files()))


def _metadata_files() -> tuple[tuple[str, int, int], ...]:
    """Return path, time and size of every folder of sys.path and of the metadata in it.

    A setup command, an experiment or the user may install something between two receipts.
    """
    paths = []
    for folder in dict.fromkeys(name or "." for name in sys.path):
        paths.append(folder)
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith((".dist-info", ".egg-info")):
                    paths += [entry.path, f"{entry.path}/METADATA", f"{entry.path}/PKG-INFO"]
    files = []
    for path in sorted(paths):
        with suppress(OSError):
            status = os.lstat(path)
            files.append((path, status.st_mtime_ns, status.st_size))
    return tuple(files)


@lru_cache(maxsize=1)
def _read_packages(files: tuple[tuple[str, int, int], ...]) -> Mapping[str, str]:
    """Return the distributions, read once for as long as these files are the same."""
    import importlib.metadata

    del files
    versions = {}
    for distribution in importlib.metadata.distributions():
        metadata = distribution.metadata  # each access, and `version`, reads and parses the file
        versions[metadata["Name"]] = metadata["Version"]
    return dict(sorted(versions.items(), key=lambda item: item[0].lower()))
