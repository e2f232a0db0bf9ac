"""How the plan is located, read and checked: every problem at once, each with its location.

A problem reads `phases[0].features[1].seed: got -1; expected …`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from phases.base import strict_json
from phases.base.regular_file import path_problem, read_regular
from phases.base.text import line_problem, printable
from phases.errors import InvalidPlanError
from phases.plan.schema import CACHE_PREFIX, MAX_BYTES, Feature, Gate, Input, Phase, Plan

MAX_DEPTH = 32  # nested arrays and objects of a plan
MAX_SHOWN = 80  # characters of a value in a problem

_RESERVED = re.compile(
    r"PYTEST_.*|PYTHON.*|LD_.*|DYLD_.*|GIT_.*|PHASES_.*|HOME|PATH|TMPDIR|BASH_ENV|ENV"
)
"""Variables by which a plan would reach into the runner, its gates or their libraries."""
_GATE_PATH = re.compile(r"gates/(\w+/)*test_\w+\.py")

MAX_PART = 200
"""Bytes of a name in a path that the runner writes: file systems allow 255, and it adds some."""
_RUNNERS_FOLDERS = ("prd", "gates", ".git", ".phases", "progress.txt")
"""What is the runner's at the top of the repository, or git's."""
_GITS_NAMES = re.compile(r"(?i)\.git|git~1|\.git(attributes|ignore|modules)")
"""Names that mean something to git in every folder, the short name that Windows gives included."""
_RUNNERS_IDS = re.compile(
    r"(?i)phase-\d+(-setup)?|attempts|runner\.log(\.\d+)?|approval|defaults|phase|results|exit"
)
"""Folders of phases and attempts, the debug log, parts of a plan lock: no feature's ids."""
_RUNNERS_MATERIALS = re.compile(r"git|runner|code|`.*|[^/]*:.*")
"""Names that receipts and plan locks give to other things than a config."""
_ENTRY_PARTS = ("### ", "- chain prev=")
"""What an entry of progress.txt begins and ends with: its header has neither."""


#### reading


def find_plan(root: Path) -> Path:
    """Return the one JSON file in `prd/`; InvalidPlanError if there is none or more than one."""
    paths = sorted((root / "prd").glob("*.json"))
    if len(paths) != 1:
        names = ", ".join(path.name for path in paths) or "no *.json file"
        message = f"got {printable(names)}; expected exactly one *.json file: the plan"
        raise InvalidPlanError("prd/", [message])
    # Receipts and records name it.
    problem = line_problem(paths[0].name)
    if problem:
        raise InvalidPlanError("prd/", [f"got {printable(paths[0].name)!r}; {problem}"])
    return paths[0]


def load_plan(root: Path) -> Plan:
    """Read and check the plan of the repository at `root`.

    Raises:
        InvalidPlanError: with every problem, each as `location: got …; expected …`.
    """
    path = find_plan(root)
    name = path.relative_to(root).as_posix()
    # 1. The document alone.
    problem = path_problem(path)
    if problem:
        raise InvalidPlanError(name, [problem])
    try:
        plan = parse_plan(read_regular(path))
    except ValidationError as error:
        raise InvalidPlanError(name, schema_problems(error)) from None
    except strict_json.StrictJsonError as error:
        raise InvalidPlanError(name, [str(error)]) from None

    # 2. What its parts say of each other, and what they refer to.
    problems = list(_plan_problems(plan))
    try:
        problems += _file_problems(plan, root)
    except OSError as error:  # a name that is too long for the file system
        problems.append(f"{printable(str(error.filename))}: {error.strerror}")
    if problems:
        raise InvalidPlanError(name, problems)
    return plan


def parse_plan(data: bytes) -> Plan:
    """Parse strict JSON and apply the schema; what the plan refers to is not checked.

    Raises:
        StrictJsonError: not strict JSON.
        ValidationError: not the schema.
    """
    # pydantic's own parser takes duplicate keys, so the text is checked before.
    strict_json.loads(data, max_bytes=MAX_BYTES, max_depth=MAX_DEPTH)
    return Plan.model_validate_json(data)


