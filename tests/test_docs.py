"""The documents say what the code does: links, commands, exit codes, finding codes, fields, and examples that hold."""

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
from phases.execution import collect
from phases.judge import mutants, verdict
from phases.plan import schema
from phases.plan.load import load_plan, parse_plan
from phases.record import approvals, receipt
from phases.record.ledger import KINDS, Ledger, chain_problems, new_header, parse_ledger
from phases.record.project import Snapshot
from phases.record.reconcile import Reconciled
from phases.record.state import fold_state
from phases.views.plan import plan_text

ROOT = Path(__file__).resolve().parents[1]
FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
TEMPLATE = re.compile(r"\{\{[^}]*\}\}")


def documents() -> list[Path]:
    """Every Markdown file that is or could be committed, without the results of runs."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", "*.md"]
    names = (
        subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        .stdout.decode()
        .split("\0")
    )
    return [
        ROOT / name
        for name in names
        if name and not name.startswith("lab/results/") and (ROOT / name).exists()
    ]


DOCUMENTS = documents()
every_document = pytest.mark.parametrize(
    "path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix()
)


def doc(name: str) -> str:
    return (ROOT / "docs" / name).read_text("utf-8")


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return FENCED.sub("", text)


def section(text: str, heading: str) -> str:
    """What stands between a heading and the next one of its level or above."""
    level = heading.split(" ", maxsplit=1)[0]
    found = re.search(
        rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.MULTILINE | re.DOTALL
    )
    assert found, f"no heading {heading!r}"
    return found[1]


def first_cells(table: str) -> set[str]:
    """Every `code` in the first cell of a table's rows."""
    rows = re.findall(r"^\|([^|]*)\|", table, re.MULTILINE)
    return {word for cell in rows for word in re.findall(r"`([^`]+)`", cell)}


def block(text: str, language: str) -> str:
    found = [match[3] for match in FENCED.finditer(text) if match[2] == language]
    assert len(found) == 1
    return str(found[0])


#### links, paths, leftovers


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    kept = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower())
    return kept.replace(" ", "-")


