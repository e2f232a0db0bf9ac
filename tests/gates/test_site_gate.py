"""The gate of the site passes an honest one and sees every lie about results and trials."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gates.synthesis.site import pages
from lab.present.page import read_file as read_shared
from lab.synthesis.site.markup import read_file, site_style
from tests.gates import warm
from tests.gates.conftest import assert_judges_every_measurement, digests_of, run_experiment
from tests.lab.synthesis import site

GATE = "synthesis/site/test_site.py"
MODULE = "lab.synthesis.site.experiment"
WORDS = "test_every_page_says_what_was_given_word_by_word"
FRAME = "test_frame_style_and_program_of_every_page_are_those_of_the_lab"
LINKS = "test_every_link_leads_to_a_place_in_the_site_or_is_one_of_a_concept_text"
DATA = "test_explorer_has_the_data_of_exactly_the_stored_trials"
GRID = "test_grid_and_tables_of_the_explorer_say_what_was_run_and_what_was_not"
ANSWERS = "test_stored_answers_are_greedy_ones_of_base_and_drawn_trials"
FILES = "test_site_has_a_page_for_everything_and_the_figures_of_the_features"
COPIES = "test_figures_are_those_of_the_features"
STORED = "test_stored_pages_are_those_of_the_features_below_a_line_of_the_site"


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the outputs of the site of a small world, and the file of its inputs."""
    folder = tmp_path_factory.mktemp("site")
    inputs = site.write_world(folder / "world")
    config = site.write_config(folder)
    return run_experiment(MODULE, str(config), inputs, folder / "out"), inputs


def test_an_honest_site_passes(judged: tuple[Path, Path]) -> None:
    assert warm.failing_in_new_process(GATE, *judged) == set()


