"""Gate of FEAT-010: were these weights recorded, and are they those of the model?

Two levels: every number, table and figure from the stored arrays
(gates/attention_extraction/arrays.py); the arrays from transformers' eager attention
(gates/attention_extraction/model.py). The controls: the tiled order of key heads and stretched
positions must be seen.
"""

from __future__ import annotations

import pytest

from gates.attention_extraction import arrays, model
from gates.attention_extraction.arrays import FAMILIES, KINDS
from gates.shared import outputs, standard
from gates.shared.standard import (  # noqa: F401 - pytest collects the three checks here
    test_figures_were_drawn_from_their_data,
    test_files_are_those_of_the_result,
    test_report_was_made_from_the_result,
)
from gates.shared.stored import config

PARITY = 1e-5  # of a weight, in float32
ROUNDING = 1e-3  # of a weight, through 30 layers of float32 in another order
WRONG = 0.1  # of a weight: what a mistake changes at least
NARROW = 1e-5  # eager's float32 softmax beside weights in float64
FORM = {"bfloat16": 0.01, "nf4": 0.01, "adapter": 1e-3}  # of a weight in the mean, here and there
WINDOWED = ("mistral", "gemma2", "gemma3_text", "phi3")
PEAK = 3.0  # largest weight of a row, as a multiple of an even one
HIGHEST_CAP = 5.0  # of scores that reach about as far
NAMES = (
    "parity_float32",
    "parity_float64",
    "parity_orders",
    "parity_families",
    "parity_families_float64",
    "families",
    "families_in_parity",
    "shift_change",
    "stretch_change",
    "parity_bfloat16",
    "parity_nf4",
    "parity_adapter",
    "layers",
    "query_heads",
    "key_heads",
    "group_size",
    "head_width",
    "score_scale",
    "full_pattern_bytes_2048",
    "statistics_bytes_2048",
    "later_key_share",
    "padded_key_share",
    "row_sum_error",
    "statistics_error",
    "z_error",
    "rotation_error",
    "logits_change",
    "interleaved_error",
    "tiled_error",
    "gqa_same_group_cosine",
    "gqa_other_group_cosine",
    "gqa_gap",
    "gqa_layers_with_gap",
    "score_deviation_scaled",
    "entropy_scaled",
    "score_deviation_unscaled",
    "entropy_unscaled",
    "sink_value_ratio",
    "sink_key_cosine",
    "previous_token_head",
    "previous_token_share",
    "previous_token_share_unrotated",
    "layers_recorded",
    "checkpointing_refused",
    "second_run_refused",
    "hooks_left",
)
IN_FINDINGS = (
    "parity_float32",
    "parity_float64",
    "parity_orders",
    "families_in_parity",
    "parity_families",
    "parity_nf4",
    "parity_adapter",
    "parity_bfloat16",
    "tiled_error",
    "gqa_same_group_cosine",
    "gqa_other_group_cosine",
    "score_deviation_unscaled",
    "score_deviation_scaled",
    "entropy_unscaled",
    "entropy_scaled",
    "shift_change",
    "stretch_change",
    "sink_value_ratio",
    "previous_token_share",
    "previous_token_share_unrotated",
)