def broken_links(path: Path) -> Iterator[str]:
    for target in LINK.findall(TEMPLATE.sub("", prose(path.read_text("utf-8")))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists():
            yield f"{target}: no such file"
        elif anchor and anchor not in map(
            slug, re.findall(r"^#+ (.+)$", prose(file.read_text("utf-8")), re.MULTILINE)
        ):
            yield f"{target}: no such heading"


@every_document
def test_links_lead_somewhere(path: Path) -> None:
    assert list(broken_links(path)) == []


def test_a_dead_link_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One two\n[a](page.md#one-two) [b](gone.md) [c](#three) [d](https://example.org)\n"
    )
    assert list(broken_links(page)) == ["gone.md: no such file", "#three: no such heading"]


SYSTEM = ("tmp", "dev", "bin", "usr", "etc", "proc")
ABSOLUTE = re.compile(r"(?<![\w.:/~$}>*)-])/([A-Za-z][\w.-]*)/[\w.-]")


@every_document
def test_no_path_of_one_machine(path: Path) -> None:
    text = path.read_text("utf-8")
    assert [found[0] for found in ABSOLUTE.finditer(text) if found[1] not in SYSTEM] == []
    assert not [folder for folder in (ROOT, Path(sys.prefix)) if str(folder) in text]


def test_a_path_of_one_machine_is_seen() -> None:
    text = "in /data/me/lab and `/opt/x/y`, not /tmp/first, https://a.org/b/c, <dir>/phases/lock, and/or/not"
    assert [found[0] for found in ABSOLUTE.finditer(text) if found[1] not in SYSTEM] == [
        "/data/m",
        "/opt/x",
    ]


@every_document
def test_nothing_is_left_to_fill_in(path: Path) -> None:
    assert re.findall(r"TODO-[A-Z]+", path.read_text("utf-8")) == []


#### commands


def commands() -> dict[str, click.Command]:
    return dict(cli.commands)


def options(command: click.Command) -> set[str]:
    return {name for item in command.params if isinstance(item, click.Option) for name in item.opts}


def test_every_command_is_documented_and_no_other() -> None:
    headings = set(
        re.findall(r"^### `([a-z-]+)`$", section(doc("cli.md"), "## Commands"), re.MULTILINE)
    )
    assert headings == set(commands())


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_option_is_documented_and_no_other(name: str) -> None:
    text = section(doc("cli.md"), f"### `{name}`")
    wanted = options(commands()[name])
    assert {word for word in wanted if f"`{word}" not in text} == set()
    stated = {word.split(" ")[0] for word in first_cells(text)}
    assert stated <= wanted


def test_options_of_the_program_are_documented() -> None:
    head = doc("cli.md").split("## Exit codes")[0]
    assert {word.split(" ")[0] for word in first_cells(head)} == options(cli) | {"-h", "--help"}


def mentioned(text: str) -> Iterator[tuple[str, list[str]]]:
    """Commands of the runner in code, as (name, options)."""
    code = [match[3] for match in FENCED.finditer(text)] + re.findall(r"`([^`\n]+)`", prose(text))
    for line in "\n".join(code).splitlines():
        for found in re.finditer(
            r"(?:python -m phases|(?:^|\$ |&& )toy)((?: --root \S+)?) ([a-z]+)([^#`;&|]*)", line
        ):
            yield found[2], re.findall(r"(?<= )(--?[a-z][a-z-]*)", found[3])


@every_document
def test_commands_in_documents_exist(path: Path) -> None:
    for name, used in mentioned(path.read_text("utf-8")):
        assert name in commands(), f"python -m phases {name}"
        assert set(used) <= options(commands()[name]), f"{name} {used}"


@every_document
def test_make_targets_in_documents_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    code = [match[3] for match in FENCED.finditer(text)] + re.findall(r"`([^`\n]+)`", prose(text))
    used = set(re.findall(r"^(?:\$ )?make ([a-z]+)", "\n".join(code), re.MULTILINE))
    assert used <= set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_readme_names_both_commands_and_the_way_to_approve() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert {"make next", "make test"} <= set(re.findall(r"^make \w+", text, re.MULTILINE))
    assert {"status", "plan", "run", "log", "audit", "approve", "reject"} <= {
        name for name, _ in mentioned(text)
    }


#### exit codes


def exit_codes(kind: type[errors.PhasesError]) -> set[int]:
    return {kind.exit_code}.union(*map(exit_codes, kind.__subclasses__()))


@pytest.mark.parametrize(
    "text", [doc("cli.md"), (ROOT / "AGENTS.md").read_text("utf-8")], ids=["cli.md", "AGENTS.md"]
)
def test_every_exit_code_is_documented_and_no_other(text: str) -> None:
    stated = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert stated == exit_codes(errors.PhasesError) | {0}


#### finding codes


NAMED_BY = {
    "IntegrityError",
    "Finding",
    "Problem",
    "Uncovered",
    "finding",
    "work_tree_finding",
}
ANY = "[a-z]+"


def patterns(node: ast.expr | None) -> Iterator[str]:
    """Regular expressions of the texts that an expression can be; its unknown parts are any word."""
    match node:
        case ast.Constant(value=str(text)):
            yield re.escape(text)
        case ast.JoinedStr(values=parts):
            yield "".join(re.escape(p.value) if isinstance(p, ast.Constant) else ANY for p in parts)
        case ast.IfExp(body=one, orelse=other):
            yield from patterns(one)
            yield from patterns(other)
        case ast.BinOp(left=left, op=ast.Add()):
            yield from (f"{head}.+" for head in patterns(left))


def codes(source: str) -> Iterator[str]:
    """Patterns of every finding code that a module uses."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            given = next((word.value for word in node.keywords if word.arg == "code"), None)
            if name in NAMED_BY:
                yield from patterns(given if given is not None else node.args[0])


def all_codes() -> set[str]:
    return {
        code
        for path in sorted((ROOT / "phases").rglob("*.py"))
        for code in codes(path.read_text("utf-8"))
    }


def test_every_finding_code_is_documented_and_no_other() -> None:
    stated = first_cells(section(doc("records.md"), "### Finding codes"))
    used = all_codes()
    assert len(used) > 40
    assert {code for code in used if not any(re.fullmatch(code, word) for word in stated)} == set()
    assert {word for word in stated if not any(re.fullmatch(code, word) for code in used)} == set()


def test_codes_are_found_in_every_shape() -> None:
    source = """
raise IntegrityError("a-b", "…")
raise IntegrityError(code="c-d", message="…")
Finding("e-f" if x else "g-h", "…"), verified.finding(f"{w}-i", "…"), Problem("j-" + p.code, 1, "…")
Uncovered("k-l", "…")
other("m-n")
"""
    assert set(codes(source)) == {
        r"a\-b",
        r"c\-d",
        r"e\-f",
        r"g\-h",
        r"[a-z]+\-i",
        r"j\-.+",
        r"k\-l",
    }


#### formats


def test_every_field_of_the_plan_is_documented() -> None:
    text = doc("prd-format.md")

    def fields(model: type[BaseModel]) -> set[str]:
        return {item.alias or name for name, item in model.model_fields.items()}

    for heading, model in {
        "## The document": schema.Plan, "## `approval`": schema.Approval, "## `defaults`": schema.Defaults,
        "## `inputs`": schema.Input, "## `phases`": schema.Phase, "## `features`": schema.Feature,
        "## `predictions`": schema.Prediction,
    }.items():  # fmt: skip
        assert first_cells(section(text, heading)) == fields(model), heading
    for name in (*fields(schema.Expect), *fields(schema.Gate), *schema.MUTATION_KINDS):
        assert re.search(rf"[`\"]{name}[`\"]", section(text, "## `features`")), name


def test_defaults_are_what_the_document_says() -> None:
    text = doc("prd-format.md")
    for heading, model in {
        "## The document": schema.Plan,
        "## `approval`": schema.Approval,
        "## `defaults`": schema.Defaults,
    }.items():
        for name, default in re.findall(
            r"^\| `(\w+)` \| ([^|]+) \|", section(text, heading), re.MULTILINE
        ):
            met = next(
                item for key, item in model.model_fields.items() if (item.alias or key) == name
            )
            if default in ("required", "see below", "none"):
                assert met.is_required() == (default == "required"), name
            else:
                assert default.strip("`") == plain(met.default), name


def plain(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else (
        f'"{value}"' if isinstance(value, str) else f"{value:g}")  # fmt: skip


def test_the_example_of_a_plan_is_one() -> None:
    plan = parse_plan(block(doc("prd-format.md"), "json").encode())
    assert plan.phases[0].features[0].predictions[0].comparator == ">"


def test_the_example_of_a_ledger_holds() -> None:
    data = block(doc("progress-format.md"), "progress").encode()
    ledger = parse_ledger(data)
    assert [entry.kind for entry in ledger.entries] == ["GENESIS", "LOCKED", "STARTED", "VERIFIED"]
    assert chain_problems(ledger) == ()
    assert chain_problems(parse_ledger(data.replace(b"total 14", b"total 15"))) != ()


def test_every_kind_of_entry_is_documented_and_no_other() -> None:
    rows = re.findall(
        r"^\| `([A-Z]+)` \|", section(doc("progress-format.md"), "## Kinds"), re.MULTILINE
    )
    assert rows == list(KINDS)


def test_types_trailers_and_names_of_records_are_documented() -> None:
    text = doc("records.md")
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "phases").rglob("*.py"))
    trailers = set(re.findall(r'"(Phases-[A-Z][a-z]+)"', sources))
    assert len(trailers) >= 7
    for word in {
        *trailers,
        *set(re.findall(r'"(phases/[a-z-]+/v\d)"', sources)) - {receipt.BUILD_TYPE},
    }:
        assert word in text, word
    for url in (receipt.STATEMENT, receipt.PROVENANCE, verdict.TEST_RESULT, approvals.FOLDER):
        assert url in text, url


def test_every_variable_is_documented() -> None:
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "phases").rglob("*.py"))
    used = set(re.findall(r"\bPHASES_[A-Z_]*[A-Z]\b", sources))
    assert "PHASES_OUT" in used
    assert {
        name for name in used if name not in doc("experiments.md") + doc("gates.md") + doc("cli.md")
    } == set()


def test_kinds_of_files_are_documented() -> None:
    assert [
        suffix
        for suffix in collect.SUFFIXES
        if suffix not in section(doc("experiments.md"), "## What it writes")
    ] == []
    rows = section(doc("gates.md"), "## The proof that it can fail")
    assert first_cells(rows) == {"empty", *schema.MUTATION_KINDS}
    assert [suffix for suffix in mutants.TEXT_SUFFIXES if f"`{suffix}`" not in rows] == []


def test_the_walkthrough_shows_the_plan_that_there_is() -> None:
    plan = load_plan(ROOT)
    fresh = Snapshot(
        Reconciled(Ledger(new_header(plan.project), ())),
        fold_state(plan, (), ()),
    )
    shown = plan_text(plan, fresh)
    assert block(doc("walkthrough.md"), "plan").strip() == shown.strip()
