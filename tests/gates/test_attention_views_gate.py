"""FEAT-011's gate on a real run of a tiny model: it passes, and sees every lie told of it."""

from __future__ import annotations

import base64
import json
import shutil
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file

from gates.attention_views import arrays as gate_arrays
from gates.attention_views import test_attention_views as gate
from gates.shared import outputs
from gates.shared.documents import NUMBER, written
from lab import present
from tests.gates import warm
from tests.gates.conftest import ROOT, run_experiment

if TYPE_CHECKING:
    from lab.instruments.models import Loaded

GATE = "attention_views/test_attention_views.py"
TABLES = ("layers", "heads", "ablation")
ARRAYS = ("norms", "ablation_losses", "patterns", *(f"statistics_{s}" for s in gate_arrays.SETS))


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the outputs of a run at the planned size on a tiny model, and its inputs' file."""
    from lab.instruments import models

    folder = tmp_path_factory.mktemp("attention_views")
    models.save(deeper(models.tiny(0)), folder / "model")
    config = yaml.safe_load((ROOT / "lab/attention_views/experiment.yaml").read_text("utf-8"))
    config["common"]["texts"] = [
        {"label": "own", "text": "one's own\ttext"}
    ]  # its tokens are bytes
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    inputs = folder / "inputs.json"
    inputs.write_text(
        json.dumps({"smollm2-135m": {"kind": "input", "path": str(folder / "model")}})
    )
    module = "lab.attention_views.experiment"
    return run_experiment(module, str(folder / "config.yaml"), inputs, folder / "out"), inputs


def deeper(tiny: Loaded) -> Loaded:
    """Return a random model of 14 layers of 4 heads: the plan compares layers from 12 on."""
    from transformers import LlamaForCausalLM

    config = tiny.model.config
    config.num_hidden_layers = 14
    torch.manual_seed(0)
    return replace(tiny, model=LlamaForCausalLM(config).eval())


def replace_by_noise(arrays: dict[str, np.ndarray]) -> None:
    """Replace each array by noise with its mean and standard deviation."""
    rng = np.random.default_rng(0)
    for key, array in arrays.items():
        noise = rng.standard_normal(array.shape) * array.std() + array.mean()
        arrays[key] = noise.astype(array.dtype)


def test_an_unchanged_run_passes(judged):
    assert warm.failing(GATE, *judged) == set()


def test_nothing_at_all_fails_every_measurement(judged, tmp_path):
    (tmp_path / "empty").mkdir()
    names = warm.failing(GATE, tmp_path / "empty", judged[1])
    assert {
        f"test_measurement_follows_from_what_was_stored[{name}]"
        for name in gate_arrays.MEASUREMENTS
    } < names


@pytest.mark.parametrize("name", ARRAYS)
def test_noise_in_an_array_is_seen_by_the_model(judged, mutant, name):
    """Numbers, tables and figures could have been made anew from the noise: the model cannot."""
    warm.change(mutant / f"artifacts/{name}.safetensors", replace_by_noise)
    check = "test_statistics_agree_with_eager_attention[natural]"
    if name.startswith("statistics"):
        check = f"test_statistics_agree_with_eager_attention[{name.removeprefix('statistics_')}]"
    elif name != "norms":
        check = {
            "ablation_losses": "test_losses_agree_with_the_model",
            "patterns": "test_patterns_agree_with_eager_attention",
        }[name]
    assert warm.fails(check, GATE, mutant, judged[1])


#### what the seed draws


@pytest.mark.parametrize("kind", (*gate_arrays.SETS, "ablation"))
def test_another_token_is_seen(judged, mutant, kind):
    def shift(arrays: dict[str, np.ndarray]) -> None:
        arrays[kind][-1, 5] += 1

    warm.change(mutant / "artifacts/sequences.safetensors", shift)
    check = f"test_sequences_are_those_that_the_seed_draws[{kind}]"
    assert warm.fails(check, GATE, mutant, judged[1])


def test_a_control_copied_from_the_run_is_seen(judged, mutant):
    for file in ("sequences", "statistics_random_tokens"):
        path = mutant / f"artifacts/{file}.safetensors"
        natural = load_file(mutant / "artifacts/statistics_natural.safetensors")

        def copy(arrays: dict[str, np.ndarray], natural: dict[str, np.ndarray] = natural) -> None:
            if "natural" in arrays:
                arrays["random_tokens"] = arrays["natural"].copy()
            else:
                arrays.update(natural)

        warm.change(path, copy)
    statistics = "test_statistics_agree_with_eager_attention[random_tokens]"
    ids = "test_sequences_are_those_that_the_seed_draws[random_tokens]"
    seen = warm.failing(GATE, mutant, judged[1], checks=[statistics, ids])
    assert seen == {ids}, "the statistics are right for the copied tokens"


