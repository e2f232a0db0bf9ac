"""Case I-52: names of the plan that entries, commits and challenges can hold, and all others."""

from __future__ import annotations

import copy
import json
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_plan import problems
from toy import Toy, toy_plan

from phases.base.paths import Paths
from phases.base.text import line_problem
from phases.decisions.record import _Draft
from phases.errors import InvalidPlanError
from phases.execution.sandbox import choose_sandbox
from phases.execution.worker import Staging
from phases.git.probe import probe_repository
from phases.git.repo import Repo
from phases.git.tree import CommitTree, Layout
from phases.plan.load import load_plan
from phases.plan.schema import MAX_TITLE, Feature, Plan
from phases.record import entries
from phases.record.approval_rule import PRESENCE
from phases.record.entries import GateSummary, RecordedFile
from phases.record.halts import halt_lines
from phases.record.ledger import EntryKind, chain_problems, parse_ledger
from phases.record.outcome_lines import ran_line
from phases.record.project import Project, load_unverified
from phases.record.subjects import halted_subject, interrupted_subject, outcome_subject
from phases.run.attempt import AttemptSpec
from phases.run.session import Session
from phases.run.workspace import Workspace
from phases.views.live import SilentView

DIGEST = "ab" * 32
COMMIT = "0" * 40


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with the files that the plans here refer to."""
    return Toy(tmp_path_factory.mktemp("names") / "toy").root


def set_field(document: dict[str, Any], location: str, value: Any) -> None:
    """Set a field of the plan, such as `phases.0.name`."""
    *keys, last = [int(key) if key.isdecimal() else key for key in location.split(".")]
    node: Any = document
    for key in keys:
        node = node[key]
    node[last] = value


def full_plan() -> dict[str, Any]:
    """Return a valid plan that has every kind of name."""
    document = toy_plan(features=2)
    document["phases"][0]["features"][0] |= {
        "exempt": [{"files": "note.md", "reason": "read by people"}],
        "publish": {"note.md": "docs/note.md"},
    }
    return document


FEATURE = "phases.0.features.0"
NAMES = (
    "project",
    "results",
    "phases.0.name",
    f"{FEATURE}.title",
    f"{FEATURE}.outputs.1",
    f"{FEATURE}.exempt.0.files",
    f"{FEATURE}.exempt.0.reason",
    f"{FEATURE}.predictions.0.claim",
    f"{FEATURE}.gate.pytest",
    f"{FEATURE}.id",
    f"{FEATURE}.predictions.0.id",
)
"""Fields whose text reaches an entry, a commit or a challenge."""

UNSEEN = {
    "Run\u200b": "U+200B ZERO WIDTH SPACE at position 4",
    "R\u202eun": "U+202E RIGHT-TO-LEFT OVERRIDE at position 2",
    "\ufeffRun": "U+FEFF ZERO WIDTH NO-BREAK SPACE at position 1",
    "Run\u3164": "U+3164 HANGUL FILLER at position 4",
    "Run\ufe0f": "U+FE0F VARIATION SELECTOR-16 at position 4",
    "Run\U000e0101": "U+E0101 VARIATION SELECTOR-18 at position 4",
    "Run\u00a0it": "U+00A0 NO-BREAK SPACE at position 4",
    "Run\u3000it": "U+3000 IDEOGRAPHIC SPACE at position 4",
    "Run\tit": "U+0009 control character at position 4",
    "Run\x85it": "U+0085 control character at position 4",
    "Run\u2028it": "U+2028 LINE SEPARATOR at position 4",
    "Run\ue000": "U+E000 private use at position 4",
    "Run  it": "U+0020 SPACE at position 5",
    " Run": "U+0020 SPACE at position 1",
    "Run ": "U+0020 SPACE at position 4",
    " ": "U+0020 SPACE at position 1",
    "Zu\u0308ge": "U+0308 COMBINING DIAERESIS at position 3",
    "2 \u212b": "U+212B ANGSTROM SIGN at position 3",
}


@pytest.mark.parametrize("text", UNSEEN)
def test_i_52_every_name_is_one_line_that_reads_as_it_is_stored(root: Path, text: str) -> None:
    assert problems(root, full_plan()) == []  # the control
    for location in NAMES:
        document = full_plan()
        set_field(document, location, text)
        begin = location.replace(".0", "[0]").replace(".1", "[1]")
        lines = [line for line in problems(root, document) if line.startswith(f"{begin}: got ")]
        assert lines, location
        if not location.endswith(".id"):  # ids are ASCII by a pattern
            assert repr(text) in lines[0]
            assert UNSEEN[text] in lines[0]


def test_i_52_published_paths_are_names_too(root: Path) -> None:
    for publish in ({"note.md": "docs/no\u200bte"}, {"no\u200bte": "docs/note"}):
        document = full_plan()
        document["phases"][0]["features"][0]["publish"] = publish
        [problem] = problems(root, document)
        assert "U+200B ZERO WIDTH SPACE" in problem
        assert problem.isprintable()


def test_i_52_the_message_of_the_command(root: Path, tmp_path: Path) -> None:
    document = full_plan()
    document["phases"][0]["name"] = "Run\u200b"
    toy = Toy(tmp_path / "toy", document)
    for command in (["status"], ["run", "--next"], ["approve", "1"], ["audit"]):
        process = toy.run(*command, code=2)
        assert "phases[0].name: got 'Run\\u200b'; U+200B ZERO WIDTH SPACE at position 4" in (
            process.stderr
        )


@pytest.mark.parametrize("name", [b"pl\xff.json", "pl\u200b.json".encode(), b"a  b.json"])
def test_i_52_the_plan_has_a_name_too(tmp_path: Path, name: bytes) -> None:
    (tmp_path / "prd").mkdir()
    (tmp_path / "prd" / os.fsdecode(name)).write_text("{}")
    with pytest.raises(InvalidPlanError, match=r"got .*; U\+") as error:
        load_plan(tmp_path)
    assert str(error.value).replace("\n", "").isprintable()


GOOD = [
    "Counting",
    "Größe",
    "漢字 計數",
    "Ω ≤ 3 · x",
    "№ 5 — 100 %",
    "a" * MAX_TITLE,
    "#1",
    "हिन्दी",
]


@pytest.mark.parametrize("text", GOOD)
def test_i_52_honest_names_are_accepted(root: Path, text: str) -> None:
    assert line_problem(text) == ""
    for location in ("project", "results", "phases.0.name", f"{FEATURE}.title"):
        document = full_plan()
        set_field(document, location, text)
        assert problems(root, document) == [] or len(text.encode()) > 199


def test_i_52_names_that_no_terminal_takes_are_too_long(root: Path) -> None:
    for location in ("project", "phases.0.name", f"{FEATURE}.title"):
        document = full_plan()
        set_field(document, location, "漢" * (MAX_TITLE + 1))
        [problem] = problems(root, document)
        assert "at most 200 characters" in problem


def test_i_52_shell_commands_and_foreign_names_stay_as_they_are(root: Path) -> None:
    document = full_plan()
    feature = document["phases"][0]["features"][0]
    feature |= {"command": " printf  'a  b' ", "gate": {"shell": "test  -s  note.md "}}
    feature["predictions"][0]["measurement"] = "loss  (nats)\u200b"
    document["phases"][0]["setup"] = ["true  "]
    document["defaults"]["env"] = {"FLAGS": "-O2  -g "}
    assert problems(root, document) == []
    plan = load_plan(root)
    assert plan.phases[0].features[0].command == " printf  'a  b' "


#### names that are taken

TAKEN = [
    (f"{FEATURE}.id", "phase-1", "an id that the runner does not use"),
    (f"{FEATURE}.id", "Phase-12", "an id that the runner does not use"),
    (f"{FEATURE}.id", "phase-1-setup", "an id that the runner does not use"),
    (f"{FEATURE}.id", "attempts", "an id that the runner does not use"),
    (f"{FEATURE}.id", "runner.log", "an id that the runner does not use"),
    (f"{FEATURE}.id", "defaults", "an id that the runner does not use"),
    (f"{FEATURE}.id", "toy-002", "'toy-002' and 'TOY-002'"),
    ("results", "prd", "a folder outside prd"),
    ("results", "PRD/results", "a folder outside prd"),
    ("results", "gates/x", "a folder outside prd"),
    ("results", ".git", "inside the repository"),
    ("results", ".GIT/x", "inside the repository"),
    ("results", ".phases", "a folder outside prd"),
    ("results", ".phases/results", "a folder outside prd"),
    ("results", "progress.txt", "a folder outside prd"),
    ("results", ".", "inside the repository"),
    ("results", "./results", "expected 'results'"),
    ("results", "a//b", "expected 'a/b'"),
    ("results", "results/", "expected 'results'"),
    ("results", "a/.git/b", "which is git's"),
    ("results", "a/GIT~1", "which is git's"),
    ("results", "a/ b", "no blank at the ends of ' b'"),
    ("results", "x" * 201, "at most 200 bytes"),
    ("results", "experiment.py", "experiment.py is a file"),
    ("results", "experiment.py/x", "experiment.py is a file"),
    ("results", "docs", "outside docs/, the results"),
    (f"{FEATURE}.publish", {"note.md": "docs/.gitattributes"}, "which is git's"),
    (f"{FEATURE}.publish", {"note.md": "docs/./x"}, "expected 'docs/x'"),
    (f"{FEATURE}.publish", {"*.md": "docs/x"}, "the path of one output"),
    (f"{FEATURE}.publish", {"./note.md": "docs/x"}, "the path of one output"),
    (f"{FEATURE}.publish", {"note.md": "docs/x", "b.md": "docs/x"}, "'docs/x' 2 times"),
    (f"{FEATURE}.publish", {"note.md": "docs/x", "b.md": "docs/X"}, "'docs/x' and 'docs/X'"),
    (f"{FEATURE}.publish", {"note.md": "docs/x", "b.md": "docs/x/y"}, "as a file and as a folder"),
    ("project", "### x", "without '### '"),
    ("project", "a ### b", "without '### '"),
    ("project", "a - chain prev=b", "without '- chain prev='"),
]


@pytest.mark.parametrize(("location", "value", "detail"), TAKEN)
def test_i_52_names_of_the_runner_are_refused(
    root: Path, location: str, value: Any, detail: str
) -> None:
    document = full_plan()
    set_field(document, location, value)
    assert any(detail in problem for problem in problems(root, document))


FREE = [
    (f"{FEATURE}.id", "phase-transition"),
    (f"{FEATURE}.id", "phases"),
    (f"{FEATURE}.id", "attempts-2"),
    ("results", "lab/results"),
    ("results", "gates2/my results"),
    ("project", "#3 - chain"),
    (f"{FEATURE}.publish", {"note.md": "docs/x y.md", "b.md": "docs/xy"}),
]


@pytest.mark.parametrize(("location", "value"), FREE)
def test_control_names_that_are_only_like_them(root: Path, location: str, value: Any) -> None:
    document = full_plan()
    set_field(document, location, value)
    assert problems(root, document) == []


@pytest.mark.parametrize(
    ("results", "is_free"),
    [("lab", False), ("lab/count", False), ("lab/results", True), ("la", True), ("conf", False)],
)
def test_i_52_results_do_not_hold_what_runs(
    root: Path, tmp_path: Path, results: str, *, is_free: bool
) -> None:
    for path in ("prd", "lab/count", "gates", "conf"):
        (tmp_path / path).mkdir(parents=True)
    for path in ("lab/count/__main__.py", "conf/count.yaml", "gates/test_count.py"):
        (tmp_path / path).write_text("")
    document = toy_plan(features=1)
    document["phases"][0]["exit"] = []
    del document["phases"][0]["features"][0]["command"]
    document["phases"][0]["features"][0] |= {"module": "lab.count", "config": "conf/count.yaml"}
    document["results"] = results
    assert (problems(tmp_path, document) == []) == is_free


@pytest.mark.parametrize("config", ["runner", "git", "code:lab", "`true`"])
def test_i_52_a_config_has_no_name_of_another_material(tmp_path: Path, config: str) -> None:
    for path in ("prd", "lab", "gates"):
        (tmp_path / path).mkdir()
    for path in ("lab/count.py", "gates/test_count.py", config):
        (tmp_path / path).write_text("")
    document = toy_plan(features=1)
    document["phases"][0]["exit"] = []
    del document["phases"][0]["features"][0]["command"]
    document["phases"][0]["features"][0] |= {"module": "lab.count", "config": config}
    [problem] = problems(tmp_path, document)
    assert "expected a name like lab/count.yaml" in problem


#### any plan that loads gives entries that can be written

TEXT = st.text(
    st.sampled_from("aZ09_. -#=·:`{}'\"\\/*?äß漢 \u200b\u202e\u00a0\u0308\u3000\x85\x7f\u2028"),
    max_size=12,
) | st.text(max_size=8)
LINE = TEXT.map(lambda text: " ".join(unicodedata.normalize("NFC", text).split()))
"""Mostly a valid name."""
VISIBLE = st.text(st.sampled_from("aZ09_. -#=·:`{}'\"\\*?äß漢"), max_size=12)
NAME = VISIBLE.map(lambda text: " ".join(["n", *text.split()]))
"""A valid name, if nothing but the kind of its characters is asked for."""
ANY = LINE | TEXT
SHELL = st.text(st.sampled_from(" a'\u200b\u202e{}漢"), min_size=1, max_size=400)


@st.composite
def plans(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a plan with any names; more than a third load."""
    document = copy.deepcopy(full_plan())
    names = ANY if draw(st.booleans()) else NAME
    free = [location for location in NAMES if location.split(".")[-1] not in {"id", "pytest"}]
    fields = NAMES if names is ANY else free
    for location in draw(st.lists(st.sampled_from(fields), max_size=3, unique=True)):
        set_field(document, location, draw(names))
    feature = document["phases"][0]["features"][1]
    feature["command"] = draw(SHELL)
    feature["gate"] = {"shell": draw(SHELL)}
    feature["exempt"] = [{"files": "*", "reason": draw(names)}]
    feature["publish"] = {"note.md": "docs/" + draw(names)}
    document["defaults"]["env"] = {"X": draw(SHELL)}
    return document


