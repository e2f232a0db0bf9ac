"""FEAT-014's gate on a real run of a tiny model: it passes, and sees every lie told of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from gates.activation_extraction import arrays as gate_arrays
from gates.activation_extraction import test_activation_extraction as gate
from tests.gates import warm
from tests.gates.conftest import assert_judges_every_measurement, run_experiment
from tests.soak import mark_soak

if TYPE_CHECKING:
    from lab.instruments.models import Loaded

GATE = "activation_extraction/test_activation_extraction.py"
VECTORS = "test_stored_vectors_are_those_of_the_model"
LOGITS = "test_stored_logits_are_those_of_the_model"
LENS = "test_lens_of_every_layer_is_that_of_the_model"
STATISTICS = "test_statistics_are_those_of_the_model"
FORM = "test_form_is_recorded_as_it_computes"
FAMILY = "test_family_is_recorded_as_it_computes"
FOLLOWS = "test_measurement_follows_from_what_was_stored"
SUMS = "test_sums_are_those_of_the_model_s_type"
FINDINGS = "test_findings_say_what_follows_from_the_numbers"

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the outputs of a run at the planned size on a tiny model, and its inputs' file."""
    from lab.instruments import models

    folder = tmp_path_factory.mktemp("activation_extraction")
    models.save(deeper(models.tiny(0)), folder / "model")
    inputs = folder / "inputs.json"
    inputs.write_text(
        json.dumps({"smollm2-135m": {"kind": "input", "path": str(folder / "model")}})
    )
    module = "lab.activation_extraction.experiment"
    config = "lab/activation_extraction/experiment.yaml"
    return run_experiment(module, config, inputs, folder / "out"), inputs


def deeper(tiny: Loaded) -> Loaded:
    """Return a random model of 6 layers whose writes and final norm matter."""
    from transformers import LlamaForCausalLM

    config = tiny.model.config
    config.num_hidden_layers = 6
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if "o_proj" in name or "down_proj" in name:
            parameter.data *= 10
    model.model.norm.weight.data = 0.5 + torch.rand(config.hidden_size)
    model.lm_head.weight.data *= 10
    return replace(tiny, model=model)


def change(out: Path, file: str, edit: Callable[[Arrays], Any]) -> None:
    warm.change(out / f"artifacts/{file}.safetensors", edit)