def test_random_sets_that_were_chosen_are_seen(judged, mutant):
    path = mutant / "artifacts/ablation_heads.json"
    heads = json.loads(path.read_text())
    taken = [tuple(head) for head in heads["induction"]]
    others = [[13 - i // 4, i % 4] for i in range(56) if (13 - i // 4, i % 4) not in taken]
    for number in range(5):  # of the last layers, as many, none of them an induction head
        heads[f"random_{number}"] = sorted(others[number : number + 10])
    path.write_text(json.dumps(heads))
    check = "test_random_sets_are_those_that_the_seed_draws"
    assert warm.fails(check, GATE, mutant, judged[1])


@pytest.mark.parametrize("name", ["induction", "previous"])
def test_other_heads_than_those_of_the_scores_are_seen(judged, mutant, name):
    path = mutant / "artifacts/ablation_heads.json"
    heads = json.loads(path.read_text())
    heads[name][0] = heads["random_0"][0]
    path.write_text(json.dumps(heads))
    checks = {
        f"test_switched_off_heads_are_those_of_the_scores[{name}]",
        "test_losses_agree_with_the_model",
    }
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == checks


@pytest.mark.parametrize("key", ["natural", "repeated", "random_tokens", "one_token", "own_0"])
def test_another_text_of_the_page_is_seen(judged, mutant, key):
    path = mutant / "artifacts/texts.json"
    texts = json.loads(path.read_text())
    (text,) = (text for text in texts if text["key"] == key)
    text["label"] = "random tokens" if key != "random_tokens" else "running text"
    path.write_text(json.dumps(texts))
    assert warm.fails("test_texts_are_those_that_the_seed_draws", GATE, mutant, judged[1])


#### all sequences, all heads


@pytest.mark.parametrize("kind", ["repeated", "ablation"])
def test_sequences_left_out_are_seen(judged, mutant, kind):
    def leave_out(arrays: dict[str, np.ndarray]) -> None:
        for name in [kind] if kind in arrays else list(arrays):
            arrays[name] = arrays[name][:2].copy()

    arrays_file = {"repeated": "statistics_repeated", "ablation": "ablation_losses"}[kind]
    for file in ("sequences", arrays_file):
        warm.change(mutant / f"artifacts/{file}.safetensors", leave_out)
    checks = {
        "test_arrays_have_all_sequences_of_the_config",
        f"test_sequences_are_those_that_the_seed_draws[{kind}]",
    }
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == checks


@pytest.mark.parametrize("kind", gate_arrays.SETS)
def test_a_statistic_of_a_single_head_is_seen(judged, mutant, kind):
    def add_head(arrays: dict[str, np.ndarray]) -> None:
        name = "induction" if "induction" in arrays else "sink"
        arrays[name][-1, 9, 2, 40:] += 0.01

    warm.change(mutant / f"artifacts/statistics_{kind}.safetensors", add_head)
    check = f"test_statistics_agree_with_eager_attention[{kind}]"
    assert warm.fails(check, GATE, mutant, judged[1])


def test_a_norm_of_a_small_residual_is_seen(judged, mutant):
    def smaller(arrays: dict[str, np.ndarray]) -> None:
        arrays["norms"][0, 0, 1:] *= 0.99

    warm.change(mutant / "artifacts/norms.safetensors", smaller)
    check = "test_statistics_agree_with_eager_attention[natural]"
    assert warm.fails(check, GATE, mutant, judged[1])


@pytest.mark.parametrize("name", ["nothing", "induction", "previous", "random_0", "random_4"])
def test_losses_of_a_single_set_and_sequence_are_seen(judged, mutant, name):
    def lower(arrays: dict[str, np.ndarray]) -> None:
        arrays[name][-1] -= np.float32(0.05)

    warm.change(mutant / "artifacts/ablation_losses.safetensors", lower)
    assert warm.fails("test_losses_agree_with_the_model", GATE, mutant, judged[1])


def test_a_pattern_of_a_single_head_is_seen(judged, mutant):
    def look_elsewhere(arrays: dict[str, np.ndarray]) -> None:
        row = arrays["repeated"][7, 3, 30]
        row[[2, 4]] += np.array([0.01, -0.01], dtype="float32")

    warm.change(mutant / "artifacts/patterns.safetensors", look_elsewhere)
    assert warm.fails("test_patterns_agree_with_eager_attention", GATE, mutant, judged[1])


#### settings


SIZE = "test_run_was_of_the_planned_size"
RULES = "test_settings_that_decide_what_counts_are_those_of_the_plan"


@pytest.mark.parametrize(
    ("path", "other", "check"),
    [
        ("config sequences count", 4, SIZE),
        ("config sequences length", 65, SIZE),
        ("config repeated count", 2, SIZE),
        ("config repeated period", 30, SIZE),
        ("config ablation count", 2, SIZE),
        ("config ablation draws", 3, SIZE),
        ("config ablation heads", 20, RULES),
        ("config thresholds induction", 0.01, RULES),
        ("config layers late", 11, RULES),
        ("seed", 1, RULES),
        ("dtype", "bfloat16", RULES),
        ("profile", "gpu", RULES),
    ],
)
def test_other_settings_than_planned_are_seen(judged, mutant, path, other, check):
    def change(result: dict[str, Any]) -> None:
        *parts, last = path.split()
        settings = result["environment"]
        for part in parts:
            settings = settings[part]
        settings[last] = other

    changed_result(mutant, change)
    assert warm.fails(check, GATE, mutant, judged[1])


#### words


def changed_result(mutant: Path, mutate: Callable[[dict[str, Any]], Any]) -> None:
    """Change result.json, and nothing else."""
    path = mutant / "result.json"
    result = json.loads(path.read_text())
    mutate(result)
    path.write_text(json.dumps(result))


VERDICTS = (
    ("the sink is the first token, not the beginning of the text", "the first token is no sink"),
    ("the first token is no sink", "the sink is the first token, not the beginning of the text"),
    ("it is not about content", "it needs text that means something"),
    ("it needs text that means something", "it is not about content"),
    ("and it stays there", "where no token differs from another it vanishes"),
    ("token grows with depth", "token does not grow with depth"),
    ("token does not grow with depth", "token grows with depth"),
    ("share loosely follows", "share follows"),
    ("share does not follow", "share follows"),
    ("which is nearer", "which is farther"),
    ("which is farther", "which is nearer"),
    ("so there are none", "training made them"),
    ("no earlier layer has", "an earlier layer has"),
    ("does not show what copying needs", "shows what copying needs"),
    ("copying does not hang on this single head", "copying needs this head too"),
    ("On one token repeated", "On running text"),
)


@pytest.fixture
def stated(judged: tuple[Path, Path], changed_out: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the findings, and a function that tells whether the gate sees others in their place.

    The gate's check is called in this process: it is needed often.
    """
    monkeypatch.setenv("PHASES_OUT", str(changed_out))
    monkeypatch.setenv("PHASES_INPUTS", str(judged[1]))
    result = (judged[0] / "result.json").read_text()
    report = (judged[0] / "report.md").read_text()
    honest = json.loads(result)["findings"]

    def is_seen(findings: list[str]) -> bool:
        text = report
        for old, new in zip(honest, findings, strict=True):
            text = text.replace(old, new)
        (changed_out / "report.md").write_text(text)
        document = json.loads(result) | {"findings": findings}
        (changed_out / "result.json").write_text(json.dumps(document))
        try:
            gate.test_findings_say_what_follows_from_the_numbers()
        except AssertionError:
            return True
        return False

    assert not is_seen(honest)
    return honest, is_seen


def test_every_verdict_that_is_turned_around_is_seen(stated):
    findings, is_seen = stated
    turned = set()
    for old, new in VERDICTS:
        lying = [finding.replace(old, new) for finding in findings]
        changed = {number for number in range(len(findings)) if lying[number] != findings[number]}
        turned |= changed
        assert is_seen(lying) == bool(changed), new
    assert turned == set(range(9)), "a verdict of each finding is turned around"


def test_a_number_of_a_finding_in_anothers_place_is_seen(stated):
    findings, is_seen = stated
    for number, finding in enumerate(findings):
        numbers = NUMBER.findall(finding)
        lying = list(findings)
        lying[number] = finding.replace(numbers[-1], "0.7", 1)
        assert is_seen(lying), lying[number]


def test_a_report_with_other_findings_than_the_result_is_seen(judged, mutant):
    path = mutant / "report.md"
    path.write_text(path.read_text().replace("## Findings\n", "## Findings\n\n- All is well."))
    check = "test_findings_say_what_follows_from_the_numbers"
    assert warm.fails(check, GATE, mutant, judged[1])


def reverse_labels(figure: dict[str, Any]) -> None:
    parts = figure.get("series") or figure["panels"]
    labels = [part["label"] for part in parts][::-1]
    for part, label in zip(parts, labels, strict=True):
        part["label"] = label


def other_caption(figure: dict[str, Any]) -> None:
    figure["caption"] = figure["caption"].replace("1", "2", 1)


def other_title(figure: dict[str, Any]) -> None:
    figure["title"] += " of a larger model"


def other_axes(figure: dict[str, Any]) -> None:
    figure["x_label"], figure["y_label"] = figure["y_label"], figure["x_label"]


@pytest.mark.parametrize("edit", [reverse_labels, other_caption, other_title, other_axes])
def test_figures_with_other_words_are_seen(judged, mutant, edit):
    result = json.loads((mutant / "result.json").read_text())
    report = (mutant / "report.md").read_text()
    expected = set()
    for listed in result["figures"]:
        name = listed["name"]
        path = mutant / f"figures/{name}.json"
        figure = json.loads(path.read_text())
        before = json.dumps(figure)
        edit(figure)
        path.write_text(json.dumps(figure))
        if json.dumps(figure) != before:
            kind = "map" if "panels" in figure else "figure"
            expected.add(f"test_{kind}_shows_what_was_stored[{name}]")
        # a forger says the same everywhere
        report = report.replace(listed["caption"], figure["caption"])
        listed |= {"title": figure["title"], "caption": figure["caption"]}
    (mutant / "report.md").write_text(report)
    (mutant / "result.json").write_text(json.dumps(result))
    assert len(expected) >= 7, "a single series has no other label"
    checks = {"test_map_shows_what_was_stored", "test_figure_shows_what_was_stored"}
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == expected


def test_a_caption_of_the_report_alone_is_seen(judged, mutant):
    path = mutant / "report.md"
    path.write_text(path.read_text().replace("; the band is the range", "; the band is an error"))
    check = "test_figure_shows_what_was_stored[entropy_profile]"
    assert warm.fails(check, GATE, mutant, judged[1])


@pytest.mark.parametrize("index", range(len(TABLES)), ids=TABLES)
def test_columns_in_each_others_places_are_seen(judged, mutant, index):
    def exchange(result: dict[str, Any]) -> None:
        columns = result["tables"][index]["columns"]
        columns[1], columns[2] = columns[2], columns[1]

    changed_result(mutant, exchange)
    check = f"test_table_follows_from_what_was_stored[{TABLES[index]}]"
    assert warm.fails(check, GATE, mutant, judged[1])


@pytest.mark.parametrize(
    ("name", "field", "other"),
    [
        ("sink_rate", "unit", "% of layers"),
        ("sink_follows_norm", "exact", True),
        ("induction_heads", "exact", False),
    ],
)
def test_another_unit_or_kind_of_number_is_seen(judged, mutant, name, field, other):
    def change(result: dict[str, Any]) -> None:
        result["measurements"][name][field] = other

    changed_result(mutant, change)
    check = f"test_measurement_follows_from_what_was_stored[{name}]"
    assert warm.fails(check, GATE, mutant, judged[1])


@pytest.mark.parametrize(
    "value", [None, 0.0, 3e-5, 0.0123, 0.5, 9.999, 12.0, 123.456, 1234.5, 4e7, -0.25]
)
def test_the_gate_writes_numbers_as_the_report_does(value):
    for digits in (2, 3, 4):
        assert written(value, digits) == present.number(value, digits)


def changed_page(mutant: Path, mutate: Callable[[dict[str, Any]], Any]) -> None:
    """Change the data of the page, and nothing else of it."""
    path = mutant / "attention.html"
    start = '<script type="application/json" id="data">'
    before, rest = path.read_text().split(start)
    data, after = rest.split("</script>", 1)
    document = json.loads(data)
    mutate(document)
    path.write_text(f"{before}{start}{json.dumps(document)}</script>{after}")


def brighter(document: dict[str, Any]) -> None:
    variant = document["texts"][1]["variants"][0]
    levels = bytearray(zlib.decompress(base64.b64decode(variant["shares"])))
    levels[0] -= 2  # two 255ths in a single cell
    variant["shares"] = base64.b64encode(zlib.compress(bytes(levels))).decode()


def higher_statistic(document: dict[str, Any]) -> None:
    document["texts"][0]["variants"][0]["statistics"]["sink"][1][2] += 0.001


def other_token(document: dict[str, Any]) -> None:
    document["texts"][0]["tokens"][3] += "x"


def other_head(document: dict[str, Any]) -> None:
    document["first_head"] = [13 - document["first_head"][0], 0]


def better_fact(document: dict[str, Any]) -> None:
    before, after = document["introduction"].split("sequence is ")
    document["introduction"] = f"{before}sequence is 1{after}"


def other_name(document: dict[str, Any]) -> None:
    sink, entropy, *_ = document["statistics"]
    sink["label"], entropy["label"] = entropy["label"], sink["label"]


@pytest.mark.parametrize(
    ("mutate", "check"),
    [
        (brighter, "test_page_has_the_stored_patterns"),
        (higher_statistic, "test_page_has_the_stored_patterns"),
        (other_token, "test_page_shows_the_stored_texts"),
        (other_head, "test_page_opens_with_the_strongest_induction_head"),
        (better_fact, "test_page_states_the_numbers_of_its_pictures"),
        (other_name, "test_page_calls_its_statistics_by_their_names"),
    ],
)
def test_a_page_that_shows_something_else_is_seen(judged, mutant, mutate, check):
    changed_page(mutant, mutate)
    assert warm.fails(check, GATE, mutant, judged[1])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("default-src 'none'", "default-src https:"),
        ("const SOURCES = 6", "const SOURCES = 7"),
        ("--surface: #ffffff", "--surface: #fffffe"),
        ("sharesOf(kept.variant, now.layer,", "sharesOf(kept.variant, 1 - now.layer,"),
    ],
)
def test_a_page_with_another_program_or_policy_is_seen(judged, mutant, old, new):
    path = mutant / "attention.html"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    warm.forge(mutant)
    check = "test_page_is_that_of_the_lab_and_small_enough"
    assert warm.fails(check, GATE, mutant, judged[1])


def test_a_changed_cell_of_a_table_or_value_of_a_figure_is_seen(judged, mutant):
    result = json.loads((mutant / "result.json").read_text())
    for table, column in zip(result["tables"], (4, 1, 3), strict=True):
        table["rows"][1][column] *= 1.01
    (mutant / "result.json").write_text(json.dumps(result))
    expected = {f"test_table_follows_from_what_was_stored[{name}]" for name in TABLES}
    for figure in result["figures"]:
        path = mutant / f"figures/{figure['name']}.json"
        data = json.loads(path.read_text())
        if "panels" in data:
            data["panels"][-1]["values"][1][0] += 0.01
            expected.add(f"test_map_shows_what_was_stored[{figure['name']}]")
        else:
            data["series"][0]["y"][1] += 0.01
            expected.add(f"test_figure_shows_what_was_stored[{figure['name']}]")
        path.write_text(json.dumps(data))
    assert warm.failing(GATE, mutant, judged[1]) == expected


@pytest.fixture(scope="module")
def changed_out(judged: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy whose result.json each test overwrites."""
    return Path(shutil.copytree(judged[0], tmp_path_factory.mktemp("changed") / "out"))


@pytest.mark.parametrize("name", gate_arrays.MEASUREMENTS)
def test_a_measurement_changed_alone_is_seen(name, judged, changed_out, monkeypatch):
    monkeypatch.setenv("PHASES_OUT", str(changed_out))
    monkeypatch.setenv("PHASES_INPUTS", str(judged[1]))
    original = (judged[0] / "result.json").read_text()
    value = json.loads(original)["measurements"][name]["value"]

    def fails(new: Any) -> bool:
        changed = json.loads(original)
        changed["measurements"][name]["value"] = new
        (changed_out / "result.json").write_text(json.dumps(changed))
        try:
            outputs.assert_agrees(name, gate_arrays.measurements()[name])
        except AssertionError:
            return True
        return False

    assert not fails(value), "the original value must pass"
    if value is None:
        assert fails(1.0)
    elif isinstance(value, bool):
        assert fails(not value)
    elif isinstance(value, str):
        assert fails(value + "0")
    elif isinstance(value, int):
        assert fails(value + 1)
    else:
        assert fails(value * 1.05 or 0.05)