def project_of(root: Path, plan: Plan) -> Project:
    """Return the project with an empty ledger."""
    paths = Paths(root, root / ".git", plan.results)
    for path in (paths.progress, paths.journal):
        path.unlink(missing_ok=True)
    return Project(plan, paths, probe_repository(root))


def spec_of(session: Session, feature: Feature) -> AttemptSpec:
    """Return an attempt at a feature."""
    root = session.project.root
    workspace = Workspace(
        project=session.project,
        plan=session.plan,
        state=session.state,
        tree=CommitTree(session.repo, session.repo.head()),
        sandbox=session.sandbox,
        staging=Staging(root),
    )
    return AttemptSpec(
        workspace=workspace,
        phase=session.plan.phases[0],
        feature=feature,
        number=1,
        txn="ab",
        branch=None,
        layout=Layout(root),
        argv=(),
        env={},
        profile=feature.profile or "cpu",
        seed=0,
        inputs=(),
        materials={},
        programs={},
        log=root / "log",
    )


def write_entries(session: Session) -> Iterator[str]:
    """Write entries of every kind that has text of the plan; yield subjects of commits."""
    plan, paths = session.plan, session.project.paths
    [phase] = plan.phases
    session._append(EntryKind.GENESIS, entries.genesis_lines(plan.project, COMMIT, sample=False))
    lock = RecordedFile(DIGEST, paths.plan_lock(phase.id))
    ids = [feature.id for feature in phase.features]
    session._append(
        EntryKind.LOCKED, entries.locked_lines(lock, COMMIT, ids, approval=PRESENCE.lines), phase
    )
    for feature in phase.features:
        spec = spec_of(session, feature)
        session.start(spec)
        summary = GateSummary(
            name=feature.gate.name,
            passed=1,
            failed=0,
            coverage=None,
            killed=1,
            mutants=1,
            digest_only=feature.outputs,
            exempt=tuple(map(str, feature.exempt)),
        )
        receipt = RecordedFile(DIGEST, f"{paths.results(feature.id)}/receipt.json")
        ran = ran_line(
            feature.program, 1.0, attempt=1, seed=0, profile=spec.profile, sandbox="none"
        )
        lines = (ran, *summary.lines, receipt.line(entries.RECEIPT))
        session._append(EntryKind.VERIFIED, lines, phase, feature)
        yield outcome_subject(feature, "errored", None, ["ended with exit 1"])
        yield interrupted_subject(feature.id, feature.title)
    yield halted_subject(phase)
    request = RecordedFile(DIGEST, paths.review_request(phase.id))
    lines = halt_lines(request, session.state.phase(phase.id), COMMIT)
    session._append(EntryKind.HALTED, lines, phase)
    draft = _Draft(session.snapshot.ledger, phase)
    draft.add(EntryKind.WAIVED, entries.reset_lines(ids), phase.features[0])