def test_every_measurement_is_judged() -> None:
    standard.assert_all_judged(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_measurement_follows_from_what_was_stored(name: str) -> None:
    expected = arrays.recomputed()["numbers"][name]
    # Errors are differences of nearly equal numbers: another order of sums changes their digits.
    tolerance = 0.02 if name.endswith("_error") else 1e-5
    outputs.assert_agrees(name, expected, rtol=tolerance)


def test_run_was_of_the_planned_size() -> None:
    assert config()["tokens"] >= 64
    assert config()["family_tokens"] > 8, "the text is not longer than the sliding windows"
    assert len(FAMILIES) == 10


def test_families_are_what_they_are_called() -> None:
    """Windows must be shorter than the text, and caps low enough to matter."""
    special = {row[0]: row[1] for row in outputs.result()["tables"][0]["rows"]}
    for family in FAMILIES:
        settings = outputs.read_json(f"artifacts/families/{family}/config.json")
        assert settings["model_type"] == family
        if family in WINDOWED:
            assert 0 < settings["sliding_window"] < config()["family_tokens"], family
            assert f"sliding_window {settings['sliding_window']}" in special[family]
        for part in special[family].split(", "):
            if part != "none":
                name, _, value = part.partition(" ")
                assert str(settings[name]) == value, f"{family}: {part}"
    cap = outputs.read_json("artifacts/families/gemma2/config.json")["attn_logit_softcapping"]
    assert 0 < cap <= HIGHEST_CAP
    assert f"attn_logit_softcapping {cap}" in special["gemma2"]


def test_families_attend_to_something() -> None:
    """With even weights every way to compute them would agree."""
    for family, peak in arrays.recomputed()["peaks"].items():
        assert peak > PEAK, family


# What every honest run satisfies


@pytest.mark.parametrize("name", ["parity_float32", "parity_families", "interleaved_error"])
def test_recorded_weights_are_those_of_eager_attention(name: str) -> None:
    assert arrays.recomputed()["numbers"][name] < PARITY


def test_the_difference_is_rounding() -> None:
    numbers = arrays.recomputed()["numbers"]
    assert numbers["parity_float64"] < 1e-10
    assert numbers["parity_families_float64"] < 1e-10
    # Two ways to the same weights round differently; without a difference there was one way.
    assert numbers["parity_float32"] > 0
    assert numbers["parity_families"] > 0
    assert numbers["parity_orders"] > 4


def test_statistics_without_rows_are_those_of_the_rows() -> None:
    assert arrays.recomputed()["numbers"]["statistics_error"] < 1e-3


@pytest.mark.parametrize("name", ["row_sum_error", "z_error", "rotation_error"])
def test_what_was_recorded_fits_together(name: str) -> None:
    assert arrays.recomputed()["numbers"][name] < PARITY


@pytest.mark.parametrize("name", ["later_key_share", "padded_key_share", "logits_change"])
def test_nothing_is_seen_or_changed_that_must_not_be(name: str) -> None:
    assert arrays.recomputed()["numbers"][name] == 0.0


@pytest.mark.parametrize("name", ["tiled_error", "stretch_change"])
def test_control_is_seen(name: str) -> None:
    assert arrays.recomputed()["numbers"][name] > WRONG


def test_shifted_positions_change_nothing() -> None:
    assert arrays.recomputed()["numbers"]["shift_change"] < ROUNDING


def test_the_extractor_refuses_and_leaves_nothing_behind() -> None:
    guards = arrays.guards()
    assert guards["checkpointing_refused"] is True
    assert guards["second_run_refused"] is True
    assert guards["hooks_left"] == 0
    assert guards["layers_recorded"] == arrays.recomputed()["numbers"]["layers"]


# The arrays, from the model


def test_stored_pattern_is_that_of_the_model() -> None:
    # Another machine may sum in another order.
    assert model.differences()["pattern"] < PARITY * 2
    assert model.differences()["float32"] < PARITY * 2
    assert model.differences()["float64"] < ROUNDING
    assert model.differences()["padded"] < ROUNDING


@pytest.mark.parametrize("name", ["q", "k", "v", "z"])
def test_stored_vectors_are_those_of_the_model(name: str) -> None:
    assert model.differences()[name] < ROUNDING, "of the largest of them"


@pytest.mark.parametrize("name", ["logits_recorded", "logits_plain"])
def test_stored_logits_are_those_of_the_model(name: str) -> None:
    assert model.differences()[name] < ROUNDING * 10


def test_positions_do_what_was_measured() -> None:
    assert model.differences()["shift"] < ROUNDING
    assert model.differences()["stretch"] < ROUNDING


def test_text_is_no_repetition() -> None:
    assert model.differences()["natural"] >= config()["tokens"] // 8


def test_other_form_is_recorded_as_it_computes() -> None:
    form, differences = model.form_differences()
    assert max(differences) < FORM[form], f"{form}: {differences} per weight in the mean"


def test_families_are_recorded_as_they_compute() -> None:
    for family, (narrow, wide) in model.family_differences().items():
        assert narrow < PARITY * 2, f"{family} in float32: {narrow}"
        assert wide < NARROW, f"{family} in float64: {wide}"


# The report


def test_report_states_what_was_recomputed() -> None:
    standard.assert_report_states(arrays.recomputed()["numbers"])


def test_findings_state_what_was_recomputed() -> None:
    numbers = arrays.recomputed()["numbers"]
    standard.assert_findings_state({name: numbers[name] for name in IN_FINDINGS})
    findings = " ".join(outputs.result()["findings"])
    assert f"{numbers['previous_token_head']} gives" in findings
    is_bound = numbers["parity_float64"] < arrays.EPSILON
    assert (" in float64, at least " in findings) == is_bound


def test_verdicts_follow_from_the_numbers() -> None:
    numbers = arrays.recomputed()["numbers"]
    is_rounding = numbers["parity_float32"] < PARITY and numbers["parity_orders"] >= 4
    verdicts = {
        "rounding alone": is_rounding,
        "MORE THAN ROUNDING": not is_rounding,
        "logits stayed the same bit for bit": numbers["logits_change"] == 0,
        "LOGITS CHANGED": numbers["logits_change"] != 0,
        "are more alike than": numbers["gqa_gap"]["value"] > 0,
        "are NOT more alike than": numbers["gqa_gap"]["value"] <= 0,
        "is mostly not fetched": numbers["sink_value_ratio"]["value"] < 0.5,
        "is FETCHED as much as": numbers["sink_value_ratio"]["value"] >= 0.5,
    }
    findings = " ".join(outputs.result()["findings"])
    assert {text: text in findings for text in verdicts} == verdicts


def test_tables_follow_from_what_was_stored() -> None:
    families, kinds = (table["rows"] for table in outputs.result()["tables"])
    expected = arrays.recomputed()["tables"]
    assert [row[0] for row in families] == [name for name, _ in expected["families"]]
    for row, (name, errors) in zip(families, expected["families"], strict=True):
        assert outputs.same(row[2:], errors, 1e-5), name
    for row, recomputed, name in zip(kinds, expected["kinds"], KINDS, strict=True):
        assert outputs.same(row[1:], recomputed, 1e-5), name


@pytest.mark.parametrize("name", ["parity", "groups"])
def test_figure_shows_the_numbers(name: str) -> None:
    series = outputs.read_json(f"figures/{name}.json")["series"]
    expected = arrays.recomputed()["figures"][name]
    assert [one["label"] for one in series] == list(expected)
    for one in series:
        values = expected[one["label"]]
        positions = list(FAMILIES) if name == "parity" else list(range(len(values)))
        assert one["x"] == positions
        assert outputs.same(one["y"], values, 1e-5), one["label"]
        assert one["band"] is None


def test_heatmap_shows_the_patterns() -> None:
    figure = outputs.read_json("figures/orders.json")
    expected = arrays.recomputed()["figures"]["orders"]
    layer, head = expected["head"]
    assert figure["title"].startswith(f"Layer {layer}, head {head}:")
    assert (figure["low"], figure["high"]) == (0.0, 1.0)
    assert [panel["label"] for panel in figure["panels"]] == [
        "recorded",
        "from q and k, repeat-interleave",
        "from q and k, tiled",
    ]
    for panel, rows in zip(figure["panels"], expected["panels"], strict=True):
        for row, recomputed in zip(panel["values"], rows, strict=True):
            seen = [value for value in recomputed if value is not None]
            assert outputs.same(row[: len(seen)], seen, 1e-4), panel["label"]
            assert row[len(seen) :] == [None] * (len(row) - len(seen))
