"""Reading an experiment's config file: what all profiles share, and what one of them changes."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml


class ConfigError(ValueError):
    """The config is invalid; the message names the file, the value got and the value expected."""


class Config(dict[str, Any]):
    """The settings of one run: a dict whose missing key is an error naming file and profile."""

    def __init__(self, values: Mapping[str, Any], location: str) -> None:
        super().__init__(values)
        self.location = location
        for key, value in values.items():
            if isinstance(value, dict):
                self[key] = Config(value, f"{location}, {key}")

    def __missing__(self, key: str) -> Any:
        msg = f"{self.location}: key {key!r} is missing (there: {', '.join(self) or 'nothing'})"
        raise ConfigError(msg)


class _Loader(yaml.SafeLoader):
    """YAML without its two traps.

    `1e-3` is a number here (YAML 1.1 reads a text), and a repeated key is an error.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                msg = f"line {node.start_mark.line + 1}: key {str(key)!r} is there twice"
                raise ConfigError(msg)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def load_config(path: Path, profile: str) -> Config:
    """Return the mapping of `profile` merged over `common`, nested mappings key by key.

    Raises:
        ConfigError: there is no such profile, or the file is invalid.
    """
    document = read_document(path)
    profiles = document["profiles"]
    if profile not in profiles:
        msg = f"{path}: no profile {profile!r}; there are {', '.join(profiles)}"
        raise ConfigError(msg)
    settings = _merge(document.get("common") or {}, profiles[profile] or {})
    return Config(settings, f"{path}, profile {profile}")


def read_document(path: Path) -> dict[str, Any]:
    """Return the whole file: an optional `common` and the `profiles`, each a mapping.

    Raises:
        ConfigError: the file is no YAML or has other keys.
    """
    try:
        document = yaml.load(path.read_text("utf-8"), _Loader)
    except (OSError, yaml.YAMLError, ConfigError) as error:
        msg = f"{path} cannot be read as a config: {error}"
        raise ConfigError(msg) from error
    if not isinstance(document, dict) or not isinstance(document.get("profiles"), dict):
        msg = f"{path}: expected the key `profiles` with a mapping of profile names to settings"
        raise ConfigError(msg)
    unknown = sorted(set(document) - {"common", "profiles"})
    if unknown:
        msg = f"{path}: unknown key {unknown[0]!r}; expected only `common` and `profiles`"
        raise ConfigError(msg)
    return document


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged
