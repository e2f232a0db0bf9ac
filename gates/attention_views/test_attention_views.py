"""Gate of FEAT-011: was this attention recorded, and do numbers, pictures and page follow from it?

Two levels: every number from the stored arrays (arrays.py, report.py, page.py), and the arrays from
the model by eager attention for a sample drawn by the nonce (model.py). On the pinned model the
sink, the induction heads and what they are needed for must be there, by half of what was measured
before the plan; with random weights, and on one token repeated, there must be none. How large they
are otherwise is predicted by the plan.
"""

from __future__ import annotations

import pytest

from gates.attention_views import arrays, model, page, report
from gates.attention_views.arrays import MEASUREMENTS, SETS
from gates.shared import attention_page, outputs, standard, stored
from gates.shared.documents import shows, stated_numbers
from gates.shared.standard import (  # noqa: F401 - pytest collects the three checks here
    test_figures_were_drawn_from_their_data,
    test_files_are_those_of_the_result,
    test_report_was_made_from_the_result,
)
from gates.shared.stored import config

PINNED = "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"
TABLES = ("layers", "heads", "ablation")
LINES = ("sink_profile", "norm_profile", "entropy_profile", "distance_profile", "ablation")
MAPS = ("sink_map", "score_map", "patterns")
IN_FINDINGS = (
    "sink_rate",
    "sink_rate_second_token",
    "sink_rate_random_tokens",
    "sink_rate_one_token",
    "sink_rate_random_weights",
    "sink_late_over_early",
    "sink_follows_norm",
    "norm_ratio_highest",
    "distance_late",
    "distance_late_without_sink",
    "layers_with_sink",
    "layers_nearer_without_sink",
    "induction_heads",
    "loss_first_copy",
    "loss_second_copy",
    "loss_without_induction_heads",
    "loss_without_previous_head",
    "loss_without_random_heads",
    "ablation_ratio",
    "random_sets_with_previous_head",
)
ON_PAGE = {  # measurement -> its place among the numbers behind "Controls:"
    "induction_score_random_weights": 0,
    "sink_rate_one_token": 1,
    "loss_second_copy": 2,
    "loss_without_induction_heads": 4,  # behind the number of heads
    "loss_without_previous_head": 5,
    "loss_without_random_heads": 7,
}
AS_PERCENT = (  # shares that the findings state in percent
    "sink_share_early",
    "sink_share_late",
    "induction_score",
    "induction_score_random_weights",
    "previous_score",
    "previous_score_random_weights",
)


#### the plan


def test_every_measurement_is_judged() -> None:
    standard.assert_all_judged(MEASUREMENTS)


def test_run_was_of_the_planned_size() -> None:
    settings = config()
    assert settings["sequences"]["length"] == 64, "a sink rate depends on the length"
    assert settings["sequences"]["count"] >= 4
    assert settings["repeated"]["count"] >= 2
    assert settings["ablation"]["draws"] >= 3


def test_model_is_the_one_of_the_input() -> None:
    assert outputs.result()["environment"]["model_sha256"] == model.weights_digest()


#### the token sequences


def test_running_text_is_that_of_the_documentation() -> None:
    windows = model.read_by_tokenizer()["windows"]
    sequences = stored.arrays("sequences")
    assert sequences["natural"].tolist() == windows
    assert sequences["natural_random_weights"].tolist() == windows


def test_one_token_is_repeated_and_random_ones_are_not() -> None:
    sequences = stored.arrays("sequences")
    assert all(len(set(row)) == 1 for row in sequences["one_token"].tolist())
    for row in sequences["random_tokens"].tolist():
        assert len(set(row)) > len(row) / 2


@pytest.mark.parametrize("kind", ["repeated", "ablation"])
def test_copies_are_copies(kind: str) -> None:
    period = config()["repeated"]["period"]
    for row in stored.arrays("sequences")[kind].tolist():
        assert len(row) == 1 + 2 * period
        assert row[1 : 1 + period] == row[1 + period :]


def test_heads_were_not_chosen_by_the_sequences_of_the_causal_test() -> None:
    sequences = stored.arrays("sequences")
    chosen_by = {tuple(row) for row in sequences["repeated"].tolist()}
    assert not chosen_by & {tuple(row) for row in sequences["ablation"].tolist()}
    controls = sequences["repeated_random_weights"]
    assert (controls == sequences["repeated"]).all()


def test_texts_have_the_tokens_of_their_ids() -> None:
    tokens = model.read_by_tokenizer()["tokens"]
    for text in arrays.texts():
        assert text["tokens"] == tokens[text["key"]], text["key"]
    own = [text for text in arrays.texts() if text["key"].startswith("own")]
    assert [text["label"] for text in own] == [entry["label"] for entry in config()["texts"]]
    assert [text["ids"] for text in own] == model.read_by_tokenizer()["own"]


#### numbers, tables and figures, from the arrays


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_measurement_follows_from_what_was_stored(name: str) -> None:
    outputs.assert_agrees(name, arrays.measurements()[name])


def test_report_states_what_was_recomputed() -> None:
    standard.assert_report_states({name: arrays.measurements()[name] for name in MEASUREMENTS})


def test_findings_state_what_was_recomputed() -> None:
    standard.assert_findings_state({name: arrays.measurements()[name] for name in IN_FINDINGS})
    percents = {name: 100 * arrays.values()[name] for name in AS_PERCENT}
    standard.assert_findings_state(percents)
    sentences = " ".join(outputs.result()["findings"])
    for name in ("induction_head", "previous_head"):
        assert arrays.measurements()[name] in sentences


@pytest.mark.parametrize("index", range(len(TABLES)), ids=TABLES)
def test_table_follows_from_what_was_stored(index: int) -> None:
    standard.assert_table_agrees(index, report.tables()[index])


@pytest.mark.parametrize("name", LINES)
def test_figure_shows_what_was_stored(name: str) -> None:
    series = outputs.read_json(f"figures/{name}.json")["series"]
    actual = [[one["x"], one["y"], one["band"]] for one in series]
    assert outputs.same(actual, report.lines()[name], 1e-5)


@pytest.mark.parametrize("name", MAPS)
def test_map_shows_what_was_stored(name: str) -> None:
    figure = outputs.read_json(f"figures/{name}.json")
    actual = [panel["values"] for panel in figure["panels"]]
    assert outputs.same(actual, report.maps()[name], 1e-5)
    assert (figure["low"], figure["high"]) == (0, 1)


#### the causal test


def test_switched_off_heads_are_those_of_the_scores() -> None:
    heads = arrays.heads()
    order = arrays.order(arrays.score_map("repeated", "induction"))
    count = config()["ablation"]["heads"]
    top = [list(head) for head in sorted(order[:count])]
    assert heads["nothing"] == []
    assert heads["induction"] == top
    assert heads["previous"] == [list(arrays.previous_before(order[0]))]
    assert set(heads) == {"nothing", "induction", "previous", *arrays.random_sets()}


def test_random_sets_are_as_large_and_others() -> None:
    heads = arrays.heads()
    layers, count = model.shape()
    size = min(len(heads["induction"]), layers * count - len(heads["induction"]))
    drawn = set()
    for name in arrays.random_sets():
        own = {tuple(head) for head in heads[name]}
        assert len(own) == len(heads[name]) == size
        assert not own & {tuple(head) for head in heads["induction"]}
        assert all(0 <= layer < layers and 0 <= head < count for layer, head in own)
        drawn.add(frozenset(own))
    assert len(drawn) > 1 or size == layers * count - len(heads["induction"])


def test_losses_agree_with_the_model() -> None:
    recomputed, actual = model.recompute_losses(), model.stored_losses()
    for name in model.draw_ablations():
        standard.assert_token_losses_agree(actual[name], recomputed[name], name)


#### attention, from the model


@pytest.mark.parametrize("kind", SETS)
def test_statistics_agree_with_eager_attention(kind: str) -> None:
    recomputed, actual = model.recompute_sets()[kind], model.stored_set(kind)
    assert set(recomputed) == set(actual)
    for name, expected in recomputed.items():
        assert len(actual[name]) == len(expected)
        largest = max(map(abs, expected))
        limit = model.tolerance() * max(1.0, largest)
        differences = [abs(a - b) for a, b in zip(actual[name], expected, strict=True)]
        assert max(differences) <= limit, f"{kind}: {name} differs by {max(differences)}"


def test_patterns_agree_with_eager_attention() -> None:
    recomputed, actual = model.recompute_rows(), model.stored_rows()
    assert set(actual) == set(recomputed)
    for key, rows in recomputed.items():
        for row, expected in zip(actual[key], rows, strict=True):
            assert outputs.same([len(row)], [len(expected)], 0)
            differences = [abs(a - b) for a, b in zip(row, expected, strict=True)]
            assert max(differences) <= model.tolerance(), key


