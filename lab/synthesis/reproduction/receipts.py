"""What a receipt says: how a feature was run, of which code and inputs, on which machine."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from lab.contract import ContractError
from lab.digests import digest_of, sha256

FILE = "receipt.json"
# of which a computation's bits can depend
PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "bitsandbytes",
    "safetensors",
    "numpy",
    "scipy",
    "matplotlib",
)
HOST = ("system", "machine", "cpus", "python")


@dataclass(frozen=True)
class Receipt:
    """The parts of a receipt that a replay needs.

    argv: the command, with INPUTS and OUT for the paths; dependencies: uri -> digests; seconds: of
    the run by the clock; host, packages: of its machine; outputs: path -> SHA-256.
    """

    argv: tuple[str, ...]
    profile: str
    seed: int
    dependencies: Mapping[str, Mapping[str, str]]
    seconds: float
    host: Mapping[str, Any]
    packages: Mapping[str, str]
    outputs: Mapping[str, str]

    @property
    def module(self) -> str:
        """Return the experiment's module."""
        return self.argv[self.argv.index("-m") + 1]

    @property
    def config(self) -> str:
        """Return the path of the config in the commit."""
        return self.argv[self.argv.index("--config") + 1]


def read_receipt(folder: Path, stated: str) -> Receipt:
    """Return the receipt in a feature's folder.

    stated: its digest by the inputs, "sha256:…".

    Raises:
        ContractError: it is missing, is another one, or is of a command that is no module.
    """
    path = folder / FILE
    if not path.is_file():
        msg = f"{path} is missing; give the folder of a verified result"
        raise ContractError(msg)
    digest = f"sha256:{digest_of(path)}"
    if digest != stated:
        msg = f"{path} has the digest {digest}; the inputs name {stated}"
        raise ContractError(msg)
    document = json.loads(path.read_text("utf-8"))
    build = document["predicate"]["buildDefinition"]
    of_run = build["externalParameters"]
    if "-m" not in of_run["argv"] or "--config" not in of_run["argv"]:
        msg = f"{path}: the command {of_run['argv']} starts no experiment of the lab"
        raise ContractError(msg)
    byproducts = {
        product["name"]: product.get("content")
        for product in document["predicate"]["runDetails"]["byproducts"]
    }
    return Receipt(
        argv=tuple(of_run["argv"]),
        profile=of_run["profile"],
        seed=of_run["seed"],
        dependencies={one["uri"]: one["digest"] for one in build["resolvedDependencies"]},
        seconds=float(byproducts["process"]["seconds"]),
        host=byproducts["host"],
        packages=byproducts["packages"],
        outputs={one["name"]: one["digest"]["sha256"] for one in document["subject"]},
    )


def code_digest(code: Path) -> str:
    """Return the digest of the package `lab` in a folder, as receipts state it in `code:lab`.

    It is the SHA-256 of canonical JSON: path -> SHA-256 of each file. Results and bytecode are no
    code.
    """
    contents = {}
    for path in (code / "lab").rglob("*"):
        name = path.relative_to(code).as_posix()
        if not path.is_file() or name.startswith("lab/results/") or "__pycache__" in path.parts:
            continue
        contents[name] = digest_of(path)
    text = json.dumps(contents, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256(text.encode())


def this_machine() -> dict[str, Any]:
    """Return what decides whether this machine computes the bits of another one."""
    return {
        "system": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def changes(receipt: Receipt, threads: int, machine: Mapping[str, Any]) -> tuple[str, ...]:
    """Return in what a machine differs from that of a receipt, each as "torch 2.12, now 2.13".

    threads: of the run that the receipt is of.
    """
    before = {name: receipt.host.get(name) for name in HOST} | {"threads": threads}
    now = {name: machine[name] for name in (*HOST, "threads")}
    for name in PACKAGES:
        before[name] = receipt.packages.get(name)
        now[name] = machine["packages"][name]
    return tuple(
        f"{name} {before[name]}, now {now[name]}" for name in now if before[name] != now[name]
    )


def arguments(receipt: Receipt, inputs: Path, out: Path) -> Sequence[str]:
    """Return the arguments behind `python` that start the run again."""
    paths = {"INPUTS": str(inputs), "OUT": str(out)}
    return [paths.get(word, word) for word in receipt.argv[1:]]
