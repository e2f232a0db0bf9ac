"""Gate of FEAT-014: is what was recorded the residual stream, and does all else follow from it?

Three levels: every array from the model, by hooks of the gate's own, with texts and families drawn
again from the seed (model.py); every number, table and figure from the stored arrays (arrays.py);
every sentence, caption and label from these numbers (words.py). Nothing is left to a sample. What
a control must see is asserted: the stream read behind the input norm, the sum without attention's
write, a lens that norms twice, a layer that writes nothing.
"""

from __future__ import annotations

import pytest

from gates.activation_extraction import arrays, model, plan, rounding, words
from gates.activation_extraction.arrays import COUNTED, FAMILIES, FORMS, NAMES, STREAM
from gates.shared import outputs, standard, stored
from gates.shared.documents import agree
from gates.shared.standard import (  # noqa: F401 - pytest collects the three checks here
    test_figures_were_drawn_from_their_data,
    test_files_are_those_of_the_result,
    test_report_was_made_from_the_result,
)
from gates.shared.stored import config

PLANNED = {
    "texts": {"count": 8, "length": 64},
    "positions": [31, 63],
    "form_tokens": 16,
    "family_tokens": 24,
    "stop_layer": 3,
    "silent_layer": 2,
    "adapter": {"r": 8, "lora_alpha": 16},
    "model": "smollm2-135m",
}
DEVICES = {"cpu": "cpu", "gpu": "cuda"}
PINNED = "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"

# What float32 in another order may change: of a token's vector, as a share of its length, through
# 30 layers; of logits; of the lens (nats, beyond 1 nat as a share); of statistics.
VECTOR, LOGIT, NATS, STATISTIC = 2e-3, 0.02, 5e-3, 5e-4
FORM = {"bfloat16": 0.3, "nf4": 5e-3, "adapter": 5e-3, "silent": 5e-3}
FAMILY = {"float32": 1e-3, "float64": 1e-9, "logits": 1e-4, "lens": 1e-4}
ROUNDED = 0.2  # share of a layer's sums that rounding changes, at the least
IDENTITY, IDENTITY_FLOAT64 = 1e-6, 1e-12  # shares of the stream's length
FAMILY_STREAMS = [f"{family} {dtype}" for family in FAMILIES for dtype in ("float32", "float64")]
SEEN = 0.05  # share of the stream's length: what a control must be off by


#### the plan


def test_every_measurement_is_judged() -> None:
    standard.assert_all_judged(NAMES)


def test_run_was_the_planned_one() -> None:
    environment = outputs.result()["environment"]
    assert {name: config()[name] for name in PLANNED} == PLANNED
    assert environment["seed"] == 0
    device = DEVICES[environment["profile"]]
    assert config()["device"] == environment["device"] == device
    assert environment["dtype"] == "float32"


def test_model_is_the_one_of_the_input() -> None:
    environment = outputs.result()["environment"]
    assert environment["model_sha256"] == model.weights_digest()
    assert environment["model"] == config()["model"]


def test_adapter_is_the_planned_one() -> None:
    settings = outputs.read_json("artifacts/adapter/adapter_config.json")
    planned = config()["adapter"]
    assert {name: settings[name] for name in planned} == planned
    assert arrays.values()["change_adapter"] > 1e-3, "an adapter that changes nothing shows nothing"


def test_arrays_are_whole() -> None:
    for name, expected in plan.expected_arrays().items():
        header = stored.header(stored.artifact(f"{name}.safetensors"))
        shapes = {key: tuple(entry["shape"]) for key, entry in header.items()}
        assert shapes == expected, name


def test_texts_are_those_of_the_plan() -> None:
    assert stored.arrays("model")["ids"].tolist() == model.texts()


#### the arrays, from the model


@pytest.mark.parametrize("name", [*STREAM, *model.OF_MODEL])
def test_stored_vectors_are_those_of_the_model(name: str) -> None:
    difference = model.model_differences()[name]
    assert difference < VECTOR, f"{name} differs by {difference} of a token's length"


@pytest.mark.parametrize("name", model.LOGITS)
def test_stored_logits_are_those_of_the_model(name: str) -> None:
    difference = model.model_differences()[name]
    assert difference < LOGIT, f"{name} differs by {difference}"


