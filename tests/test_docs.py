"""Documents state what the code does.

Links, commands, options, exit codes, finding codes, fields, lines of progress.txt and examples are
compared with the code. Examples of formats must be valid.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic import BaseModel

from phases import errors
from phases.cli import cli
from phases.execution.collect import SUFFIXES
from phases.judge.mutants import KINDS
from phases.judge.mutation import MutantKind
from phases.plan.load import load_plan, parse_plan
from phases.plan.schema import (
    Approval,
    Defaults,
    Exemption,
    Expect,
    Feature,
    Gate,
    Input,
    Phase,
    Plan,
    Prediction,
)
from phases.record import entries
from phases.record.decision_check import APPROVALS
from phases.record.decision_record import DecisionRecord
from phases.record.evidence import Evidence
from phases.record.ledger import EntryKind, Ledger, chain_problems, new_header, parse_ledger
from phases.record.project import Snapshot
from phases.record.receipt import BUILD_TYPE, PROVENANCE, Receipt
from phases.record.reconcile import Reconciled
from phases.record.review_request import ReviewRequest
from phases.record.state import fold_state
from phases.record.statement import STATEMENT, Document, DocumentError
from phases.record.verdict import TEST_RESULT, GateReport, Verdict
from phases.views.plan import plan_text

ROOT = Path(__file__).resolve().parents[1]
FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
TEMPLATE = re.compile(r"\{\{[^}]*\}\}")


def documents() -> list[Path]:
    """Return every Markdown file that is or could be committed, without the results of runs."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", "*.md"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    paths = []
    for name in listing.split("\0"):
        if name and not name.startswith("lab/results/") and (ROOT / name).exists():
            paths.append(ROOT / name)
    return paths


DOCUMENTS = documents()
every_document = pytest.mark.parametrize(
    "path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix()
)


def doc(name: str) -> str:
    """Return the text of a file in docs/."""
    return (ROOT / "docs" / name).read_text("utf-8")


def prose(text: str) -> str:
    """Return the text without its fenced blocks."""
    return FENCED.sub("", text)


def code_lines(text: str) -> list[str]:
    """Return every line of fenced blocks, and every code span of the prose."""
    lines = re.findall(r"`([^`\n]+)`", prose(text))
    for block_match in FENCED.finditer(text):
        lines += block_match[3].splitlines()
    return lines


def section(text: str, heading: str) -> str:
    """Return the text between a heading and the next one of its level or above."""
    level = len(heading.split(" ", maxsplit=1)[0])
    pattern = rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{level}}} |\Z)"
    match = re.search(pattern, text, re.MULTILINE | re.DOTALL)
    assert match, f"no heading {heading!r}"
    return match[1]


def first_cells(table: str) -> set[str]:
    """Return every `code` in the first cell of a table's rows."""
    codes: set[str] = set()
    for cell in re.findall(r"^\|([^|]*)\|", table, re.MULTILINE):
        codes.update(re.findall(r"`([^`]+)`", cell))
    return codes


def block(text: str, language: str) -> str:
    """Return the only fenced block in this language."""
    blocks = [match[3] for match in FENCED.finditer(text) if match[2] == language]
    assert len(blocks) == 1
    return str(blocks[0])


def runner_sources() -> str:
    """Return the text of all modules of the runner."""
    return "".join(path.read_text("utf-8") for path in sorted((ROOT / "phases").rglob("*.py")))


#### links, paths, leftovers


