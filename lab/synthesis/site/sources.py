"""Everything that the site shows, read from the inputs: plan, results, questions, concepts."""

from __future__ import annotations

import json
import re
import struct
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.contract import Context, ContractError
from lab.result import Result
from lab.synthesis.retrospect import read_predictions, score_prediction
from lab.synthesis.site.measured import NONE, Concept, Feature, FigureFile, Question, Sources

MODULE = "lab.synthesis.site.experiment"  # of the plan's feature that makes the site
TEMPLATE = "TEMPLATE.md"  # of the concept documents; it is none itself
HEADING = re.compile(r"^### (Q-\d{3}) · (.+?)\s*$")
FIELD = re.compile(r"^- ([a-z ]+): (.+?)\s*$")
SEAL = re.compile(r"<!-- result\.json sha256:[0-9a-f]{64} body sha256:[0-9a-f]{64} -->\n\Z")


def read_sources(ctx: Context) -> Sources:
    """Return everything that was given.

    Raises:
        ContractError: a feature's result, report or figure cannot be read.
    """
    plan = json.loads(ctx.inputs.path(ctx.config["plan"]).read_text("utf-8"))
    phases = {phase["id"]: phase for phase in plan["phases"]}

    # 1. The features that the plan has before this one; those that were waived are not given.
    features, absent = [], []
    for phase, planned in _before_the_site(plan):
        if planned["id"] in ctx.inputs.entries:
            features.append(_read_feature(ctx, plan, planned["id"], phase))
        else:
            absent.append((planned["id"], planned.get("title", planned["id"])))

    # 2. Questions and concepts.
    log = _file_of(ctx.inputs.path(ctx.config["questions"]), "QUESTIONS.md").read_text("utf-8")
    concepts = []
    for path in sorted(ctx.inputs.path(ctx.config["concepts"]).glob("*.md")):
        text = path.read_text("utf-8")
        # Reports that were published there are shown as reports already.
        if path.name != TEMPLATE and not SEAL.search(text):
            concepts.append(Concept(path.stem, text))
    return Sources(
        project=plan.get("project", "LLM Learning Lab"),
        is_sample=plan.get("sample") is True,
        phases=phases,
        features=tuple(features),
        absent=tuple(absent),
        questions=read_questions(log),
        concepts=tuple(concepts),
    )


def _before_the_site(plan: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    """Return (phase, feature) of the plan up to the feature that makes the site."""
    features: list[tuple[int, Mapping[str, Any]]] = []
    for phase in plan["phases"]:
        for feature in phase["features"]:
            if feature.get("module") == MODULE:
                return features
            features.append((phase["id"], feature))
    return features


def _read_feature(ctx: Context, plan: Mapping[str, Any], name: str, phase: int) -> Feature:
    """Return a feature's result with its report, its figures and its predictions."""
    folder = ctx.inputs.path(name)
    try:
        result = Result.from_json(json.loads((folder / "result.json").read_text("utf-8")))
        report = SEAL.sub("", (folder / "report.md").read_text("utf-8"))
        figures = tuple(_figure(name, folder, figure["name"]) for figure in result.figures)
    except (OSError, KeyError, ValueError) as error:
        msg = (
            f"{name}: {folder} has no whole result ({type(error).__name__}: {error}); give the "
            "outputs of a whole run"
        )
        raise ContractError(msg) from error

    # A run by hand has no receipt: its date and machine are what the result says of them.
    receipt = str(ctx.inputs.entries[name].get("receipt", NONE))
    date, machine = "not recorded", result.environment["platform"]
    if (folder / "receipt.json").is_file():
        details = json.loads((folder / "receipt.json").read_text("utf-8"))["predicate"]
        date = details["runDetails"]["metadata"]["finishedOn"]
        machine = _machine(details["runDetails"]["byproducts"], machine)
    scores = []
    for prediction in read_predictions(plan, [name]):
        scores.append(score_prediction(prediction, result.measurements))
    page = ctx.config["pages"].get(name, "")
    return Feature(
        id=name,
        phase=phase,
        result=result,
        report=report,
        receipt=receipt,
        date=date,
        machine=machine,
        folder=folder,
        figures=figures,
        scores=tuple(scores),
        page=page if page and (folder / page).is_file() else "",
    )


def _machine(byproducts: list[Mapping[str, Any]], platform: str) -> str:
    """Return the machine of a receipt in words; the platform, where it names none."""
    for byproduct in byproducts:
        if byproduct["name"] == "host":
            host = byproduct["content"]
            memory = host["memoryBytes"] / 1024**3
            return f"{host['system']}, {host['cpus']} CPUs, {memory:.1f} GiB"
    return platform


def _figure(feature: str, folder: Path, name: str) -> FigureFile:
    """Return the smaller of a figure's two files: both are crisp, one is enough."""
    files = [folder / "figures" / f"{name}.{suffix}" for suffix in ("svg", "png")]
    file = min(files, key=lambda path: path.stat().st_size)
    width, height = _svg_size(file) if file.suffix == ".svg" else _png_size(file)
    return FigureFile(
        name=name,
        source=file,
        target=f"figures/{feature}/{file.name}",
        width=width,
        height=height,
    )


def _svg_size(file: Path) -> tuple[int, int]:
    """Return width and height of a view box, in its units."""
    box = ET.parse(file).getroot().attrib["viewBox"].split()
    return round(float(box[2])), round(float(box[3]))


def _png_size(file: Path) -> tuple[int, int]:
    """Return width and height in pixels; the header is the first chunk (ISO/IEC 15948, 11.2.2)."""
    with file.open("rb") as stream:
        width, height = struct.unpack(">II", stream.read(24)[16:])
    return width, height


def read_questions(text: str) -> tuple[Question, ...]:
    """Return the questions of the log, in order."""
    questions: list[dict[str, str]] = []
    section = ""
    is_inside = False  # below the heading of a question
    for line in text.splitlines():
        heading, field = HEADING.match(line), FIELD.match(line)
        if heading:
            questions.append({"id": heading[1], "text": heading[2], "section": section})
            is_inside = True
        elif line.startswith("#"):
            section = line.lstrip("# ").strip()
            is_inside = False
        elif is_inside and field:
            questions[-1][field[1]] = field[2]
    return tuple(
        Question(
            id=fields["id"],
            section=fields["section"],
            text=fields["text"],
            status=fields.get("status", ""),
            why=fields.get("why", ""),
            experiments=tuple(
                name.strip() for name in fields.get("experiments", "").split(",") if name.strip()
            ),
        )
        for fields in questions
    )


def _file_of(path: Path, name: str) -> Path:
    """Return the file: an input is the file itself or the folder with it."""
    return path / name if path.is_dir() else path