@pytest.mark.parametrize("name", ["lens_kl", "double_kl"])
def test_lens_of_every_layer_is_that_of_the_model(name: str) -> None:
    difference = model.model_differences()[name]
    assert difference < NATS, f"{name} differs by {difference}"


@pytest.mark.parametrize("side", ["streamed", "reference"])
@pytest.mark.parametrize("name", COUNTED)
def test_statistics_are_those_of_the_model(name: str, side: str) -> None:
    difference = model.model_differences()[f"{name}.{side}"]
    assert difference < STATISTIC, f"{name}, {side}: differs by {difference}"


@pytest.mark.parametrize("form", FORMS)
def test_form_is_recorded_as_it_computes(form: str) -> None:
    for name, difference in model.form_differences()[form].items():
        assert difference < FORM[form], f"{name} differs by {difference} of a token's length"


@pytest.mark.parametrize("family", FAMILIES)
def test_family_is_recorded_as_it_computes(family: str) -> None:
    for name, difference in model.family_differences()[family].items():
        assert difference < FAMILY[name], f"{name} differs by {difference}"


#### what every honest run satisfies


def test_stream_is_what_entered_plus_both_writes() -> None:
    values = arrays.values()
    for name in ("residual_error", "mid_error", "residual_error_nf4", "residual_error_adapter"):
        assert values[name] < IDENTITY, name
    assert values["residual_error_silent"] < IDENTITY
    assert values["residual_error_bfloat16"] < 0.05


def test_sums_of_float32_are_rounded() -> None:
    """Numbers of float32 were added: a sum without any rounding was not what the model did."""
    values = arrays.values()
    for name in ("residual_error", "mid_error", "residual_error_families"):
        assert values[name] > 1e-9, name


@pytest.mark.parametrize("where", ["model", *FORMS, *FAMILY_STREAMS])
def test_sums_are_those_of_the_model_s_type(where: str) -> None:
    """To the last bit; and no write is a difference of two streams."""
    assert rounding.differing()[where] == 0, "numbers are not the sums of their parts"
    if not where.endswith("float64"):  # where norms compute in float32, their sums are exact
        assert rounding.rounded()[where] > ROUNDED, "a layer's sums needed no rounding"


def test_bfloat16_was_computed_with() -> None:
    """And not rounded from float32 afterwards."""
    for name, ratio in model.form_differences()["rounding"].items():
        assert 0.5 < ratio < 2, f"{name}: {ratio} times as far from float32 as it should be"


def test_what_leaves_a_layer_enters_the_next() -> None:
    values = arrays.values()
    assert values["chain_error"] == values["chain_error_families"] == 0
    assert values["hidden_states_error"] == 0


def test_only_the_last_hidden_state_is_normed() -> None:
    values = arrays.values()
    assert values["final_norm_error"] < 1e-3
    assert values["last_hidden_state_gap"] > 1


def test_lens_of_the_last_layer_is_the_model() -> None:
    values = arrays.values()
    assert values["lens_kl_last"] < 1e-6
    assert values["lens_error_last"] < 1e-3
    assert values["lens_error_families"] < 1e-6
    assert abs(stored.arrays("model")["lens_kl"][-1]).max() < 1e-6


def test_recording_changes_nothing() -> None:
    values = arrays.values()
    assert values["logits_change"] == 0
    assert values["stopped_error"] == 0


def test_controls_are_seen() -> None:
    values = arrays.values()
    assert values["misplaced_error"] > SEEN, "the stream behind the input norm"
    assert values["families_without_attention"] > SEEN, "the sum without attention's write"
    assert values["silent_least_other_write"] > 1e-3, "layers that were not made silent"
    assert values["silent_write"] == 0, "a layer that was made silent"
    for form in FORMS:
        assert values[f"change_{form}"] > 1e-3, f"{form} is no other form of the model"
    if model.weights_digest() == PINNED:
        assert values["double_norm_kl"] > 0.1, "a lens that norms twice"


def test_all_families_have_the_identities() -> None:
    values = arrays.values()
    assert values["families"] == values["families_with_identity"] == len(FAMILIES)
    assert values["families_with_mid"] == len(FAMILIES) - 1
    assert values["residual_error_families_float64"] < IDENTITY_FLOAT64
    assert values["mid_error_families"] < IDENTITY_FLOAT64