def slug(heading: str) -> str:
    """Return the anchor that GitHub makes of a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    """Return the anchors of all headings of a document."""
    headings = re.findall(r"^#+ (.+)$", prose(path.read_text("utf-8")), re.MULTILINE)
    return {slug(heading) for heading in headings}


def broken_links(path: Path) -> Iterator[str]:
    """Yield the links of a document that lead to no file or to no heading."""
    for target in LINK.findall(TEMPLATE.sub("", prose(path.read_text("utf-8")))):
        if re.match(r"[a-z]+:", target):
            continue  # an address of another site
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists():
            yield f"{target}: no such file"
        elif anchor and anchor not in anchors(file):
            yield f"{target}: no such heading"


@every_document
def test_links_lead_somewhere(path: Path) -> None:
    assert list(broken_links(path)) == []


def test_control_a_dead_link_is_reported(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    links = "[a](page.md#one-two) [b](gone.md) [c](#three) [d](https://example.org)"
    page.write_text(f"# One two\n{links}\n")
    assert list(broken_links(page)) == ["gone.md: no such file", "#three: no such heading"]


SYSTEM_FOLDERS = ("tmp", "dev", "bin", "usr", "etc", "proc")
ABSOLUTE = re.compile(r"(?<![\w.:/~$}>*)-])/([A-Za-z][\w.-]*)/[\w.-]")


def machine_paths(text: str) -> list[str]:
    """Return the beginnings of absolute paths outside the folders that every system has."""
    return [match[0] for match in ABSOLUTE.finditer(text) if match[1] not in SYSTEM_FOLDERS]


@every_document
def test_no_path_of_one_machine(path: Path) -> None:
    text = path.read_text("utf-8")
    assert machine_paths(text) == []
    assert not [folder for folder in (ROOT, Path(sys.prefix)) if str(folder) in text]


def test_control_a_path_of_one_machine_is_reported() -> None:
    machine = "in /data/me/lab and `/opt/x/y`"
    others = "not /tmp/first, https://a.org/b/c, <dir>/phases/lock, and/or/not"
    assert machine_paths(f"{machine}, {others}") == ["/data/m", "/opt/x"]


@every_document
def test_nothing_is_left_to_fill_in(path: Path) -> None:
    assert re.findall(r"TODO-[A-Z]+", path.read_text("utf-8")) == []


#### commands


def commands() -> dict[str, click.Command]:
    """Return the runner's commands by name."""
    return dict(cli.commands)


def options(command: click.Command) -> set[str]:
    """Return every spelling of a command's options."""
    spellings: set[str] = set()
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            spellings.update(parameter.opts)
    return spellings


def test_every_command_is_documented_and_no_other() -> None:
    text = section(doc("cli.md"), "## Commands")
    headings = set(re.findall(r"^### `([a-z-]+)`$", text, re.MULTILINE))
    assert headings == set(commands())


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_option_is_documented_and_no_other(name: str) -> None:
    text = section(doc("cli.md"), f"### `{name}`")
    expected = options(commands()[name])
    assert [option for option in sorted(expected) if f"`{option}" not in text] == []
    documented = {cell.split(" ")[0] for cell in first_cells(text)}
    assert documented <= expected


def test_options_of_the_program_are_documented() -> None:
    head = doc("cli.md").split("## Exit codes")[0]
    documented = {cell.split(" ")[0] for cell in first_cells(head)}
    assert documented == options(cli) | {"-h", "--help"}


COMMAND = re.compile(r"(?:python -m phases|(?:^|\$ |&& )toy)((?: --root \S+)?) ([a-z]+)([^#`;&|]*)")


def mentioned_commands(text: str) -> Iterator[tuple[str, set[str]]]:
    """Yield the runner's commands in code: name and options."""
    for line in code_lines(text):
        for match in COMMAND.finditer(line):
            yield match[2], set(re.findall(r"(?<= )(--?[a-z][a-z-]*)", match[3]))


@every_document
def test_commands_in_documents_exist(path: Path) -> None:
    for name, used_options in mentioned_commands(path.read_text("utf-8")):
        assert name in commands(), f"python -m phases {name}"
        assert used_options <= options(commands()[name]), f"{name} {used_options}"


