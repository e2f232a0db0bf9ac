"""What the site was made from, read from the inputs: plan, results, questions, concept texts."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from gates.shared import documents, outputs
from gates.synthesis.site import stated

MODULE = "lab.synthesis.site.experiment"
STORED_PAGES = {"FEAT-011": "attention.html", "FEAT-012": "attention_over_time.html"}
OUTCOMES = ("MISSED", "INCONCLUSIVE", "HELD")  # in the order of reading
SEALED = re.compile(r"<!-- result\.json sha256:\w{64} body sha256:\w{64} -->\n\Z")
PLACEHOLDER = re.compile(r"\{\{([A-Za-z0-9][\w.-]*)\.([a-z]\w*)\}\}")


@cache
def entries() -> dict[str, dict[str, Any]]:
    """Return name -> {"kind", "path", …} of what the run was given."""
    document: dict[str, Any] = json.loads(Path(os.environ["PHASES_INPUTS"]).read_text("utf-8"))
    return document


@cache
def plan() -> dict[str, Any]:
    """Return the plan."""
    document: dict[str, Any] = json.loads(outputs.inputs()["plan"].read_text("utf-8"))
    return document


@cache
def planned() -> dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Return id -> (phase, feature) of the plan's features before the site, in order."""
    features: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
    for phase in plan()["phases"]:
        for feature in phase["features"]:
            if feature.get("module") == MODULE:
                return features
            features[feature["id"]] = (phase, feature)
    return features


def features() -> list[str]:
    """Return the features whose results were given, in the plan's order."""
    return [name for name in planned() if name in entries()]


def absent() -> list[str]:
    """Return the features of the plan without a result."""
    return [name for name in planned() if name not in entries()]


@cache
def result(feature: str) -> dict[str, Any]:
    """Return a feature's result."""
    text = (outputs.inputs()[feature] / "result.json").read_text("utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def report(feature: str) -> str:
    """Return a feature's report without its last line."""
    return SEALED.sub("", (outputs.inputs()[feature] / "report.md").read_text("utf-8"))


def provenance(feature: str) -> str:
    """Return which run a page shows."""
    receipt = entries()[feature].get("receipt", "none")
    date, machine = "not recorded", result(feature)["environment"]["platform"]
    path = outputs.inputs()[feature] / "receipt.json"
    if path.is_file():
        details = json.loads(path.read_text("utf-8"))["predicate"]["runDetails"]
        date = details["metadata"]["finishedOn"]
        hosts = [part["content"] for part in details["byproducts"] if part["name"] == "host"]
        if hosts:
            gibibytes = hosts[0]["memoryBytes"] / 2**30
            machine = f"{hosts[0]['system']}, {hosts[0]['cpus']} CPUs, {gibibytes:.1f} GiB"
    if receipt == "none":
        receipt = "none (run by hand)"
    return f"{feature}: receipt {receipt}, run {date} on {machine}"


def figures(feature: str) -> dict[str, Path]:
    """Return path in the site -> file of each figure: the smaller one of its two files."""
    files = {}
    for figure in result(feature)["figures"]:
        path = outputs.inputs()[feature] / "figures" / figure["name"]
        svg, png = path.with_suffix(".svg"), path.with_suffix(".png")
        file = svg if svg.stat().st_size <= png.stat().st_size else png
        files[f"figures/{feature}/{file.name}"] = file
    return files


def stored_pages() -> dict[str, Path]:
    """Return name -> file of the stored pages that were given."""
    paths = {}
    for feature, name in STORED_PAGES.items():
        if feature in features() and (outputs.inputs()[feature] / name).is_file():
            paths[name] = outputs.inputs()[feature] / name
    return paths


@cache
def scores(feature: str) -> list[dict[str, str]]:
    """Return claim, source, outcome and reason of each prediction of a feature."""
    measurements = result(feature)["measurements"]
    scored = []
    for prediction in planned()[feature][1].get("predictions", []):
        outcome, reason = stated.outcome_and_reason(prediction, measurements)
        scored.append(
            {
                "feature": feature,
                "claim": prediction["claim"],
                "source": prediction.get("source") or "not stated",
                "outcome": outcome,
                "reason": reason,
            }
        )
    return scored


def outcomes() -> Counter[str]:
    """Return how many predictions had which outcome."""
    return Counter(score["outcome"] for name in features() for score in scores(name))


@cache
def questions() -> list[dict[str, Any]]:
    """Return the questions of the log: section, id, heading, status, why, experiments."""
    path = outputs.inputs()["questions"]
    text = (path / "QUESTIONS.md" if path.is_dir() else path).read_text("utf-8")
    log = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        for block in section.split("\n### Q-")[1:]:
            heading, _, rest = block.partition("\n")
            number, _, words = heading.partition(" · ")
            fields = dict(re.findall(r"^- ([a-z ]+): (.+?)\s*$", rest, re.MULTILINE))
            tags = [tag.strip() for tag in fields.get("experiments", "").split(",")]
            log.append(
                {
                    "section": section.partition("\n")[0].strip(),
                    "id": f"Q-{number}",
                    "text": words.strip(),
                    "status": fields.get("status", ""),
                    "why": fields.get("why", ""),
                    "experiments": [tag for tag in tags if tag],
                }
            )
    return log


@cache
def concepts() -> dict[str, str]:
    """Return name -> Markdown of the concept texts."""
    texts = {}
    for path in sorted(outputs.inputs()["concepts"].glob("*.md")):
        text = path.read_text("utf-8")
        if path.name != "TEMPLATE.md" and not SEALED.search(text):
            texts[path.stem] = text
    return texts


def placeholders(source: str) -> list[tuple[str, str]]:
    """Return (feature, measurement) of each placeholder of a concept text outside of code."""
    return documents.placeholders(documents.read("", source))


def concept_title(source: str) -> str:
    """Return the first heading of a concept text."""
    return source.partition("# ")[2].partition("\n")[0].strip()


def measured(feature: str, name: str) -> dict[str, Any] | None:
    """Return a measurement that a placeholder names; None if it was not measured."""
    if feature not in features():
        return None
    measurement: dict[str, Any] | None = result(feature)["measurements"].get(name)
    return measurement