def module_file(root: Path, module: str) -> Path | None:
    """Return the file that `python -m module` runs, without importing anything; None if none."""
    base = root.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__main__.py"):
        if path.is_file():
            return path
    return None


def schema_problems(error: ValidationError) -> list[str]:
    """Return all of pydantic's errors as problems."""
    problems = []
    for item in error.errors():
        # Of a list whose items are all invalid pydantic says that it is too short as well.
        if item["type"] != "too_short" or not item["input"]:
            problems.append(_schema_problem(item))
    return problems


def _schema_problem(error: Any) -> str:
    """Return one of pydantic's errors as a problem."""
    location = ""
    for part in error["loc"]:
        if isinstance(part, int):
            location += f"[{part}]"
        else:
            location += f".{printable(part)}"
    location = location.removeprefix(".") or "the document"
    value = repr(error["input"])
    if len(value) > MAX_SHOWN:
        value = value[: MAX_SHOWN - 1] + "…"
    message = error["msg"].removeprefix("Value error, ")
    return f"{location}: got {value}; {message}"


#### problems inside the document: ids, order, needs, inputs, outputs


def _plan_problems(plan: Plan) -> Iterator[str]:
    # 1. Names that must be unique, and names that are taken.
    yield from _project_problems(plan.project)
    yield from _results_problems(plan)
    yield from _publish_problems(plan)
    yield from _duplicates("inputs", [item.name for item in plan.inputs])
    for name in plan.defaults.env:
        if _RESERVED.fullmatch(name):
            yield (
                f"defaults.env: got {name}; expected none that decides what a gate runs or reads "
                "(docs/prd-format.md); an experiment's own command may set it"
            )
    feature_ids: list[str] = []
    for phase in plan.phases:
        feature_ids += [feature.id for feature in phase.features]
    yield from _duplicates("features", feature_ids)
    yield from _case_problems("features", feature_ids)

    # 2. The order of phases.
    for index, phase in enumerate(plan.phases):
        if phase.id != index + 1:
            yield (
                f"phases[{index}].id: got {phase.id}; expected {index + 1}: "
                "phases are numbered 1, 2, 3 …"
            )

    # 3. Each feature; it may need features of its own phase and of earlier ones.
    inputs = {item.name for item in plan.inputs}
    allowed_needs: set[str] = set()
    for index, phase in enumerate(plan.phases):
        location = f"phases[{index}]"
        allowed_needs |= {feature.id for feature in phase.features}
        for number, feature in enumerate(phase.features):
            feature_location = f"{location}.features[{number}]"
            yield from _feature_problems(feature_location, feature, inputs, allowed_needs)
        yield from _circular_needs(location, phase)


def _feature_problems(
    location: str, feature: Feature, inputs: set[str], allowed_needs: set[str]
) -> Iterator[str]:
    """Yield problems of one feature.

    Args:
        location: where it is in the document.
        feature: the feature.
        inputs: names of the plan's inputs.
        allowed_needs: ids of the features that it may need.
    """
    if _RUNNERS_IDS.fullmatch(feature.id):
        yield f"{location}.id: got {feature.id!r}; expected an id that the runner does not use"
    for name in feature.inputs:
        if name not in inputs:
            names = ", ".join(sorted(inputs)) or "none"
            yield f"{location}.inputs: got {name!r}; expected one of the plan's inputs: {names}"
    for need in feature.needs:
        if need not in allowed_needs:
            yield f"{location}.needs: got {need!r}; expected a feature of this or an earlier phase"
    prediction_ids = [prediction.id for prediction in feature.predictions]
    yield from _duplicates(f"{location}.predictions", prediction_ids)
    for pattern in feature.outputs:
        yield from _path_problems(f"{location}.outputs", pattern)
    for exemption in feature.exempt:
        yield from _path_problems(f"{location}.exempt", exemption.files)
    yield from _published_path_problems(location, feature)


