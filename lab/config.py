"""Reading an experiment's config.yaml: what all profiles share, and what one of them changes."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml


class ConfigError(ValueError):
    """The config cannot be used; the message names the file, the value met and the value wanted."""


class Config(dict[str, Any]):
    """The settings of one run: a dict whose missing key is an error naming file and profile."""

    def __init__(self, values: Mapping[str, Any], place: str) -> None:
        super().__init__(
            {k: Config(v, f"{place}, {k}") if isinstance(v, dict) else v for k, v in values.items()}
        )
        self.place = place

    def __missing__(self, key: str) -> Any:
        msg = f"{self.place}: key {key!r} is missing (there: {', '.join(self) or 'nothing'})"
        raise ConfigError(msg)


class _Loader(yaml.SafeLoader):
    """YAML without its two traps.

    `1e-3` is a number here (YAML 1.1 reads a text), and a repeated key is an error.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            msg = f"line {node.start_mark.line + 1}: key {twice[0]!r} stands there twice"
            raise ConfigError(msg)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def load_config(path: Path, profile: str) -> Config:
    """Give the mapping of `profile` merged over `common`, nested mappings key by key.

    ConfigError if there is no such profile.
    """
    document = read_document(path)
    profiles = document["profiles"]
    if profile not in profiles:
        msg = f"{path}: no profile {profile!r}; there are {', '.join(profiles)}"
        raise ConfigError(msg)
    return Config(
        _merge(document.get("common") or {}, profiles[profile] or {}), f"{path}, profile {profile}"
    )


def read_document(path: Path) -> dict[str, Any]:
    """Give the whole file: an optional `common` and the `profiles`, each a mapping."""
    try:
        document = yaml.load(path.read_text("utf-8"), _Loader)
    except (OSError, yaml.YAMLError, ConfigError) as error:
        msg = f"{path} cannot be read as a config: {error}"
        raise ConfigError(msg) from error
    if not isinstance(document, dict) or not isinstance(document.get("profiles"), dict):
        msg = f"{path}: wanted the key `profiles` with a mapping of profile names to settings"
        raise ConfigError(msg)
    unknown = sorted(set(document) - {"common", "profiles"})
    if unknown:
        msg = f"{path}: unknown key {unknown[0]!r}; wanted only `common` and `profiles`"
        raise ConfigError(msg)
    return document


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