@pytest.mark.parametrize("kind", SETS)
def test_statistics_can_be_those_of_attention(kind: str) -> None:
    import numpy as np

    stored_statistics = arrays.statistics(kind)
    names = {*arrays.STATISTICS, *(arrays.OF_REPEATED if "repeated" in kind else ())}
    assert set(stored_statistics) == names
    total = stored_statistics["sink"].shape[3]
    queries = np.arange(total)
    for name, values in stored_statistics.items():
        largest = {"entropy": np.log(queries + 1), "distance": queries}.get(name, 1.0)
        assert (values >= 0).all(), f"{kind}: {name} is below 0"
        assert (values <= largest + 1e-3).all(), f"{kind}: {name} is above what it can be"
    assert abs(stored_statistics["sink"][..., 0] - 1).max() < 1e-4, "token 0 sees itself alone"


#### the page


def test_page_is_that_of_the_lab_and_small_enough() -> None:
    attention_page.assert_frame_is_that_of_the_lab(page.PAGE)
    assert len(page.source().encode()) <= page.MAX_BYTES


def test_page_shows_the_stored_texts() -> None:
    document = page.data()
    layers, heads = model.shape()
    assert (document["layers"], document["heads"], document["levels"]) == (layers, heads, 255)
    assert [statistic["key"] for statistic in document["statistics"]] == list(page.KEYS)
    assert page.source().count(f"All {layers * heads} attention heads") == 1
    assert len(document["texts"]) == len(arrays.texts())
    for shown, text in zip(document["texts"], arrays.texts(), strict=True):
        assert (shown["label"], shown["note"]) == (text["label"], text["note"])
        assert shown["tokens"] == [page.shown_token(token) for token in text["tokens"]]
        assert shown["is_full"]


def test_page_opens_with_the_strongest_induction_head() -> None:
    top = arrays.order(arrays.score_map("repeated", "induction"))[0]
    assert tuple(page.data()["first_head"]) == top


@pytest.mark.parametrize("name", ON_PAGE)
def test_page_states_the_numbers_of_its_pictures(name: str) -> None:
    """Each number in its own place: on another model several of them may be nearly equal."""
    value = arrays.values()[name]
    if name in AS_PERCENT:
        value *= 100
    facts = page.data()["introduction"].split("Controls:")[1]
    stated = stated_numbers(facts)[ON_PAGE[name]]
    assert shows(str(stated), value), f"{name}: the page states {stated}, recomputed {value}"


def test_page_has_the_stored_patterns() -> None:
    for key, difference in page.differences().items():
        assert difference["shares"] <= 0.51, f"{key}: shares differ by {difference['shares']}/255"
        for name in page.KEYS:
            assert difference[name] <= 2e-4, f"{key}: {name} differs by {difference[name]}"


#### what the pinned model is known for, by half of what was measured before the plan


def is_pinned() -> bool:
    """Return whether the facts below are known of the judged model."""
    return model.weights_digest() == PINNED and config()["dtype"] == "float32"


def test_pinned_model_has_a_sink_that_one_token_repeated_does_not() -> None:
    values = arrays.values()
    rates = {name: values[name] for name in arrays.RATES}
    second = values["sink_rate_second_token"]
    if is_pinned():
        assert rates["sink_rate"] >= 37
        assert rates["sink_rate_random_tokens"] >= 37
        assert rates["sink_rate"] >= 5 * second
        assert rates["sink_rate_one_token"] <= 5
    assert rates["sink_rate_random_weights"] <= 5, "a sink where weights are random"


def test_pinned_model_has_induction_heads_that_random_weights_do_not() -> None:
    values = arrays.values()
    if is_pinned():
        assert values["induction_score"] >= 0.4
        assert values["previous_score"] >= 0.4
        assert values["copy_loss_ratio"] <= 0.5
        assert values["induction_score_random_weights"] <= 0.1
    # Random weights attend almost evenly: a key's share is near 1 / (q + 1), at most 1 / (S + 2)
    # in the second copy.
    even = 1 / (config()["repeated"]["period"] + 2)
    assert values["induction_score_random_weights"] <= 5 * even


def test_pinned_model_copies_by_these_heads_more_than_by_random_ones() -> None:
    values = arrays.values()
    measured = arrays.measurements()
    without, before = measured["loss_without_induction_heads"], measured["loss_second_copy"]
    assert without["n"] == before["n"], "the same sequences, with and without the heads"
    if is_pinned():
        assert without["value"] - before["value"] >= 4
        assert values["ablation_rise_ratio"] >= 2