def _published_path_problems(location: str, feature: Feature) -> Iterator[str]:
    for output, target in feature.publish.items():
        if {"*", "?"} & set(output) or not _is_exact(output):
            yield f"{location}.publish: got {output!r}; expected the path of one output"
        if not target.startswith("docs/"):
            yield f"{location}.publish: got {target!r}; expected a path below docs/"
        yield from _written_path_problems(f"{location}.publish", target)


def _project_problems(project: str) -> Iterator[str]:
    for part in _ENTRY_PARTS:
        if part in project:
            yield f"project: got {project!r}; expected a name without {part!r}: an entry has it"


def _results_problems(plan: Plan) -> Iterator[str]:
    """Yield why a folder cannot be the runner's own."""
    # 1. A path that git, plan and ledger spell alike, and none of the runner's other files.
    results = plan.results
    yield from _written_path_problems("results", results)
    if results.split("/")[0].casefold() in _RUNNERS_FOLDERS:
        names = ", ".join(_RUNNERS_FOLDERS)
        yield f"results: got {results!r}; expected a folder outside {names}"

    # 2. What runs is not inside: results are no code, and outputs of an attempt replace the last.
    for phase in plan.phases:
        for feature in phase.features:
            module = (feature.module or "").replace(".", "/")
            for path in filter(None, (module, feature.config)):
                if f"{PurePosixPath(path)}/".startswith(f"{results}/"):
                    yield f"results: got {results!r}; {path} of {feature.id} is inside"


def _publish_problems(plan: Plan) -> Iterator[str]:
    """Yield published paths that are the runner's, or that two outputs would share."""
    targets: list[str] = []
    for phase in plan.phases:
        for feature in phase.features:
            targets += feature.publish.values()
    for target in targets:
        if f"{target}/".casefold().startswith(f"{plan.results}/".casefold()):
            yield f"publish: got {target!r}; expected a path outside {plan.results}/, the results"
    yield from _duplicates("publish", targets)
    yield from _case_problems("publish", targets)
    folders = {str(parent) for target in targets for parent in PurePosixPath(target).parents}
    for target in sorted(folders & set(targets)):
        yield f"publish: got {target!r} as a file and as a folder; expected one of them"


def _case_problems(location: str, names: list[str]) -> Iterator[str]:
    """Yield names that differ only by case: on many file systems they are one file."""
    spellings: dict[str, str] = {}
    for name in dict.fromkeys(names):
        other = spellings.setdefault(name.casefold(), name)
        if other != name:
            yield f"{location}: got {other!r} and {name!r}; expected names that differ by more"


def _duplicates(location: str, names: list[str]) -> Iterator[str]:
    for name in sorted(set(names)):
        count = names.count(name)
        if count > 1:
            yield f"{location}: got {name!r} {count} times; expected each id once"


def _circular_needs(location: str, phase: Phase) -> Iterator[str]:
    """Yield the features of one phase that wait for each other in a circle and can never run."""
    # Needs outside the phase are fulfilled before it opens.
    ids = {feature.id for feature in phase.features}
    open_needs = {feature.id: ids & set(feature.needs) for feature in phase.features}
    while True:
        runnable_ids = [name for name, needs in open_needs.items() if not needs]
        if not runnable_ids:
            break
        for name in runnable_ids:
            del open_needs[name]
        for needs in open_needs.values():
            needs -= set(runnable_ids)
    if open_needs:
        yield f"{location}.features: needs form a circle among {', '.join(sorted(open_needs))}"


def _path_problems(location: str, path: str) -> Iterator[str]:
    parts = PurePosixPath(path).parts
    is_outside = path.startswith(("/", "~")) or "\\" in path or ".." in parts
    if is_outside or not parts or parts[0].casefold() == ".git":
        yield (
            f"{location}: got {path!r}; expected a relative path inside the repository, "
            "without '..'"
        )