def test_nothing_at_all_fails_every_check(judged: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    failing = warm.failing(GATE, tmp_path / "empty", judged[1])
    assert {WORDS, FRAME, DATA, GRID, ANSWERS, FILES, COPIES, STORED} <= failing


def test_the_gate_knows_style_and_program_of_the_lab() -> None:
    """A changed style or program: look at the pages, then put its digest into the gate."""
    shared = read_shared("page.css") + site_style()
    sources = {
        "STYLE_SHA256": shared,
        "EXPLORER_STYLE_SHA256": shared + read_file("explorer.css"),
        "PROGRAM_SHA256": read_file("explorer.js"),
    }
    for name, text in sources.items():
        digest = pages.outputs.sha256(text.encode())
        assert getattr(pages, name) == digest, f"{name} of gates/synthesis/site/pages.py: {digest}"


def edit_page(name: str, old: str, new: str) -> Callable[[Path], None]:
    """Return an edit of a page that replaces a text once."""

    def edit(out: Path) -> None:
        path = out / pages.SITE / name
        text = path.read_text("utf-8")
        assert old in text, f"{name} does not have {old!r}"
        path.write_text(text.replace(old, new, 1), "utf-8")

    return edit


def edit_data(change: Callable[[dict], None]) -> Callable[[Path], None]:
    """Return an edit of the explorer's data."""

    def edit(out: Path) -> None:
        path = out / pages.SITE / "explorer.html"
        text = path.read_text("utf-8")
        match = pages.DATA.search(text)
        document = json.loads(match[1])
        change(document)
        path.write_text(text.replace(match[1], json.dumps(document)), "utf-8")

    return edit


def invent_a_trial(document: dict) -> None:
    document["trials"].append(document["trials"][0] | {"name": "r4-a8-lr0.5-b2-s4-n8-seed0"})


def forget_what_was_scored(document: dict) -> None:
    for trial in document["trials"]:
        trial["forgetting"] = None


def score_every_trial(document: dict) -> None:
    for trial in document["trials"]:
        trial["forgetting"] = trial["forgetting"] or [0.1, 0.1, 0.1]


def make_a_token_other(out: Path) -> None:
    path = out / "artifacts/answers.json"
    document = json.loads(path.read_text())
    for of_trial in (document["base"], *document["trials"].values()):
        of_trial[0][0] = (of_trial[0][0] + 1) % 250
    path.write_text(json.dumps(document))


def exchange_answers(out: Path) -> None:
    path = out / "artifacts/answers.json"
    document = json.loads(path.read_text())
    for of_trial in document["trials"].values():
        of_trial[:] = [answer[:-1] for answer in of_trial]
    path.write_text(json.dumps(document))


def add_file(out: Path) -> None:
    (out / pages.SITE / "more.html").write_text("<p>more</p>")


def edit_attention(folder: Path, old: str, new: str) -> None:
    path = folder / "artifacts/site/attention.html"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


def exchange_a_program(folder: Path) -> None:
    edit_attention(folder, "sharesOf(", "sharesOf (")


def leave_the_line_out(folder: Path) -> None:
    edit_attention(folder, '<nav aria-label="Site">', "<nav>")


def name_another_receipt(folder: Path) -> None:
    edit_attention(folder, "receipt <code>sha256:", "receipt <code>sha256:0")


def exchange_figure(out: Path) -> None:
    (figure,) = (out / pages.SITE / "figures/FEAT-001").iterdir()
    figure.write_bytes(figure.read_bytes() + b"\n")


def hide(out: Path) -> None:
    edit_page("index.html", '<ol class="missed-list">', '<ol class="missed-list" hidden>')(out)


@pytest.mark.parametrize(
    ("edit", "check"),
    [
        (edit_page("index.html", "1 missed", "0 missed"), WORDS),
        (edit_page("index.html", "0.2000 ± ", "0.3000 ± "), WORDS),
        (edit_page("FEAT-001.html", "outcome missed", "outcome held"), FRAME),
        (edit_page("predictions.html", '<li class="missed"', '<li class="held"'), FRAME),
        (edit_page("predictions.html", "gap is 0.2000", "gap is 1.2000"), WORDS),
        (edit_page("questions.html", "The gap is", "The gap was"), WORDS),
        (edit_page("concept-gaps.html", "0.2000", "0.2100"), WORDS),
        (edit_page("FEAT-005.html", "sha256:", "sha256:0"), WORDS),
        (edit_page("index.html", "<main", "<script>alert(1)</script><main"), FRAME),
        (edit_page("index.html", "img-src 'self'", "img-src *"), FRAME),
        (edit_page("index.html", "max-width: 60rem", "max-width: 1rem"), FRAME),
        (edit_page("explorer.html", "everySetting[0]", "everySetting[1]"), FRAME),
        (edit_page("index.html", "<h1>", '<h1 onclick="x()">'), FRAME),
        (hide, FRAME),
        (edit_page("index.html", 'href="FEAT-001.html"', 'href="FEAT-002.html"'), LINKS),
        (edit_page("index.html", 'href="FEAT-001.html"', 'href="https://example.org"'), LINKS),
        (edit_page("concept-gaps.html", "example.org/paper", "example.org/other"), LINKS),
        (edit_page("FEAT-001.html", "questions.html#Q-001", "questions.html#Q-009"), LINKS),
        (edit_page("explorer.html", ">not measured<", ">3.00 (1)<"), GRID),
        (edit_page("explorer.html", "identity ", "identity 0"), GRID),
        (edit_data(lambda d: d["trials"][0].update(held_out=1.0)), DATA),
        (edit_data(lambda d: d["trials"][0]["losses"].pop()), DATA),
        (edit_data(lambda d: d["trials"][1]["spectra"]["q_proj"].reverse()), DATA),
        (edit_data(forget_what_was_scored), DATA),
        (edit_data(score_every_trial), DATA),
        (edit_data(lambda d: d["trials"][0]["answers"].insert(0, "x")), DATA),
        (edit_data(lambda d: d["base"].update(held_out=9.0)), DATA),
        (edit_data(lambda d: d["prompts"].reverse()), DATA),
        (edit_data(lambda d: d["trials"].pop()), DATA),
        (edit_data(invent_a_trial), DATA),
        (make_a_token_other, ANSWERS),
        (exchange_answers, ANSWERS),
        (add_file, FILES),
        (exchange_figure, COPIES),
        (exchange_a_program, STORED),
        (leave_the_line_out, STORED),
        (name_another_receipt, STORED),
    ],
)
def test_a_lie_is_seen(
    judged: tuple[Path, Path], mutant: Path, *, edit: Callable[[Path], None], check: str
) -> None:
    edit(mutant)
    warm.forge(mutant)
    assert warm.fails(check, GATE, mutant, judged[1])


def test_a_page_of_another_result_is_seen(judged: tuple[Path, Path], tmp_path: Path) -> None:
    world = shutil.copytree(judged[1].parent, tmp_path / "world")
    result = json.loads((world / "FEAT-001/result.json").read_text())
    result["measurements"]["gap"]["value"] = 0.25
    (world / "FEAT-001/result.json").write_text(json.dumps(result))
    entries = json.loads(judged[1].read_text())
    entries["FEAT-001"]["path"] = str(world / "FEAT-001")
    shutil.rmtree(world / "cache", ignore_errors=True)
    (world / "inputs.json").write_text(json.dumps(entries))
    assert warm.fails(WORDS, GATE, judged[0], world / "inputs.json")


def test_a_sample_says_so_at_the_top_of_every_page(tmp_path: Path) -> None:
    inputs = site.write_world(tmp_path / "world", sample=True)
    out = run_experiment(MODULE, str(site.write_config(tmp_path)), inputs, tmp_path / "out")
    assert warm.failing(GATE, out, inputs) == set()
    page = (out / pages.SITE / "index.html").read_text("utf-8")
    banner = "assurance: scripted (sample run, approved by no human)"
    assert banner in page.partition("<main")[0]
    edit_page("FEAT-001.html", banner, "")(out)
    warm.forge(out)
    assert warm.fails(WORDS, GATE, out, inputs)


def test_the_runner_verifies_the_site_and_kills_every_mutant(
    judged: tuple[Path, Path], gates_dir: Path
) -> None:
    assert_judges_every_measurement(GATE, *judged, gates_dir)


def test_site_is_the_same_when_it_is_made_again(judged: tuple[Path, Path], tmp_path: Path) -> None:
    out = run_experiment(MODULE, str(site.write_config(tmp_path)), judged[1], tmp_path / "again")
    before, after = digests_of(judged[0]), digests_of(out)
    changed = {name for name in before if before[name] != after.get(name)}
    assert changed == set()
