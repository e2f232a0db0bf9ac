"""Gate of FEAT-018: does every page say what the results say, and the explorer what was run?

Every page's words are composed anew from the inputs and compared one by one. The explorer's data
are recomputed from the stored trials; the answers of the base and of some trials, drawn by the
nonce, are fed to the model again. Pages may show text, pictures of the features and links within
the site, and run no program but the explorer's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gates.shared import outputs, standard
from gates.shared.documents import agree
from gates.shared.standard import (  # noqa: F401 - pytest collects them as this gate's own
    test_figures_were_drawn_from_their_data,
    test_files_are_those_of_the_result,
    test_report_was_made_from_the_result,
)
from gates.shared.stored import cached, config
from gates.synthesis.site import content, counts, explorer, given, measured_trials, pages, shown

TEXTS = ("question", "hypothesis", "method")


def expected() -> dict[str, Any]:
    """Return what follows from the inputs alone: words and titles of the pages."""

    def compute() -> dict[str, Any]:
        return {"words": content.expected_words(), "titles": content.expected_titles()}

    return dict(cached("site expected", (), compute))


def numbers() -> dict[str, Any]:
    """Return name -> what each measurement must be."""

    def compute() -> dict[str, Any]:
        of_files = counts.of_site()
        return counts.of_sources() | of_files | counts.of_trials() | counts.of_answers()

    files = [f"{pages.SITE}/{name}" for name in pages.files()]
    return dict(cached("site numbers", [*files, measured_trials.ANSWERS], compute))


def test_every_measurement_is_judged() -> None:
    standard.assert_all_judged(counts.NAMES)


@pytest.mark.parametrize("name", counts.NAMES)
def test_number_follows_from_the_inputs(name: str) -> None:
    outputs.assert_agrees(name, numbers()[name])


def test_report_states_what_was_recomputed() -> None:
    standard.assert_report_states(numbers())


def test_receipts_are_those_of_the_results_that_were_given() -> None:
    receipts = {name: given.entries()[name].get("receipt", "none") for name in given.features()}
    assert outputs.result()["environment"]["receipts"] == receipts
    assert given.features(), "no result of a feature was given"


#### the files of the site


def test_site_has_a_page_for_everything_and_the_figures_of_the_features() -> None:
    figures: set[str] = set()
    for feature in given.features():
        figures |= set(given.figures(feature))
    made = {*expected()["words"], "explorer.html", *given.stored_pages()}
    assert set(pages.files()) == made | figures


def test_stored_pages_are_those_of_the_features_below_a_line_of_the_site() -> None:
    for name, source in given.stored_pages().items():
        copied = (outputs.out() / pages.SITE / name).read_text("utf-8")
        stored = source.read_text("utf-8")
        expected_page = stored.replace(pages.BODY, pages.BODY + content.stored_line(name), 1)
        assert copied == expected_page, f"{name} is not what its feature stored, with its line"


def test_figures_are_those_of_the_features() -> None:
    sources: dict[str, Path] = {}
    for feature in given.features():
        sources |= given.figures(feature)
    stored = cached(
        "site copied files", (), lambda: {n: outputs.digest_of(p) for n, p in sources.items()}
    )
    for name, digest in stored.items():
        copied = outputs.digest_of(outputs.out() / pages.SITE / name)
        assert copied == digest, f"{name} is not the one that its feature stored"


def made_pages() -> list[str]:
    """Return the pages that the site made, without those that it copied."""
    return [name for name in pages.files() if name in {*expected()["words"], "explorer.html"}]


def test_frame_style_and_program_of_every_page_are_those_of_the_lab() -> None:
    faults = {name: pages.read(name)["problems"] for name in made_pages()}
    assert not any(faults.values()), {name: found for name, found in faults.items() if found}
    project = given.plan().get("project", "LLM Learning Lab")
    for name, title in expected()["titles"].items():
        stated = pages.words(pages.read(name)["title"])
        assert stated == pages.words(f"{title} {project}"), f"{name} has another title"


def test_every_page_says_what_was_given_word_by_word() -> None:
    for name, words in expected()["words"].items():
        stated = pages.read(name)["words"]
        assert stated == words, f"{name}: {first_difference(stated, words)}"


def first_difference(stated: list[str], words: list[str]) -> str:
    """Return where two lists of words part."""
    length = min(len(stated), len(words))
    place = next((i for i in range(length) if stated[i] != words[i]), length)
    before = slice(max(0, place - 5), place + 5)
    return f"it says {' '.join(stated[before])!r}, expected {' '.join(words[before])!r}"


def test_every_link_leads_to_a_place_in_the_site_or_is_one_of_a_concept_text() -> None:
    files = set(pages.files())
    ids = {name: set(pages.targets(name)["ids"]) for name in files if name.endswith(".html")}
    for name, target in counts.internal_links():
        path, _, part = target.partition("#")
        assert path in files, f"{name}: {target} leads nowhere"
        if part and path != "explorer.html":
            assert part in ids[path], f"{name}: {path} has no part {part!r}"
    for name in made_pages():
        source = given.concepts().get(name.removeprefix("concept-").removesuffix(".html"), "")
        for target in pages.targets(name)["links"]:
            if ":" in target:
                assert target.startswith("https://"), f"{name} leads to {target}"
                assert target in source, f"{name} leads out to {target}"
        for target in pages.targets(name)["images"]:
            assert target in files, f"{name} shows {target}, which is not in the site"


def test_pages_of_features_show_their_own_figures() -> None:
    for feature in given.features():
        images = pages.targets(f"{feature}.html")["images"]
        assert images == list(given.figures(feature)), f"{feature}: other figures"


#### the explorer


def test_explorer_has_the_data_of_exactly_the_stored_trials() -> None:
    def compute() -> list[str]:
        actual, recomputed = explorer.data(), explorer.expected_data()
        faults = []
        by_name = {trial["name"]: trial for trial in actual.get("trials", [])}
        if set(by_name) != {trial["name"] for trial in recomputed.get("trials", [])}:
            return ["it shows other trials than were stored"]
        for trial in recomputed.get("trials", []):
            for key, value in trial.items():
                if not explorer.same_data(by_name[trial["name"]].get(key), value):
                    faults.append(f"{trial['name']}: {key}")
        rest = {key: value for key, value in recomputed.items() if key != "trials"}
        if not explorer.same_data({k: v for k, v in actual.items() if k != "trials"}, rest):
            faults.append("prompts or base")
        return faults

    read = [f"{pages.SITE}/explorer.html", measured_trials.ANSWERS]
    faults = cached("site explorer data", read, compute)
    assert not faults, f"{len(faults)} differ from the stored trials, such as {faults[0]}"


def test_grid_and_tables_of_the_explorer_say_what_was_run_and_what_was_not() -> None:
    words = cached("site explorer words", (), explorer.expected_words)
    stated = pages.read("explorer.html")["words"]
    assert stated == words, first_difference(stated, words)


def test_cells_of_the_grid_lead_to_their_trials() -> None:
    cells = cached("site cells of the grid", (), explorer.cells_of_the_grid)
    links = pages.targets("explorer.html")["links"]
    assert [link[1:] for link in links if link.startswith("#r")] == cells
    ids = pages.targets("explorer.html")["ids"]
    assert set(cells) <= set(ids), "a cell of the grid has no row"


def test_stored_answers_are_greedy_ones_of_base_and_drawn_trials() -> None:
    stored = measured_trials.answers()
    assert set(stored["trials"]) == set(measured_trials.folders())
    count = len(measured_trials.prompts())
    assert stored["prompts"] == count == len(stored["base"])
    assert all(len(of_trial) == count for of_trial in stored["trials"].values())
    faults = measured_trials.answer_faults()
    assert not any(faults.values()), f"not greedy: {faults}"


#### the report


def test_findings_say_what_was_measured() -> None:
    measurements = outputs.result()["measurements"]
    sentences = shown.findings(measurements)
    stated = outputs.result()["findings"]
    assert len(stated) == len(sentences)
    for actual, sentence in zip(stated, sentences, strict=True):
        assert agree(actual, sentence), f"{actual!r}, expected {sentence!r}"


def test_tables_show_what_was_recomputed() -> None:
    tables = {table["title"]: table for table in outputs.result()["tables"]}
    recomputed = cached("site tables", [measured_trials.ANSWERS], shown.tables)
    assert set(tables) == set(recomputed)
    for title, rows in recomputed.items():
        assert outputs.same(tables[title]["rows"], rows, 1e-4), f"{title}: other rows"


def test_figures_show_what_was_recomputed() -> None:
    recomputed = cached("site figures", (), shown.figures)
    stated = {figure["name"]: figure["caption"] for figure in outputs.result()["figures"]}
    assert set(stated) == set(recomputed)
    for name, figure in recomputed.items():
        drawn = outputs.read_json(f"figures/{name}.json")
        assert agree(stated[name], figure["caption"]) and drawn["caption"] == stated[name]
        series = {one["label"]: [one["x"], one["y"]] for one in drawn["series"]}
        assert set(series) == set(figure["series"]), f"{name}: other series"
        for label, values in figure["series"].items():
            assert outputs.same(series[label], values, 1e-4), f"{name}, {label}: other values"


def test_texts_say_something_and_the_config_is_that_of_a_whole_run() -> None:
    assert all(len(outputs.result()[part].split()) > 20 for part in TEXTS)
    assert config()["answers"] >= 2 and config()["max_new_tokens"] >= 4