def edit_result(out: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    path = out / "result.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def test_an_unchanged_run_passes(judged):
    assert warm.failing_in_new_process(GATE, *judged) == set()


def test_nothing_at_all_fails_every_measurement(judged, tmp_path):
    (tmp_path / "empty").mkdir()
    names = warm.failing(GATE, tmp_path / "empty", judged[1])
    assert {f"{FOLLOWS}[{name}]" for name in gate_arrays.NAMES} < names


#### the stream


@pytest.mark.parametrize("name", [*gate_arrays.STREAM, "normed", "hidden_states", "stopped"])
def test_one_token_of_one_layer_is_seen(judged, mutant, name):
    def longer(arrays: Arrays) -> None:
        arrays[name][..., 9, :] *= np.float32(1.01)

    change(mutant, "model", longer)
    assert warm.fails(f"{VECTORS}[{name}]", GATE, mutant, judged[1])


def test_a_sum_that_is_right_by_construction_is_seen(judged, mutant):
    """Writes at a wrong place, and the stream made of them: all identities hold."""

    def construct(arrays: Arrays) -> None:
        arrays["attn_out"] *= np.float32(1.1)
        arrays["resid_mid"] = arrays["resid_pre"] + arrays["attn_out"]
        arrays["mlp_out"] = arrays["resid_post"] - arrays["resid_mid"]

    change(mutant, "model", construct)
    checks = {f"{VECTORS}[{name}]" for name in ("attn_out", "resid_mid", "mlp_out")}
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == checks


def test_a_control_copied_from_the_run_is_seen(judged, mutant):
    def copy(arrays: Arrays) -> None:
        arrays["normed"] = arrays["resid_pre"].copy()

    change(mutant, "model", copy)
    checks = {f"{VECTORS}[normed]", "test_controls_are_seen"}
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == checks


def test_a_last_hidden_state_that_is_the_stream_is_seen(judged, mutant):
    def copy(arrays: Arrays) -> None:
        arrays["hidden_states"][-1] = arrays["resid_post"][-1]

    change(mutant, "model", copy)
    checks = {f"{VECTORS}[hidden_states]", "test_only_the_last_hidden_state_is_normed"}
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == checks


def test_other_texts_are_seen(judged, mutant):
    def shift(arrays: Arrays) -> None:
        arrays["ids"][-1, 5] += 1

    change(mutant, "model", shift)
    assert warm.fails("test_texts_are_those_of_the_plan", GATE, mutant, judged[1])


@pytest.mark.parametrize("file", ["model", "logits", "forms", "statistics"])
def test_arrays_that_were_left_out_are_seen(judged, mutant, file):
    def shorten(arrays: Arrays) -> None:
        name = next(iter(sorted(arrays)))
        arrays[name] = arrays[name][:1].copy()

    change(mutant, file, shorten)
    assert warm.fails("test_arrays_are_whole", GATE, mutant, judged[1])


#### lens and logits


@pytest.mark.parametrize("name", ["plain", "recorded", "lens", "double"])
def test_other_logits_are_seen(judged, mutant, name):
    def shift(arrays: Arrays) -> None:
        arrays[name][3, 1, 7] += 0.05

    change(mutant, "logits", shift)
    assert warm.fails(f"{LOGITS}[{name}]", GATE, mutant, judged[1])


def test_a_lens_normed_twice_that_is_the_lens_is_seen(judged, mutant):
    def logits(arrays: Arrays) -> None:
        arrays["double"] = arrays["lens"].copy()

    def lens(arrays: Arrays) -> None:
        arrays["double_kl"] = arrays["lens_kl"].copy()

    change(mutant, "logits", logits)
    change(mutant, "model", lens)
    checks = {f"{LOGITS}[double]", f"{LENS}[double_kl]"}
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == checks


@pytest.mark.parametrize("name", ["lens_kl", "double_kl"])
def test_a_curve_that_was_invented_is_seen(judged, mutant, name):
    def invent(arrays: Arrays) -> None:
        falling = np.linspace(3.0, 0.0, len(arrays[name]))[:, None, None]
        arrays[name] = np.broadcast_to(falling, arrays[name].shape).copy()

    change(mutant, "model", invent)
    assert warm.fails(f"{LENS}[{name}]", GATE, mutant, judged[1])


#### statistics


@pytest.mark.parametrize(
    "statistic", mark_soak(gate_arrays.STATISTICS, short={"mean", "variance", "places"})
)
def test_statistics_made_of_nothing_are_seen(judged, mutant, statistic):
    """Both sides are equal, and wrong."""

    def spoil(arrays: Arrays) -> None:
        for side in ("streamed", "reference"):
            name = f"mlp_out.{side}.{statistic}"
            if statistic == "places":
                arrays[name][2, 0, 1] = (arrays[name][2, 0, 1] + 1) % 64
            else:
                arrays[name][2] *= 1.01

    change(mutant, "statistics", spoil)
    checks = {f"{STATISTICS}[mlp_out-{side}]" for side in ("streamed", "reference")}
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == checks


@pytest.mark.parametrize("statistic", ["mean", "variance"])
def test_one_small_dimension_is_seen(judged, mutant, statistic):
    """Beside a massive one it would be nothing."""

    def spoil(arrays: Arrays) -> None:
        arrays["resid_post.streamed.mean"][3, 5] *= 1e4
        arrays["resid_post.reference.mean"][3, 5] *= 1e4
        smallest = np.abs(arrays[f"mlp_out.reference.{statistic}"][2]).argmin()
        for side in ("streamed", "reference"):
            arrays[f"mlp_out.{side}.{statistic}"][2, smallest] += 0.001 * np.sqrt(
                arrays[f"mlp_out.{side}.variance"][2, smallest]
            ) ** (2 if statistic == "variance" else 1)

    change(mutant, "statistics", spoil)
    checks = {f"{STATISTICS}[mlp_out-{side}]" for side in ("streamed", "reference")}
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == checks


def test_a_variance_divided_by_one_less_is_seen(judged, mutant):
    def spoil(arrays: Arrays) -> None:
        for name in arrays:
            if name.endswith(".variance"):
                arrays[name] *= 512 / 511

    change(mutant, "statistics", spoil)
    assert warm.fails(f"{STATISTICS}[resid_post-streamed]", GATE, mutant, judged[1])


def test_statistics_that_were_never_streamed_are_seen(judged, mutant):
    """Another order of sums leaves another last digit: two equal sides are one."""

    def copy(arrays: Arrays) -> None:
        for name in arrays:
            if ".streamed." in name:
                arrays[name] = arrays[name.replace("streamed", "reference")].copy()

    change(mutant, "statistics", copy)
    check = "test_running_statistics_are_those_of_kept_tensors"
    assert warm.fails(check, GATE, mutant, judged[1])


#### sums


@pytest.mark.parametrize(
    ("write", "after", "before"),
    [("mlp_out", "resid_post", "resid_mid"), ("attn_out", "resid_mid", "resid_pre")],
)
def test_a_write_that_is_a_difference_of_streams_is_seen(judged, mutant, write, after, before):
    """All identities hold, by construction, and within the rounding that is allowed."""

    def subtract(arrays: Arrays) -> None:
        arrays[write] = arrays[after] - arrays[before]

    change(mutant, "model", subtract)
    assert warm.fails(f"{SUMS}[model]", GATE, mutant, judged[1])


@pytest.mark.parametrize("form", ["bfloat16", "nf4", "adapter"])
def test_a_form_that_was_scaled_is_seen(judged, mutant, form):
    def scale(arrays: Arrays) -> None:
        for name in gate_arrays.STREAM:
            arrays[f"{form}.{name}"] *= np.float32(1.003)

    change(mutant, "forms", scale)
    assert warm.fails(f"{SUMS}[{form}]", GATE, mutant, judged[1])


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox"])
def test_float32_that_was_cast_from_float64_is_seen(judged, mutant, family):
    def cast(arrays: Arrays) -> None:
        for name in gate_arrays.STREAM:
            if f"float32.{name}" in arrays:  # the first text, which has no padding
                arrays[f"float32.{name}"][:, 0] = arrays[f"float64.{name}"][:, 0]

    change(mutant, f"families/{family}", cast)
    assert warm.fails(f"{SUMS}[{family} float32]", GATE, mutant, judged[1])


def test_bfloat16_that_was_rounded_from_float32_is_seen(judged, mutant):
    """With sums that are right to the last bit."""
    model = load_file(mutant / "artifacts/model.safetensors")
    half = {name: rounded(model[name][:, :16]) for name in gate_arrays.STREAM}
    for layer in range(len(half["resid_pre"])):
        if layer > 0:
            half["resid_pre"][layer] = half["resid_post"][layer - 1]
        mid = rounded(half["resid_pre"][layer] + half["attn_out"][layer])
        half["resid_mid"][layer] = mid
        half["resid_post"][layer] = rounded(mid + half["mlp_out"][layer])
    arrays = {f"bfloat16.{name}": array for name, array in half.items()}
    change(mutant, "forms", lambda stored: stored.update(arrays))
    check = "test_bfloat16_was_computed_with"
    checks = {check, f"{SUMS}[bfloat16]"}
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == {check}


def rounded(array: np.ndarray) -> np.ndarray:
    """Return float32 numbers rounded to bfloat16."""
    return torch.from_numpy(array.copy()).bfloat16().float().numpy()


#### forms and families


@pytest.mark.parametrize("form", gate_arrays.FORMS)
def test_a_form_that_is_the_model_itself_is_seen(judged, mutant, form):
    model = load_file(mutant / "artifacts/model.safetensors")

    def copy(arrays: Arrays) -> None:
        for name in gate_arrays.STREAM:
            arrays[f"{form}.{name}"] = model[name][:, :16].copy()

    change(mutant, "forms", copy)
    checks = {"test_controls_are_seen"}
    if form != "bfloat16":  # which on a small model is within the rounding that is allowed
        checks.add(f"{FORM}[{form}]")
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == checks


def test_an_adapter_that_changes_nothing_is_seen(judged, mutant):
    def silence(arrays: Arrays) -> None:
        for name in arrays:
            if "lora_B" in name:
                arrays[name] *= 0

    warm.change(mutant / "artifacts/adapter/adapter_model.safetensors", silence)
    assert warm.fails(f"{FORM}[adapter]", GATE, mutant, judged[1])


@pytest.mark.parametrize(
    "family", mark_soak(gate_arrays.FAMILIES, short={"llama", "gemma2", "olmo2", "gpt_neox"})
)
def test_a_family_of_other_arrays_is_seen(judged, mutant, family):
    def scale(arrays: Arrays) -> None:
        for name in arrays:
            if name.startswith("float"):
                arrays[name] *= arrays[name].dtype.type(1.01)  # all identities hold

    change(mutant, f"families/{family}", scale)
    assert warm.fails(f"{FAMILY}[{family}]", GATE, mutant, judged[1])


@pytest.mark.parametrize("family", ["gemma2", "olmo2", "gpt_neox"])
def test_a_family_that_is_another_one_is_seen(judged, mutant, family):
    folder = mutant / "artifacts/families"
    shutil.copy(folder / "llama.safetensors", folder / f"{family}.safetensors")
    assert warm.fails(f"{FAMILY}[{family}]", GATE, mutant, judged[1])


def test_a_family_s_lens_that_is_copied_from_its_logits_is_seen(judged, mutant):
    def shift(arrays: Arrays) -> None:
        arrays["logits"] += 0.01
        arrays["lens"] = arrays["logits"].copy()

    change(mutant, "families/gemma2", shift)
    assert warm.fails(f"{FAMILY}[gemma2]", GATE, mutant, judged[1])


#### guards, settings, words


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("hooks_left", 1),
        ("second_pass_refused", False),
        ("change_in_place_refused", False),
        ("stop_layers_run", 6),
        ("layers_recorded", 5),
    ],
)
def test_a_guard_that_did_not_hold_is_seen(judged, mutant, name, answer):
    path = mutant / "artifacts/guards.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: answer}))
    check = "test_extractor_refuses_and_leaves_nothing_behind"
    assert warm.fails(check, GATE, mutant, judged[1])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("texts", {"count": 2, "length": 64}),
        ("positions", [63]),
        ("form_tokens", 1),
        ("stop_layer", 5),
        ("silent_layer", 0),
        ("model", "tiny"),
    ],
)
def test_another_setting_is_seen(judged, mutant, name, value):
    edit_result(mutant, lambda d: d["environment"]["config"].update({name: value}))
    assert warm.fails("test_run_was_the_planned_one", GATE, mutant, judged[1])


