"""Every topic's replay computes what its run stored, bit by bit.

On tiny random models: the smoke profile of a topic is run, then its replay.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lab.replay import Row, array_of, read_stored, write_rows
from lab.synthesis.reproduction.comparing import are_equal
from tests.forks import run_module
from tests.gates.conftest import ROOT

TOPICS = (
    "qlora",
    "loss_curves",
    "learning_rate",
    "lora_rank",
    "forgetting",
    "attention_extraction",
    "attention_views",
    "attention_comparison",
    "induction_heads",
    "activation_extraction",
    "representation_analysis",
    "hardware",
)


def smoke_run(topic: str, folder: Path) -> Path:
    """Run the smoke profile of a topic; return its outputs."""
    config = f"lab/{topic}/experiment.yaml"
    (folder / "inputs.json").write_text("{}")
    argv = ["--config", config, "--profile", "smoke", "--inputs", str(folder / "inputs.json")]
    log = folder / "run.log"
    argv += ["--out", str(folder / "out")]
    assert run_module(f"lab.{topic}.experiment", argv, ROOT, log) == 0, log.read_text()
    return folder / "out"


def replayed(
    topic: str, out: Path, draw: str, profile: str = "smoke"
) -> list[tuple[dict, np.ndarray]]:
    """Run the replay of a topic; return its rows with what they computed."""
    file = out.parent / f"{draw}.json"
    argv = ["--stored", str(out), "--inputs", str(out.parent / "inputs.json")]
    argv += ["--config", f"lab/{topic}/experiment.yaml", "--profile", profile]
    argv += ["--draw", draw, "--out", str(file)]
    log = out.parent / "replay.log"
    assert run_module(f"lab.{topic}.replay", argv, ROOT, log) == 0, log.read_text()
    document = json.loads(file.read_text())
    arrays = load_file(file.with_suffix(".safetensors"))
    return [(row, arrays[str(number)]) for number, row in enumerate(document["rows"])]


@pytest.mark.parametrize("topic", TOPICS)
def test_a_replay_computes_what_was_stored(topic, tmp_path):
    out = smoke_run(topic, tmp_path)
    for draw in ("00", "01"):
        rows = replayed(topic, out, draw)
        assert len(rows) > 3
        for row, recomputed in rows:
            stored = read_stored(out, row["file"], row["part"], row["indices"])
            if row["is_deterministic"]:
                assert are_equal(stored, recomputed), row["quantity"]
            else:
                assert stored.shape == recomputed.shape, row["quantity"]


def test_draws_differ(tmp_path):
    out = smoke_run("induction_heads", tmp_path)
    files = set()
    for draw in ("00", "01", "02", "03"):
        files |= {row["file"] for row, _ in replayed("induction_heads", out, draw)}
    assert len(files) > 2  # curve and weights of more than one run


def test_a_row_is_written_with_its_array(tmp_path):
    row = Row("a quantity", "artifacts/a.safetensors", ("x",), np.arange(3.0), (0, 1, 2))
    write_rows(tmp_path / "rows.json", [row])
    (described,) = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert described["part"] == ["x"]
    assert described["indices"] == [0, 1, 2]
    assert load_file(tmp_path / "rows.safetensors")["0"].tolist() == [0, 1, 2]


def test_stored_arrays_are_read_by_file_part_and_indices(tmp_path):
    save_file({"x": np.arange(6).reshape(3, 2)}, tmp_path / "a.safetensors")
    (tmp_path / "b.json").write_text(json.dumps({"runs": [{"losses": [1, 2.5]}], "name": "n"}))
    assert read_stored(tmp_path, "a.safetensors", ["x"], [2]).tolist() == [[4, 5]]
    assert read_stored(tmp_path, "b.json", ["runs", 0, "losses"], None).tolist() == [1, 2.5]
    assert read_stored(tmp_path, "b.json", ["name"], None).tobytes() == b'"n"'
    assert read_stored(tmp_path, "b.json", [], None).tobytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize(
    ("value", "kind"),
    [([1, 2.0], "f"), (3, "f"), (True, "u"), (None, "u"), ([], "u"), (["a"], "u"), ([1, "a"], "u")],
)
def test_numbers_become_floats_and_all_else_bytes(value, kind):
    assert array_of(value).dtype.kind == kind


@pytest.mark.model
def test_a_replay_on_the_real_model_computes_the_same_bits(smollm2, tmp_path):
    out = tmp_path / "out"
    inputs = tmp_path / "inputs.json"
    inputs.write_text(json.dumps({"smollm2-135m": {"kind": "input", "path": str(smollm2)}}))
    config = "lab/activation_extraction/experiment.yaml"
    argv = ["--config", config, "--profile", "cpu", "--inputs", str(inputs), "--out", str(out)]
    log = tmp_path / "run.log"
    assert run_module("lab.activation_extraction.experiment", argv, ROOT, log) == 0, log.read_text()
    for row, recomputed in replayed("activation_extraction", out, "0a", profile="cpu"):
        stored = read_stored(out, row["file"], row["part"], row["indices"])
        assert are_equal(stored, recomputed), row["quantity"]
