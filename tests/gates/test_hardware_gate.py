"""FEAT-017's gate as a whole: an honest run at the planned size passes, a forged one fails."""

import hashlib
import json

import pytest
import yaml

from lab.hardware import experiment, numbers
from lab.hardware.measured import HardwareObservations, Receipt, RunPlan, Timing, TrainingRun
from lab.instruments.memory_model import TrainingSetup
from lab.instruments.model_shape import ModelShape
from tests.gates import warm
from tests.gates.conftest import ROOT, assert_judges_every_measurement, run_experiment

GATE = "hardware/test_hardware.py"
SIZES = {
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 12,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 8192,
}


@pytest.fixture(scope="session")
def judged(tmp_path_factory):
    """Return the outputs of a run at the planned size on a small model, and its inputs' file."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from lab.instruments import models

    folder = tmp_path_factory.mktemp("hardware")
    tiny = models.tiny(0)
    config = LlamaConfig(**tiny.model.config.to_dict() | SIZES)
    small = models.Loaded(LlamaForCausalLM(config), tiny.tokenizer, "small")
    models.save(small, folder / "model")
    entries = {"smollm2-135m": {"kind": "input", "path": str(folder / "model")}}
    for number in (1, 5):
        entries[f"FEAT-00{number}"] = write_feature(folder / f"FEAT-00{number}", number)
    inputs = folder / "inputs.json"
    inputs.write_text(json.dumps(entries))
    config_file = "lab/hardware/experiment.yaml"
    out = run_experiment("lab.hardware.experiment", config_file, inputs, folder / "out")
    return out, inputs


def write_feature(folder, number):
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps({"title": f"Experiment {number}"}))
    process = {"seconds": 10.5 * number, "cpuSeconds": 20.0, "peakMemoryBytes": 10**9 * number}
    products = [{"name": "other"}, {"name": "process", "content": process}]
    statement = {"predicate": {"runDetails": {"byproducts": products}}}
    (folder / "receipt.json").write_text(json.dumps(statement))
    digest = hashlib.sha256((folder / "receipt.json").read_bytes()).hexdigest()
    return {"kind": "feature", "path": str(folder), "receipt": f"sha256:{digest}"}


def test_honest_run_passes_and_each_measurement_is_judged(judged, gates_dir):
    assert_judges_every_measurement(GATE, *judged, gates_dir)


# Lies about what was measured, told by the lab's own code


def observed(out):
    """Return the observations that an output was made from."""
    documents = {
        name: json.loads((out / f"artifacts/{name}.json").read_text())
        for name in ("runs", "timings", "receipts")
    }
    shapes = {
        path.stem: ModelShape.from_config(json.loads(path.read_text()), path.stem)
        for path in (out / "artifacts/configs").glob("*.json")
    }
    runs = []
    for row in documents["runs"]:
        row["plan"]["setup"] = TrainingSetup(**row["plan"]["setup"])
        row["plan"] = RunPlan(**row["plan"])
        for field in ("seconds", "products", "losses"):
            row[field] = tuple(row[field])
        runs.append(TrainingRun(**row))
    return HardwareObservations(
        shapes,
        tuple(runs),
        {
            name: Timing(one["amount"], tuple(one["seconds"]))
            for name, one in documents["timings"].items()
        },
        tuple(Receipt(**row) for row in documents["receipts"]),
    )


def lie(judged, folder, change):
    """Write outputs as the experiment does, of observations that are changed before storage."""
    from dataclasses import replace

    from lab.contract import Context, Inputs, conduct

    out, inputs = judged
    config = yaml.safe_load((ROOT / "lab/hardware/experiment.yaml").read_text())
    settings = config["common"] | config["profiles"]["cpu"]
    observations = change(observed(out))
    (folder / "artifacts").mkdir(parents=True)
    context = Context(
        settings, "cpu", 0, Inputs(json.loads(inputs.read_text())), folder, lambda *_: None
    )

    def run(ctx):
        documents = {}
        for path in (out / "artifacts/configs").glob("*.json"):
            documents[path.stem] = json.loads(path.read_text())
        experiment.store_configs(folder / "artifacts/configs", documents)
        experiment.store(folder / "artifacts", observations)
        return experiment.outcome(ctx, observations)

    run.__module__ = experiment.__name__
    conduct(replace(experiment.EXPERIMENT, packages=()), run, context)
    return warm.failing(GATE, folder, inputs)


def changed_runs(change):
    from dataclasses import replace

    def edit(observations):
        runs = tuple(replace(run, **change(run, observations)) for run in observations.runs)
        return replace(observations, runs=runs)

    return edit


def test_unchanged_observations_pass(judged, tmp_path):
    assert lie(judged, tmp_path / "out", lambda observations: observations) == set()


def test_peaks_below_the_tensors_are_seen(judged, tmp_path):
    failed = lie(
        judged,
        tmp_path / "out",
        changed_runs(lambda run, _: {"peak": run.loaded + (run.peak - run.loaded) // 2}),
    )
    assert "test_peaks_are_those_of_trainings" in failed


def test_peaks_that_follow_a_wrong_closed_form_are_seen(judged, tmp_path):
    """Every increment half as large again: the error of the fitted model stays small."""

    def larger(run, _):
        return {"peak": run.loaded + (run.peak - run.loaded) * 3 // 2 // 4096 * 4096}

    failed = lie(judged, tmp_path / "out", changed_runs(larger))
    assert "test_memory_of_one_training_is_that_of_this_gate" in failed


@pytest.mark.parametrize("change", [lambda kept: 4 * kept, lambda kept: kept + 1])
def test_impossible_peaks_of_the_loop_are_seen(judged, tmp_path, change):
    failed = lie(
        judged,
        tmp_path / "out",
        changed_runs(lambda run, _: {"peak_kept": run.loaded + change(run.increment_kept)}),
    )
    assert "test_peaks_are_those_of_trainings" in failed


def test_a_factor_fitted_to_held_out_runs_is_seen(judged, tmp_path, monkeypatch):
    from lab.hardware import fitting

    everything = observed(judged[0]).runs
    honest = fitting.kept_factor
    monkeypatch.setattr(
        fitting, "kept_factor", lambda runs, shapes, fit: honest(everything, shapes, fit)
    )
    failed = lie(judged, tmp_path / "out", lambda observations: observations)
    assert "test_measurement_follows_from_what_was_stored[memory_kept_factor]" in failed
    assert "test_measurement_follows_from_what_was_stored[memory_error_loop]" in failed


def test_impossibly_slow_products_are_seen(judged, tmp_path):
    failed = lie(
        judged,
        tmp_path / "out",
        changed_runs(lambda run, _: {"products": tuple(200 * s for s in run.products)}),
    )
    assert "test_no_step_is_faster_than_its_products" in failed


def test_a_model_that_does_not_predict_is_seen(judged, tmp_path):
    def worse(run, _):
        more = 0.5 if run.plan.name == "base_full" else 0.0
        return {"peak": run.peak + int(more * run.increment)}

    failed = lie(judged, tmp_path / "out", changed_runs(worse))
    assert "test_model_predicts_what_it_was_not_fitted_to" in failed


@pytest.mark.parametrize("name", ["weights", "trained", "optimizer", "activations", "gradients"])
def test_miscounted_tensors_are_seen(judged, tmp_path, name):
    failed = lie(
        judged, tmp_path / "out", changed_runs(lambda run, _: {name: getattr(run, name) + 4})
    )
    assert f"test_tensors_are_counted_to_the_byte[{name}]" in failed


def test_impossibly_fast_steps_are_seen(judged, tmp_path):
    failed = lie(
        judged,
        tmp_path / "out",
        changed_runs(lambda run, _: {"seconds": tuple(s / 50 for s in run.seconds)}),
    )
    assert "test_no_step_is_faster_than_its_products" in failed


def test_times_copied_from_the_model_are_seen(judged, tmp_path):
    """Each step as long as predicted: the error would be 0."""

    def perfect(run, observations):
        seconds = numbers.fits(observations).time.predicted[run.plan.name]
        return {"seconds": (seconds,) * len(run.seconds)}

    failed = lie(judged, tmp_path / "out", changed_runs(perfect))
    assert "test_no_step_is_faster_than_its_products" in failed


def test_a_run_that_changes_its_role_is_seen(judged, tmp_path):
    """The worst held-out run joins the fit: what is held out would look better."""
    from dataclasses import replace

    def swap(run, _):
        role = "fit" if run.plan.name == "base_full" else run.plan.role
        return {"plan": replace(run.plan, role=role)}

    failed = lie(judged, tmp_path / "out", changed_runs(swap))
    assert "test_trainings_are_those_of_the_settings" in failed


def test_a_run_that_is_left_out_is_seen(judged, tmp_path):
    from dataclasses import replace

    failed = lie(judged, tmp_path / "out", lambda seen: replace(seen, runs=seen.runs[:-1]))
    assert "test_trainings_are_those_of_the_settings" in failed


def test_a_faster_machine_is_seen(judged, tmp_path):
    from dataclasses import replace

    def faster(seen):
        layer = seen.timings["layer"]
        quick = Timing(layer.amount, tuple(s / 2000 for s in layer.seconds))
        return replace(seen, timings={**seen.timings, "layer": quick})

    failed = lie(judged, tmp_path / "out", faster)
    assert "test_stated_speed_is_one_of_this_machine" in failed


def test_more_work_than_was_done_is_seen(judged, tmp_path):
    from dataclasses import replace

    def more(seen):
        triad = seen.timings["bandwidth"]
        return replace(
            seen, timings={**seen.timings, "bandwidth": Timing(2 * triad.amount, triad.seconds)}
        )

    failed = lie(judged, tmp_path / "out", more)
    assert "test_timings_are_of_the_stated_work" in failed


def test_receipts_of_other_experiments_are_seen(judged, tmp_path):
    from dataclasses import replace

    def shorter(seen):
        return replace(
            seen, receipts=tuple(replace(one, seconds=one.seconds / 2) for one in seen.receipts)
        )

    failed = lie(judged, tmp_path / "out", shorter)
    assert "test_receipts_are_those_of_the_inputs" in failed


@pytest.mark.parametrize("factor", [8, 0.8])
def test_another_machine_than_the_measured_one_is_seen(judged, mutant, factor):
    """A decision for a machine with more or less memory, everything else of the run untouched."""
    path = mutant / "artifacts/decision/machine.json"
    machine = json.loads(path.read_text())
    machine["memory_bytes"] = int(factor * machine["memory_bytes"])
    path.write_text(json.dumps(machine))
    result = json.loads((mutant / "result.json").read_text())
    result["environment"]["machine"] = machine
    (mutant / "result.json").write_text(json.dumps(result))
    warm.forge(mutant)
    assert warm.fails("test_memory_of_the_machine_is_its_own", GATE, mutant, judged[1])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("within 15 %", "close to 15 %"),
        ("lab's own loop", "lab's plain step"),
        (" fails: ", " PASSES TOO: "),
        ("bytes per byte", "bytes per bit"),
    ],
)
def test_reversed_words_are_seen(judged, mutant, before, after):
    result = json.loads((mutant / "result.json").read_text())
    findings = [text.replace(before, after) for text in result["findings"]]
    assert findings != result["findings"]
    result["findings"] = findings
    (mutant / "result.json").write_text(json.dumps(result))
    assert warm.fails("test_findings_are_stated_word_by_word", GATE, mutant, judged[1])


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("memory_error_loop", "exact", True),
        ("gemm_head", "unit", "TFLOP/s"),
        ("memory_workspace", "values", [1.0]),
        ("experiments_peak", "n", 9),
    ],
)
def test_units_and_kinds_of_measurements_are_read(judged, mutant, name, field, value):
    result = json.loads((mutant / "result.json").read_text())
    result["measurements"][name][field] = value
    (mutant / "result.json").write_text(json.dumps(result))
    check = f"test_measurement_follows_from_what_was_stored[{name}]"
    assert warm.fails(check, GATE, mutant, judged[1])


def test_titles_that_the_report_shows_are_read(judged, mutant):
    result = json.loads((mutant / "result.json").read_text())
    result["figures"][-1]["title"] = "All trainings fit here"
    (mutant / "result.json").write_text(json.dumps(result))
    check = "test_figures_of_the_result_are_those_that_were_drawn"
    assert warm.fails(check, GATE, mutant, judged[1])


def test_settings_that_nothing_reads_are_pinned(judged, tmp_path):
    from dataclasses import replace

    def larger(run, _):
        return {"plan": replace(run.plan, setup=replace(run.plan.setup, all_parameters=True))}

    failed = lie(judged, tmp_path / "out", changed_runs(larger))
    assert "test_trainings_are_those_of_the_settings" in failed


@pytest.mark.parametrize(
    ("setting", "value"), [("steps", 1), ("repeats", 2), ("runs", []), ("shapes", {"base": {}})]
)
def test_smaller_plan_is_seen(judged, mutant, setting, value):
    result = json.loads((mutant / "result.json").read_text())
    result["environment"]["config"][setting] = value
    (mutant / "result.json").write_text(json.dumps(result))
    warm.forge(mutant)
    assert warm.fails("test_run_was_of_the_planned_size", GATE, mutant, judged[1])


def test_labels_of_a_figure_are_read(judged, mutant):
    path = mutant / "figures/memory.json"
    figure = json.loads(path.read_text())
    labels = [line["label"] for line in figure["series"]]
    for line, label in zip(figure["series"], [labels[1], labels[0], labels[2]], strict=True):
        line["label"] = label
    path.write_text(json.dumps(figure))
    warm.forge(mutant)
    assert warm.fails("test_figure_shows_the_numbers[memory]", GATE, mutant, judged[1])