def test_another_seed_is_seen(judged, mutant):
    edit_result(mutant, lambda d: d["environment"].update(seed=3))
    assert warm.fails("test_run_was_the_planned_one", GATE, mutant, judged[1])


@pytest.mark.parametrize(
    ("index", "word", "other"),
    [
        (0, "is the stream", "is NOT the stream"),
        (0, "which shows", "which does NOT show"),
        (1, "they are NOT the stream", "the last one alone is behind the final norm"),
        (1, "the last one alone is behind the final norm", "they are NOT the stream"),
        (2, "the lens is the model", "the lens is NOT the model"),
        (2, "hardly noticed", "wrong"),
        (2, "away: wrong", "away: hardly noticed"),
        (3, "in float32 and", "in float64 and"),
        (4, "(NF4)", "(with an adapter)"),
        (5, "the tensors", "tensors"),
        (6, "5 of 5", "4 of 5"),
    ],
)
def test_another_word_of_a_finding_is_seen(judged, mutant, index, word, other):
    sentence = json.loads((mutant / "result.json").read_text())["findings"][index]
    if word not in sentence:  # the other verdict is that of this model
        return
    edit_result(
        mutant, lambda d: d["findings"].__setitem__(index, sentence.replace(word, other, 1))
    )
    assert warm.fails(FINDINGS, GATE, mutant, judged[1])


