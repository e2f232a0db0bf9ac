"""The features that the experiment was given, and the draw from them, made anew.

Ids are ordered by SHA-256 of "STARTED ID"; the first ones that can be computed again are drawn. By
hand and in a scratch run PHASES_STARTED is not set, and zeros take its place.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from gates.shared import outputs
from gates.shared.stored import cached, config

REPLAY, WHOLE = "replay", "whole run"


def started() -> str:
    """Return the hash of the STARTED entry, or zeros."""
    return os.environ.get("PHASES_STARTED") or 64 * "0"


def entries() -> dict[str, dict[str, Any]]:
    """Return the inputs by name, as the runner names them."""
    text = Path(os.environ["PHASES_INPUTS"]).read_text("utf-8")
    document: dict[str, dict[str, Any]] = json.loads(text)
    return document


def folder(feature: str) -> Path:
    """Return the outputs of a feature."""
    return Path(entries()[feature]["path"])


@functools.cache
def receipt(feature: str) -> dict[str, Any]:
    """Return a feature's receipt; its bytes must be those that the inputs name."""
    data = (folder(feature) / "receipt.json").read_bytes()
    assert f"sha256:{outputs.sha256(data)}" == entries()[feature].get("receipt"), feature
    document: dict[str, Any] = json.loads(data)
    return document


def dependencies(feature: str) -> dict[str, dict[str, str]]:
    """Return uri -> digests of what a feature's run depended on."""
    stated = receipt(feature)["predicate"]["buildDefinition"]["resolvedDependencies"]
    return {one["uri"]: one["digest"] for one in stated}


def command(feature: str) -> list[str]:
    """Return the command of a feature's run."""
    build = receipt(feature)["predicate"]["buildDefinition"]
    words: list[str] = build["externalParameters"]["argv"]
    return words


def module(feature: str) -> str:
    """Return the module of a feature's run."""
    words = command(feature)
    return words[words.index("-m") + 1]


def byproduct(feature: str, name: str) -> dict[str, Any]:
    """Return what a receipt says of the process, of its host or of its packages."""
    for product in receipt(feature)["predicate"]["runDetails"]["byproducts"]:
        if product["name"] == name:
            content: dict[str, Any] = product["content"]
            return content
    msg = f"{feature}: its receipt says nothing of {name}"
    raise AssertionError(msg)


def output_digests(feature: str) -> dict[str, str]:
    """Return path -> SHA-256 of a feature's outputs, as its receipt states them."""
    return {one["name"]: one["digest"]["sha256"] for one in receipt(feature)["subject"]}


def result(feature: str) -> dict[str, Any]:
    """Return the result of a feature."""
    document: dict[str, Any] = json.loads((folder(feature) / "result.json").read_text("utf-8"))
    return document


#### the draw


def order() -> list[str]:
    """Return the features in the order of the draw."""
    features = [name for name, entry in entries().items() if entry["kind"] == "feature"]
    return sorted(features, key=lambda name: outputs.sha256(f"{started()} {name}".encode()))


def ways() -> list[list[str | None]]:
    """Return (feature, how it can be computed again or None) in the order of the draw."""
    limit = config()["whole_seconds"]
    key = f"draw {started()} {limit}"
    return list(cached(key, [], lambda: [[name, _way(name, limit)] for name in order()]))


def way_of(feature: str) -> str | None:
    """Return how a feature can be computed again, or None."""
    return next(way for name, way in ways() if name == feature)


def drawn() -> list[str]:
    """Return the drawn features."""
    possible = [str(name) for name, way in ways() if way is not None]
    return possible[: config()["features"]]


def _way(feature: str, limit: float) -> str | None:
    if not _is_complete(feature):
        return None
    topic = module(feature).rpartition(".")[0]
    code = Path(entries()[feature]["code"])
    if (code.joinpath(*topic.split(".")) / "replay.py").is_file():
        return REPLAY
    if byproduct(feature, "process")["seconds"] <= limit:
        return WHOLE
    return None


def _is_complete(feature: str) -> bool:
    """Return whether receipt, code and inputs of a feature are those of its run."""
    entry = entries()[feature]
    path = folder(feature) / "receipt.json"
    if not path.is_file() or f"sha256:{_digest(path)}" != entry.get("receipt"):
        return False
    if "-m" not in command(feature) or "--config" not in command(feature) or "code" not in entry:
        return False
    needed = dependencies(feature)
    if entry.get("commit") != needed["git"]["gitCommit"]:
        return False
    if code_digest(entry["code"]) != needed["code:lab"]["sha256"]:
        return False
    return all(_is_given(feature, uri, digests) for uri, digests in needed.items())


def _is_given(feature: str, uri: str, digests: dict[str, str]) -> bool:
    """Return whether an input of a feature's run is there as it was; all else is none."""
    kind, _, name = uri.partition(":")
    if kind == "feature":
        return entries().get(name, {}).get("receipt") == f"sha256:{digests['sha256']}"
    if kind != "input":
        return True
    if "gitObject" in digests:
        return _is_of_commit(feature, name, digests["gitObject"])
    return _is_same(name, digests)


def _is_of_commit(feature: str, name: str, expected: str) -> bool:
    """Return whether a tracked input is the git object of its run, in the code of the commit."""
    code = Path(entries()[feature]["code"])
    for uri in dependencies(feature):
        if uri.startswith("prd/") and (code / uri).is_file():
            plan = json.loads((code / uri).read_text("utf-8"))
            path = code / {one["name"]: one["path"] for one in plan["inputs"]}.get(name, name)
            return path.exists() and _git_object(path) == expected
    return False


def _git_object(path: Path) -> str:
    """Return git's id of a file or a folder: SHA-1 over its kind, its size and its content."""
    kind, content = "blob", b""
    if path.is_file():
        content = path.read_bytes()
    else:
        kind = "tree"
        # folders are sorted as if their names ended with a slash
        for child in sorted(path.iterdir(), key=lambda one: one.name + "/" * one.is_dir()):
            is_program = child.stat().st_mode & 0o100
            mode = "40000" if child.is_dir() else ("100755" if is_program else "100644")
            content += f"{mode} {child.name}\0".encode() + bytes.fromhex(_git_object(child))
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content).hexdigest()


def _is_same(name: str, digests: dict[str, str]) -> bool:
    """Return whether an input that no commit has is given, with the bytes of that time."""
    if name not in entries():
        return False
    for key, expected in digests.items():
        path = Path(entries()[name]["path"]) / key.removeprefix("sha256:")
        if path.is_file() and _digest(path) != expected:
            return False
    return True


@functools.cache
def code_digest(code: str) -> str:
    """Return the digest of the package `lab` in a folder, as a receipt's code:lab states it."""
    contents = {}
    for path in Path(code, "lab").rglob("*"):
        name = path.relative_to(code).as_posix()
        is_code = "__pycache__" not in path.parts and not name.startswith("lab/results/")
        if is_code and path.is_file():
            contents[name] = _digest(path)
    text = json.dumps(contents, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return outputs.sha256(text.encode())


@functools.cache
def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
