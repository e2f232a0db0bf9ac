"""FEAT-011's gate on a real run of the tiny model: it passes, and fails on every mutant."""

import base64
import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gates.attention_views import arrays as gate_arrays
from gates.shared import outputs
from tests.gates import warm
from tests.gates.conftest import ROOT, run_experiment

GATE = "attention_views/test_attention_views.py"
TABLES = ("layers", "heads", "ablation")
ARRAYS = ("norms", "ablation_losses", "patterns", *(f"statistics_{s}" for s in gate_arrays.SETS))


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the outputs of a run at the planned size on the tiny model, and its inputs' file."""
    from lab.instruments import models

    folder = tmp_path_factory.mktemp("attention_views")
    models.save(models.tiny(0), folder / "model")
    config = yaml.safe_load((ROOT / "lab/attention_views/experiment.yaml").read_text("utf-8"))
    config["common"]["sequences"]["count"] = 4
    config["common"]["repeated"] = {"count": 2, "period": 16, "shown_period": 10}
    config["common"]["ablation"] = {"heads": 2, "draws": 3, "count": 2}
    config["common"]["layers"] = {"early": 1, "late": 1}
    config["common"]["texts"] = [{"label": "own", "text": "one's own\ttext"}]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    inputs = folder / "inputs.json"
    inputs.write_text(
        json.dumps({"smollm2-135m": {"kind": "input", "path": str(folder / "model")}})
    )
    module = "lab.attention_views.experiment"
    return run_experiment(module, str(folder / "config.yaml"), inputs, folder / "out"), inputs


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


def test_other_token_sequences_are_seen(judged, mutant):
    def shift(arrays: dict[str, np.ndarray]) -> None:
        for key, ids in list(arrays.items()):
            arrays[key] = ids.copy()
            arrays[key][:, 5] += 1

    warm.change(mutant / "artifacts/sequences.safetensors", shift)
    checks = {
        "test_running_text_is_that_of_the_documentation",
        "test_one_token_is_repeated_and_random_ones_are_not",
        "test_copies_are_copies[repeated]",
        "test_copies_are_copies[ablation]",
    }
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == checks


def test_other_heads_than_those_of_the_scores_are_seen(judged, mutant):
    path = mutant / "artifacts/ablation_heads.json"
    heads = json.loads(path.read_text())
    heads["induction"], heads["random_0"] = heads["random_0"], heads["induction"]
    path.write_text(json.dumps(heads))
    checks = {
        "test_switched_off_heads_are_those_of_the_scores",
        "test_random_sets_are_as_large_and_others",
        "test_losses_agree_with_the_model",
    }
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == checks


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
    document["first_head"] = [1 - document["first_head"][0], 0]


def better_fact(document: dict[str, Any]) -> None:
    before, after = document["introduction"].split("sequence is ")
    document["introduction"] = f"{before}sequence is 1{after}"


@pytest.mark.parametrize(
    ("mutate", "check"),
    [
        (brighter, "test_page_has_the_stored_patterns"),
        (higher_statistic, "test_page_has_the_stored_patterns"),
        (other_token, "test_page_shows_the_stored_texts"),
        (other_head, "test_page_opens_with_the_strongest_induction_head"),
        (better_fact, "test_page_states_the_numbers_of_its_pictures[loss_second_copy]"),
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