@pytest.mark.parametrize("name", ["identity", "lengths", "lens"])
@pytest.mark.parametrize("part", ["y", "label", "caption", "style"])
def test_another_figure_is_seen(judged, mutant, name, part):
    path = mutant / f"figures/{name}.json"
    figure = json.loads(path.read_text())
    series = figure["series"]
    if part == "y":
        series[-1]["y"][1] = series[-1]["y"][1] * 1.1 + 1e-3
    elif part == "label":
        series[0]["label"], series[1]["label"] = series[1]["label"], series[0]["label"]
    elif part == "style":
        series[0]["style"] = "dotted"
    else:
        figure["caption"] = figure["caption"].replace("layer", "head", 1)
    path.write_text(json.dumps(figure))
    assert warm.fails(f"test_figure_shows_what_was_stored[{name}]", GATE, mutant, judged[1])


@pytest.mark.parametrize("index", range(3))
def test_a_changed_table_is_seen(judged, mutant, index):
    edit_result(mutant, lambda d: d["tables"][index]["rows"][2].__setitem__(-1, 0.123))
    name = ("layers", "families", "forms")[index]
    assert warm.fails(f"test_table_follows_from_what_was_stored[{name}]", GATE, mutant, judged[1])


def test_a_row_of_another_family_is_seen(judged, mutant):
    def swap(document: dict[str, Any]) -> None:
        rows = document["tables"][1]["rows"]
        rows[4][0], rows[5][0] = rows[5][0], rows[4][0]

    edit_result(mutant, swap)
    check = "test_table_follows_from_what_was_stored[families]"
    assert warm.fails(check, GATE, mutant, judged[1])


def test_another_headline_is_seen(judged, mutant):
    edit_result(mutant, lambda d: d["headline"].reverse())
    assert warm.fails("test_headline_is_that_of_the_plan", GATE, mutant, judged[1])


NOISY = [name for name in gate_arrays.UNITS if "error" in name]


@pytest.mark.parametrize(
    "name", mark_soak(NOISY, short={"residual_error", "lens_error_last", "statistics_error"})
)
def test_other_float_noise_is_seen(judged, mutant, name):
    """`assert_agrees` takes everything below 1e-9 for 0."""
    value = json.loads((mutant / "result.json").read_text())["measurements"][name]["value"]
    edit_result(mutant, lambda d: d["measurements"][name].update(value=value * 1.05 or 1e-15))
    assert warm.fails(f"{FOLLOWS}[{name}]", GATE, mutant, judged[1])


def test_the_runner_judges_every_measurement(judged, gates_dir):
    assert_judges_every_measurement(GATE, *judged, gates_dir)


def test_tolerances_are_below_what_lies_change():
    assert gate.SEEN < 0.1
    assert max(gate.FAMILY.values()) < 0.01