def test_running_statistics_are_those_of_kept_tensors() -> None:
    values = arrays.values()
    assert 0 < values["statistics_error"] < 1e-6, "0: one side was copied from the other"
    assert values["extremes_misplaced"] == 0


def test_extractor_refuses_and_leaves_nothing_behind() -> None:
    guards = arrays.guards()
    assert set(guards) == set(arrays.GUARDS)
    for name, answer in guards.items():
        if name.endswith("_refused"):
            assert answer is True, name
    assert guards["hooks_left"] == 0
    assert guards["layers_recorded"] == model.document()["num_hidden_layers"]
    assert guards["stop_layers_run"] == config()["stop_layer"] + 1 < guards["layers_recorded"]


#### numbers, tables and figures, from the arrays


@pytest.mark.parametrize("name", NAMES)
def test_measurement_follows_from_what_was_stored(name: str) -> None:
    expected = arrays.recomputed()["numbers"][name]
    outputs.assert_agrees(name, expected)
    actual = outputs.measurement(name)
    assert actual["unit"] == arrays.UNITS[name]
    assert actual.get("exact", False) == (not isinstance(expected, dict))
    if isinstance(expected, float) and expected < 1e-5:
        # Float noise is below what `assert_agrees` tells from 0.
        noise = abs(actual["value"] - expected)
        rounding = 1e-14 if name == "lens_kl_last" else 0.0  # of a sum over the vocabulary
        assert noise <= 1e-3 * expected + rounding, f"{name}: {actual['value']}, not {expected}"


def test_report_states_what_was_recomputed() -> None:
    standard.assert_report_states(arrays.recomputed()["numbers"])


def test_headline_is_that_of_the_plan() -> None:
    assert outputs.result()["headline"] == [
        "residual_error",
        "misplaced_error",
        "families_with_identity",
        "lens_kl_last",
        "double_norm_kl",
        "logits_change",
    ]


def test_findings_say_what_follows_from_the_numbers() -> None:
    """Whole sentences: no number, label or verdict may be another one."""
    findings = outputs.result()["findings"]
    for actual, expected in zip(findings, words.findings(), strict=True):
        assert agree(actual, expected), f"{actual!r}; expected {expected!r}"
    report_text = (outputs.out() / "report.md").read_text("utf-8")
    listed = report_text.partition("## Findings\n")[2].partition("\n## ")[0]
    assert listed.strip().splitlines() == [f"- {finding}" for finding in findings]


@pytest.mark.parametrize("index", range(3), ids=["layers", "families", "forms"])
def test_table_follows_from_what_was_stored(index: int) -> None:
    table = outputs.result()["tables"][index]
    assert (table["title"], table["columns"]) == words.TABLES[index]
    standard.assert_table_agrees(index, arrays.recomputed()["tables"][index])


def test_there_are_no_other_tables_and_figures() -> None:
    result = outputs.result()
    assert len(result["tables"]) == len(words.TABLES)
    assert [figure["name"] for figure in result["figures"]] == list(words.FIGURES)


@pytest.mark.parametrize("name", words.FIGURES)
def test_figure_shows_what_was_stored(name: str) -> None:
    # 1. Its words, in its data and in the report.
    figure = outputs.read_json(f"figures/{name}.json")
    expected = words.figures()[name]
    assert agree(figure["caption"], expected["caption"]), expected["caption"]
    for part in ("title", "x_label", "y_label", "y_scale"):
        assert figure[part] == expected[part], part
    (listed,) = (one for one in outputs.result()["figures"] if one["name"] == name)
    assert (listed["title"], listed["caption"]) == (figure["title"], figure["caption"])
    report_text = (outputs.out() / "report.md").read_text("utf-8")
    assert f"\n{figure['caption']} (data: `figures/{name}.json`)\n" in report_text

    # 2. Its lines.
    lines = arrays.recomputed()["figures"][name]
    assert [one["label"] for one in figure["series"]] == list(lines)
    assert [one["style"] for one in figure["series"]] == expected["styles"]
    for one, values in zip(figure["series"], lines.values(), strict=True):
        assert one["x"] == list(range(len(values)))
        assert outputs.same(one["y"], values, 1e-5), one["label"]
        assert (one["band"], one["kind"], one["group"]) == (None, "line", None)
    assert figure["x_scale"] == "linear"
