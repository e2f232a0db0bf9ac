"""Why two results of a feature may differ: what their receipts and environments do not share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lab.verified import VerifiedResult

# distributions that compute; others cannot change a number
COMPUTING = ("torch", "numpy", "scipy", "transformers", "tokenizers", "peft", "bitsandbytes")
NAMES = ("executable", "name")  # of the host: paths and names change no number
HOST_WORDS = {"cpus": "CPUs", "machine": "processors", "memoryBytes": "memory"}
CODE, INPUT = "code:", "input:"
SETTINGS = ("seed", "profile", "threads")
GIB = 2**30


def find_reasons(
    here: VerifiedResult, there: VerifiedResult, changed: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return what differs between two runs of a feature, each as `thing: here, there`.

    changed: features whose results differ; those that this one was made from are a reason.
    """
    needs = environment(here).get("inputs", {})
    upstream = [f"made from {name}, which differs too" for name in changed if name in needs]
    return (
        *_settings(here, there),
        *upstream,
        *_data_and_code(here, there),
        *_machines(here, there),
    )


def _settings(here: VerifiedResult, there: VerifiedResult) -> Iterator[str]:
    """Yield seed, profile, threads and keys of the config."""
    a, b = environment(here), environment(there)
    for name in SETTINGS:
        if a.get(name) != b.get(name):
            yield f"{name}: {a.get(name)} here, {b.get(name)} there"
    configs = flatten(a.get("config", {})), flatten(b.get("config", {}))
    for key in sorted(configs[0].keys() | configs[1].keys()):
        values = [config.get(key, "nothing") for config in configs]
        if values[0] != values[1]:
            yield f"config {key}: {values[0]} here, {values[1]} there"


def _data_and_code(here: VerifiedResult, there: VerifiedResult) -> Iterator[str]:
    """Yield data, inputs and code whose digests differ; of other features see `changed` above."""
    data = [flatten(environment(of).get("data", {})) for of in (here, there)]
    for name in sorted(data[0].keys() & data[1].keys()):
        if data[0][name] != data[1][name]:
            yield f"data {name}: {_short(data[0][name])} here, {_short(data[1][name])} there"
    made_from = dependencies(here), dependencies(there)
    for uri in sorted(made_from[0].keys() & made_from[1].keys()):
        digests = made_from[0][uri], made_from[1][uri]
        if uri.startswith((CODE, INPUT)) and digests[0] != digests[1]:
            what = uri.replace(CODE, "code of ").replace(INPUT, "input ")
            yield f"{what}: {_short(digests[0])} here, {_short(digests[1])} there"


def _short(digest: Any) -> str:
    """Return the first digits of a digest."""
    return str(digest).removeprefix("sha256:")[:8]


def _machines(here: VerifiedResult, there: VerifiedResult) -> Iterator[str]:
    """Yield what differs between machines and packages."""
    hosts = byproduct(here, "host"), byproduct(there, "host")
    for name in sorted(hosts[0].keys() & hosts[1].keys()):
        if hosts[0][name] != hosts[1][name] and name not in NAMES:
            values = [host_value(name, host[name]) for host in hosts]
            if values[0] != values[1]:
                what = HOST_WORDS.get(name, name)
                yield f"{what}: {values[0]} here, {values[1]} there"
    packages = package_versions(here), package_versions(there)
    for name in sorted(packages[0].keys() | packages[1].keys()):
        versions = [one.get(name, "none") for one in packages]
        if versions[0] != versions[1]:
            yield f"{name}: {versions[0]} here, {versions[1]} there"


def host_value(name: str, value: Any) -> str:
    """Return a field of a receipt's host as people read it."""
    if name == "memoryBytes":
        return f"{value / GIB:.0f} GiB"
    return str(value)


def describe_machine(of: VerifiedResult) -> str:
    """Return the machine of a receipt in a few words: `vm, x86_64, 2 cpus, 24 GiB`."""
    host = byproduct(of, "host")
    words = [str(host[name]) for name in ("name", "machine") if name in host]
    if "cpus" in host:
        words.append(f"{host['cpus']} CPUs")
    if "memoryBytes" in host:
        words.append(host_value("memoryBytes", host["memoryBytes"]))
    return ", ".join(words) or "a machine that its receipts do not name"


def has_same_seed_and_data(here: VerifiedResult, there: VerifiedResult) -> bool:
    """Return whether seed, profile, config, data and inputs are the same."""
    others = [reason for reason in _data_and_code(here, there) if not reason.startswith("code of ")]
    return not others and not list(_settings(here, there))


# Parts of the documents


def environment(of: VerifiedResult) -> Mapping[str, Any]:
    """Return `environment` of the result."""
    document: Mapping[str, Any] = of.result.get("environment", {})
    return document


def package_versions(of: VerifiedResult) -> dict[str, Any]:
    """Return the versions of Python and of the distributions that compute."""
    installed = byproduct(of, "packages")
    versions = {name: installed[name] for name in COMPUTING if name in installed}
    return versions | dict(environment(of).get("packages", {}))


def byproduct(of: VerifiedResult, name: str) -> dict[str, Any]:
    """Return a byproduct of the receipt; empty if there is none."""
    details = of.receipt.get("predicate", {}).get("runDetails", {})
    for product in details.get("byproducts", ()):
        if product.get("name") == name:
            return dict(product.get("content", {}))
    return {}


def dependencies(of: VerifiedResult) -> dict[str, str]:
    """Return uri -> digest of what the receipt says the run was made from.

    An input of several files has a digest of each; they are joined to one text.
    """
    definition = of.receipt.get("predicate", {}).get("buildDefinition", {})
    digests = {}
    for one in definition.get("resolvedDependencies", ()):
        digests[one["uri"]] = " ".join(value for _, value in sorted(one["digest"].items()))
    return digests


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted key -> value of nested mappings."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