@example(full_plan())
@given(plans())
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
def test_i_52_any_plan_that_loads_gives_entries_that_seal(
    root: Path, document: dict[str, Any]
) -> None:
    (root / "prd/plan.json").write_text(json.dumps(document))
    try:
        plan = load_plan(root)
    except InvalidPlanError:
        return
    project = project_of(root, plan)
    snapshot, sandbox = load_unverified(project), choose_sandbox("best")
    session = Session(project, Repo(root), snapshot, {}, SilentView(), sandbox)
    for subject in write_entries(session):
        assert subject.isprintable()
    ledger = parse_ledger(project.paths.progress.read_bytes())
    assert chain_problems(ledger) == ()
    assert ledger == session.snapshot.ledger
    assert [entry.kind for entry in ledger.entries].count(EntryKind.VERIFIED) == 2
    receipts = [entry.match(entries.RECEIPT) for entry in ledger.entries if entry.feature]
    for feature in plan.phases[0].features:
        path = f"{plan.results}/{feature.id}/receipt.json"
        assert {"sha256": DIGEST, "path": path} in receipts
    # What the challenge compares is what was asked for.
    name = plan.phases[0].name
    assert " ".join(name.split()) == name


@given(st.text(max_size=30))
@settings(deadline=None, max_examples=300)
def test_a_problem_of_a_line_names_the_character(text: str) -> None:
    problem = line_problem(text)
    assert problem.isprintable()
    if problem and text:
        position = int(problem.split(" at position ")[1].split(";")[0])
        assert problem.startswith(f"U+{ord(text[position - 1]):04X} ")
    elif text:
        assert text == " ".join(text.split())
        assert unicodedata.is_normalized("NFC", text)