def _written_path_problems(location: str, path: str) -> Iterator[str]:
    """Yield why the runner cannot write and commit a path."""
    problems = list(_path_problems(location, path))
    yield from problems
    if problems:
        return
    if not _is_exact(path):
        yield f"{location}: got {path!r}; expected {PurePosixPath(path).as_posix()!r}"
    for part in path.split("/"):
        if _GITS_NAMES.fullmatch(part):
            yield f"{location}: got {path!r}; expected a path without {part!r}, which is git's"
        if part != part.strip():
            yield f"{location}: got {path!r}; expected no blank at the ends of {part!r}"
        if len(part.encode()) > MAX_PART:
            yield f"{location}: got {path!r}; expected at most {MAX_PART} bytes between slashes"


def _is_exact(path: str) -> bool:
    """Return whether a path is spelt as git spells it: no `.`, no empty part."""
    return PurePosixPath(path).as_posix() == path


#### problems with what the document refers to


def _file_problems(plan: Plan, root: Path) -> Iterator[str]:
    results = root / plan.results
    for path in (results, *results.parents):
        if path.exists() and not path.is_dir():
            yield f"results: got {plan.results!r}; {path.name} is a file; expected a folder"
    for index, item in enumerate(plan.inputs):
        yield from _input_problems(f"inputs[{index}]", item, root)
    for number, phase in enumerate(plan.phases):
        location = f"phases[{number}]"
        for position, gate in enumerate(phase.entry):
            yield from _gate_problems(f"{location}.entry[{position}]", gate, root)
        for position, gate in enumerate(phase.exit):
            yield from _gate_problems(f"{location}.exit[{position}]", gate, root)
        for position, feature in enumerate(phase.features):
            yield from _feature_file_problems(f"{location}.features[{position}]", feature, root)


def _feature_file_problems(location: str, feature: Feature, root: Path) -> Iterator[str]:
    if feature.module and module_file(root, feature.module) is None:
        file = feature.module.replace(".", "/") + ".py"
        yield f"{location}.module: got {feature.module!r}; expected a module with the file {file}"
    if feature.config:
        if _RUNNERS_MATERIALS.fullmatch(feature.config):
            yield f"{location}.config: got {feature.config!r}; expected a name like lab/count.yaml"
        yield from _missing_file(f"{location}.config", feature.config, root)
    yield from _gate_problems(f"{location}.gate", feature.gate, root)
    for target in feature.publish.values():
        if (root / target).is_dir():
            yield f"{location}.publish: got {target!r}, which is a folder; expected a file"


def _input_problems(location: str, item: Input, root: Path) -> Iterator[str]:
    if item.is_cached:
        if not item.sha256:
            yield f"{location}.sha256: got none; expected the digests of the input's files"
        yield from _path_problems(f"{location}.path", item.path.removeprefix(CACHE_PREFIX))
        return
    yield from _path_problems(f"{location}.path", item.path)
    if item.sha256:
        yield (
            f"{location}.sha256: got digests for a repository path; expected none: "
            "git names its content"
        )
    if not (root / item.path).exists():
        yield f"{location}.path: got {item.path!r}; no such file or folder in the repository"


def _gate_problems(location: str, gate: Gate, root: Path) -> Iterator[str]:
    if gate.pytest is None:
        return
    if not _GATE_PATH.fullmatch(gate.pytest):
        yield f"{location}.pytest: got {gate.pytest!r}; expected gates/test_NAME.py"
        return
    yield from _missing_file(f"{location}.pytest", gate.pytest, root)


def _missing_file(location: str, path: str, root: Path) -> Iterator[str]:
    problems = list(_path_problems(location, path))
    yield from problems
    if not problems and not (root / path).is_file():
        yield f"{location}: got {path!r}; no such file in the repository"