@every_document
def test_make_targets_in_documents_exist(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    code = "\n".join(code_lines(path.read_text("utf-8")))
    used = set(re.findall(r"^(?:\$ )?make ([a-z-]+)", code, re.MULTILINE))
    assert used <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


def test_readme_names_both_make_commands_and_how_to_approve() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    targets = set(re.findall(r"^make \w+", text, re.MULTILINE))
    assert {"make next", "make test"} <= targets
    names = {name for name, _ in mentioned_commands(text)}
    assert {"status", "plan", "run", "log", "audit", "approve", "reject"} <= names


#### exit codes


def exit_codes(error: type[errors.PhasesError]) -> set[int]:
    """Return the exit codes of an error and of all its subclasses."""
    codes = {error.exit_code}
    for subclass in error.__subclasses__():
        codes |= exit_codes(subclass)
    return codes


@pytest.mark.parametrize("name", ["docs/cli.md", "AGENTS.md"])
def test_every_exit_code_is_documented_and_no_other(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert documented == exit_codes(errors.PhasesError) | {0}


#### finding codes


NAMED_BY = {"IntegrityError", "Finding", "Uncovered", "Problem", "finding", "_work_tree_finding"}
"""Functions and classes that get a finding code, as `code` or as their first code argument."""
ANY_WORD = "[a-z]+"
CODE_POSITION = {"_work_tree_finding": 1}
"""Position of the code among the arguments, where it is not the first."""


def text_patterns(node: ast.expr | None) -> Iterator[str]:
    """Yield regular expressions of the texts that an expression can be.

    A part that is not known is any word.
    """
    match node:
        case ast.Constant(value=str(text)):
            yield re.escape(text)
        case ast.JoinedStr(values=parts):
            pattern = ""
            for part in parts:
                if isinstance(part, ast.Constant):
                    pattern += re.escape(str(part.value))
                else:
                    pattern += ANY_WORD
            yield pattern
        case ast.IfExp(body=body, orelse=orelse):
            yield from text_patterns(body)
            yield from text_patterns(orelse)
        case ast.BinOp(left=left, op=ast.Add()):
            for head in text_patterns(left):
                yield f"{head}.+"


def code_patterns(source: str) -> Iterator[str]:
    """Yield patterns of every finding code that a module uses."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if name in NAMED_BY:
                yield from text_patterns(code_argument(node, name))
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "code":
                    yield from text_patterns(value)


def code_argument(call: ast.Call, name: str) -> ast.expr | None:
    """Return the argument of a call that is the finding code; None if it has no such argument."""
    for keyword in call.keywords:
        if keyword.arg == "code":
            return keyword.value
    position = CODE_POSITION.get(name, 0)
    if position < len(call.args):
        return call.args[position]
    return None


def test_every_finding_code_is_documented_and_no_other() -> None:
    documented = first_cells(section(doc("records.md"), "### Finding codes"))
    patterns: set[str] = set()
    for path in (ROOT / "phases").rglob("*.py"):
        patterns.update(code_patterns(path.read_text("utf-8")))
    assert len(patterns) > 40
    undocumented = [p for p in patterns if not any(re.fullmatch(p, code) for code in documented)]
    unused = [code for code in documented if not any(re.fullmatch(p, code) for p in patterns)]
    assert (undocumented, unused) == ([], [])


def test_control_codes_are_read_in_every_form() -> None:
    source = """
raise IntegrityError("a-b", "…")
raise IntegrityError(code="c-d", message="…")
Finding("e-f" if x else "g-h", "…"), verified.finding(f"{w}-i", "…")
Problem("j-" + p.code, 1, "…"), Uncovered("o-p", "…"), _work_tree_finding(verified, "q-r", "…")
u = {"code": "k-l", "message": "…"}
other("m-n")
"""
    assert set(code_patterns(source)) == {
        r"a\-b",
        r"c\-d",
        r"e\-f",
        r"g\-h",
        r"[a-z]+\-i",
        r"j\-.+",
        r"o\-p",
        r"q\-r",
        r"k\-l",
    }


#### the plan


def fields(model: type[BaseModel]) -> dict[str, Any]:
    """Return name in the document -> field of a model."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def test_every_field_of_the_plan_is_documented() -> None:
    text = doc("prd-format.md")
    models: dict[str, type[BaseModel]] = {
        "## The document": Plan,
        "## `approval`": Approval,
        "## `defaults`": Defaults,
        "## `inputs`": Input,
        "## `phases`": Phase,
        "## `features`": Feature,
        "## `predictions`": Prediction,
    }
    for heading, model in models.items():
        assert first_cells(section(text, heading)) == set(fields(model)), heading
    for name in (*fields(Expect), *fields(Gate), *fields(Exemption)):
        assert re.search(rf"[`\"]{name}[`\"]", section(text, "## `features`")), name


def test_defaults_are_what_the_document_says() -> None:
    text = doc("prd-format.md")
    models: dict[str, type[BaseModel]] = {
        "## The document": Plan,
        "## `approval`": Approval,
        "## `defaults`": Defaults,
    }
    for heading, model in models.items():
        rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section(text, heading), re.MULTILINE)
        for name, documented in rows:
            field = fields(model)[name]
            if documented in ("required", "see below", "none"):
                assert field.is_required() == (documented == "required"), name
            else:
                assert documented.strip("`") == as_json(field.default), name


def as_json(value: Any) -> str:
    """Return a default as the plan writes it: 3600.0 is 3600."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    return f"{value:g}"


def test_the_example_of_a_plan_is_valid() -> None:
    plan = parse_plan(block(doc("prd-format.md"), "json").encode())
    assert plan.phases[0].features[0].predictions[0].comparator == ">"


def test_the_walkthrough_shows_the_plan_of_this_repository() -> None:
    plan = load_plan(ROOT)
    reconciled = Reconciled(Ledger(new_header(plan.project), ()))
    snapshot = Snapshot(reconciled, fold_state(plan, (), Evidence()), Evidence())
    assert block(doc("walkthrough.md"), "plan").strip() == plan_text(plan, snapshot).strip()


#### progress.txt


def line_formats() -> dict[str, entries.LineFormat]:
    """Return template -> format of every line that an entry may have."""
    formats = {}
    for value in vars(entries).values():
        if isinstance(value, entries.LineFormat):
            formats[value._template] = value
    return formats


def test_the_example_of_a_ledger_is_valid() -> None:
    data = block(doc("progress-format.md"), "progress").encode()
    ledger = parse_ledger(data)
    assert [entry.kind for entry in ledger.entries] == ["GENESIS", "LOCKED", "STARTED", "VERIFIED"]
    assert chain_problems(ledger) == ()
    edited = parse_ledger(data.replace(b"total 14", b"total 15"))
    assert [problem.code for problem in chain_problems(edited)] == ["chain-self"]


def test_every_line_of_the_example_has_exactly_one_format() -> None:
    ledger = parse_ledger(block(doc("progress-format.md"), "progress").encode())
    formats = line_formats().values()
    for entry in ledger.entries:
        for line in entry.lines:
            assert [item.parse(line) is not None for item in formats].count(True) == 1, line


def test_every_kind_of_entry_is_documented_and_no_other() -> None:
    text = section(doc("progress-format.md"), "## Kinds")
    assert re.findall(r"^\| `([A-Z]+)` \|", text, re.MULTILINE) == list(EntryKind)


def test_every_line_of_an_entry_is_documented_and_no_other() -> None:
    formats = line_formats()
    assert len(formats) > 20
    assert first_cells(section(doc("progress-format.md"), "## Lines")) == set(formats)


#### documents of the record


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("## Receipt", Receipt),
        ("## Verdict", Verdict),
        ("## Review request", ReviewRequest),
        ("## Decision", DecisionRecord),
    ],
    ids=["receipt", "verdict", "review request", "decision"],
)
def test_the_example_of_a_document_is_valid(heading: str, model: type[Document]) -> None:
    example = block(section(doc("records.md"), heading), "json")
    assert model.decode(example.encode()).encode()
    with pytest.raises(DocumentError):
        model.decode(example.replace('"subject"', '"subjects"', 1).encode())


def test_every_field_of_a_gates_report_is_documented_and_no_other() -> None:
    table = section(doc("records.md"), "## Verdict").split("\n`phases/predictions/v1`")[0]
    documented = first_cells(table) - {"phases/gate/v1"}
    assert documented == set(fields(GateReport))


def test_types_trailers_and_names_of_records_are_documented() -> None:
    text = doc("records.md")
    sources = runner_sources()
    trailers = set(re.findall(r'"(Phases-[A-Z][a-z]+)"', sources))
    assert len(trailers) >= 7
    types = set(re.findall(r'"(phases/[a-z-]+/v\d)"', sources)) - {BUILD_TYPE}
    assert len(types) >= 4
    for word in (*trailers, *types, STATEMENT, PROVENANCE, TEST_RESULT, APPROVALS):
        assert word in text, word


#### environment and files


def test_every_variable_is_documented() -> None:
    text = doc("experiments.md") + doc("gates.md") + doc("cli.md")
    variables = set(re.findall(r"\bPHASES_[A-Z_]*[A-Z]\b", runner_sources()))
    assert "PHASES_OUT" in variables
    assert [name for name in sorted(variables) if name not in text] == []


def test_kinds_of_files_are_documented() -> None:
    outputs = section(doc("experiments.md"), "## Outputs")
    assert [suffix for suffix in SUFFIXES if suffix not in outputs] == []
    mutants = section(doc("gates.md"), "## Mutants")
    assert first_cells(mutants) >= set(MutantKind)
    assert [suffix for suffix in KINDS if f"`{suffix}`" not in mutants] == []


#### the threat model


def named_tests(text: str) -> list[tuple[str, str]]:
    """Return (file, function) of every test that a document names."""
    return re.findall(r"`([\w/]+\.py)::(test_\w+)`", text)


def test_every_refusal_and_finding_of_the_threat_model_names_tests_that_exist() -> None:
    # 1. Each named test is a function of that file.
    text = doc("threat-model.md")
    for file, name in named_tests(text):
        source = (ROOT / "tests/phases" / file).read_text()
        assert f"\ndef {name}(" in source, f"{file}::{name}"

    # 2. Each row of an attack has one, unless it says that it is not covered.
    rows = [line for line in text.splitlines() if line.startswith("| ") and line.count(" | ") >= 2]
    attacks = [row for row in rows if re.search(r"\b(refused|found|not covered|taken over)\b", row)]
    assert len(attacks) > 30
    for row in attacks:
        assert named_tests(row) or "not covered" in row, row
