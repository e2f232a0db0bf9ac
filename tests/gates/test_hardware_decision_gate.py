"""The part of FEAT-017's gate that judges the decision: an honest run passes, no lie does."""

import json
import random
import re
import shutil

import pytest
import yaml

from gates.hardware import decision
from gates.hardware.decision import NAMES, TITLES
from gates.shared import outputs
from gates.shared.documents import agree
from lab.hardware import decision as deciding
from lab.hardware import decision_outcome as outcome
from lab.hardware.catalogue import FILES, FOLDER
from lab.hardware.decision_numbers import decision_measurements
from lab.hardware.decision_report import decision_findings
from lab.hardware.decision_tables import decision_tables
from lab.hardware.recommendation import Verdict
from tests.gates import warm
from tests.gates.conftest import ROOT, assert_judges_every_measurement, run_experiment
from tests.lab.hardware.machine import small_machine
from tests.soak import mark_soak

GATE = "hardware/decision.py"
ANSWER = "test_recommendation_and_its_reasons_are_stated_word_by_word"
FOLLOWS = "test_decision_follows_from_what_was_stored"
TABLE = "test_table_of_the_decision"


@pytest.fixture(scope="session")
def judged(tmp_path_factory):
    """Return the outputs of a decision, and the file of its inputs, of which there is none."""
    folder = tmp_path_factory.mktemp("hardware_decision")
    inputs = folder / "inputs.json"
    inputs.write_text("{}")
    config = folder / "config.yaml"
    config.write_text("profiles:\n  cpu: {}\n")
    module = "tests.gates.hardware_decision"
    return run_experiment(module, str(config), inputs, folder / "out"), inputs


def edit_result(out, edit):
    result = json.loads((out / "result.json").read_text())
    edit(result)
    (out / "result.json").write_text(json.dumps(result))
    warm.forge(out)


def edit_stated(out, name, edit):
    path = out / "artifacts/decision" / name
    document = yaml.safe_load(path.read_text())
    edit(document)
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    warm.forge(out)


def table(result, title):
    return next(one for one in result["tables"] if one["title"] == title)


def forged(tmp_path, monkeypatch, lie):
    """Return outputs for which the lab's own code told a lie, and sealed it."""
    from lab.contract import Config, Context, Inputs, conduct
    from tests.gates.hardware_decision import EXPERIMENT, run

    lie(monkeypatch)
    out = tmp_path / "forged"
    out.mkdir()
    ctx = Context(Config({}, "test"), "cpu", 0, Inputs(), out, lambda *_: None)
    conduct(EXPERIMENT, run, ctx)
    return out


def test_a_true_decision_passes(judged):
    assert warm.failing_in_new_process(GATE, *judged) == set()


def test_nothing_at_all_fails_every_check(judged, tmp_path):
    (tmp_path / "empty").mkdir()
    names = warm.failing(GATE, tmp_path / "empty", judged[1])
    assert {f"{FOLLOWS}[{name}]" for name in NAMES} < names
    assert {f"{TABLE}[{title}]" for title in TITLES} < names


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_measurement_is_noticed(judged, mutant, name):
    def change(result):
        measurement = result["measurements"][name]
        if isinstance(measurement["value"], str):
            measurement["value"] += " now"
        else:
            measurement["value"] = round(measurement["value"] * 1.05) + 1

    edit_result(mutant, change)
    assert warm.fails(f"{FOLLOWS}[{name}]", GATE, mutant, judged[1])


def test_a_recommendation_that_does_not_follow(judged, mutant):
    def change(result):
        result["measurements"]["recommendation"]["value"] = "upgrade"
        result["measurements"]["recommended_device"]["value"] = "RTX 5090"
        text = result["findings"][0]
        result["findings"][0] = text.replace("burst to the cloud", "upgrade (RTX 5090)")

    edit_result(mutant, change)
    failing = warm.failing(GATE, mutant, judged[1])
    assert {f"{FOLLOWS}[recommendation]", f"{FOLLOWS}[recommended_device]", ANSWER} <= failing


def test_a_verdict_that_the_labs_own_code_invents(judged, tmp_path, monkeypatch):
    """Everything else is made from it, sentences and figures included."""

    def lie(patch):
        true = deciding.recommend

        def invented(*args):
            honest = true(*args)
            best = min(honest.options[1:], key=lambda option: option.total)
            fields = vars(honest) | {"verdict": Verdict.UPGRADE, "device": best.device}
            return type(honest)(**fields)

        patch.setattr(deciding, "recommend", invented)

    out = forged(tmp_path, monkeypatch, lie)
    failing = warm.failing(GATE, out, judged[1])
    assert {f"{FOLLOWS}[recommendation]", ANSWER, f"{TABLE}[What each option costs]"} <= failing


def test_a_machine_that_pretends_to_be_larger_than_the_one_stored(judged, tmp_path, monkeypatch):
    def lie(patch):
        true = outcome.decide
        patch.setattr(outcome, "decide", lambda stated, _: true(stated, small_machine(64)))

    out = forged(tmp_path, monkeypatch, lie)
    failing = warm.failing(GATE, out, judged[1])
    assert f"{FOLLOWS}[combinations_here]" in failing
    assert "test_figure_of_what_fits" in failing


def test_a_machine_in_the_environment_that_is_not_the_stored_one(judged, mutant):
    edit_result(mutant, lambda result: result["environment"]["machine"].update(memory_bytes=2e11))
    check = "test_machine_of_the_decision_is_that_of_the_environment"
    assert warm.fails(check, GATE, mutant, judged[1])


def test_a_row_left_out_of_the_infeasible_list(judged, mutant):
    title = "Not feasible on any single listed device"
    edit_result(mutant, lambda result: table(result, title)["rows"].pop(3))
    assert warm.fails(f"{TABLE}[{title}]", GATE, mutant, judged[1])


def test_an_infeasible_model_left_out_of_the_sentence(judged, mutant):
    def change(result):
        result["findings"] = [
            text.replace("; lora: Llama-3.1-70B, Qwen2.5-72B", "") for text in result["findings"]
        ]

    edit_result(mutant, change)
    assert warm.fails(ANSWER, GATE, mutant, judged[1])


def test_a_flip_left_out(judged, mutant):
    title = "What would change the recommendation"
    edit_result(mutant, lambda result: table(result, title)["rows"].pop(0))
    assert warm.fails(f"{TABLE}[{title}]", GATE, mutant, judged[1])


def test_a_flip_at_another_value(judged, tmp_path, monkeypatch):
    def lie(patch):
        true = deciding.flips

        def moved(*args):
            found, idle = true(*args)
            fields = vars(found[0]) | {"flips_at": 2 * found[0].flips_at}
            return (type(found[0])(**fields), *found[1:]), idle

        patch.setattr(deciding, "flips", moved)

    out = forged(tmp_path, monkeypatch, lie)
    title = "What would change the recommendation"
    assert warm.fails(f"{TABLE}[{title}]", GATE, out, judged[1])


@pytest.mark.parametrize(
    ("name", "edit", "failing"),
    [
        (
            "prices.yaml",
            lambda d: d["prices"][3].update(rent_hour=0.2),
            f"{FOLLOWS}[rent_total]",
        ),
        (
            "prices.yaml",
            lambda d: d["prices"][0].update(purchase=100),
            f"{FOLLOWS}[purchase_total]",
        ),
        (
            "prices.yaml",
            lambda d: d["prices"][0].update(date="2026-01-01"),
            "test_what_the_user_stated_is_valid",
        ),
        ("prices.yaml", lambda d: d["prices"][0].update(source="me"), f"{TABLE}[Sources]"),
        (
            "devices.yaml",
            lambda d: d["devices"][0].update(memory_gib=8),
            "test_figure_of_what_fits",
        ),
        ("devices.yaml", lambda d: d["devices"].pop(), f"{FOLLOWS}[devices]"),
        (
            "needs.yaml",
            lambda d: d["needs"][2].update(runs_per_month=8),
            "test_figure_of_costs",
        ),
        (
            "needs.yaml",
            lambda d: d["thresholds"].update(months=12),
            f"{TABLE}[The rule, and its thresholds]",
        ),
        (
            "devices.yaml",
            lambda d: d["devices"][3].update(memory_gib=48),
            "test_what_the_user_stated_is_valid",
        ),
        (
            "devices.yaml",
            lambda d: d["devices"][5].update(peak_tflops=330.3),  # with sparsity
            "test_what_the_user_stated_is_valid",
        ),
        ("models.yaml", lambda d: d["models"].pop(0), "test_what_the_user_stated_is_valid"),
        (
            "models.yaml",
            lambda d: d["models"][5].update(parameters=10**9),
            "test_what_the_user_stated_is_valid",
        ),
        (
            "models.yaml",
            lambda d: d["models"][5].update(parameters=10**9),
            f"{TABLE}[Where a training fits: this machine, or the GPU with the least memory]",
        ),
    ],
)
def test_a_stated_number_that_was_changed_afterwards(judged, mutant, name, edit, failing):
    edit_stated(mutant, name, edit)
    assert warm.fails(failing, GATE, mutant, judged[1])


@pytest.mark.parametrize("figure", ["fits", "costs"])
def test_a_figure_with_other_numbers(judged, mutant, figure):
    path = mutant / f"figures/{figure}.json"
    text = path.read_text()
    path.write_text(re.sub(r"\d+\.\d{3,}", lambda match: f"{1.1 * float(match[0])}", text))
    warm.forge(mutant)
    check = {"fits": "test_figure_of_what_fits", "costs": "test_figure_of_costs"}[figure]
    assert warm.fails(check, GATE, mutant, judged[1])


CHANGES = {
    "stay": lambda needs: needs.update(needs=needs["needs"][:2]),
    "upgrade": lambda needs: needs["needs"][2].update(runs_per_month=150),
    "no budget": lambda needs: needs["thresholds"].update(rent_budget=0, purchase_budget=0),
}


def restated(folder, change):
    """Return a folder with the user's files, in which needs.yaml was changed."""
    folder.mkdir()
    for name in FILES:
        shutil.copy(FOLDER / name, folder)
    document = yaml.safe_load((folder / "needs.yaml").read_text())
    change(document)
    (folder / "needs.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return folder


@pytest.mark.parametrize("name", mark_soak(CHANGES, short={"stay", "upgrade"}))
def test_a_true_decision_about_other_needs_passes(judged, tmp_path, monkeypatch, name):
    folder = restated(tmp_path / "stated", CHANGES[name])
    out = forged(tmp_path, monkeypatch, lambda patch: patch.setattr(deciding, "FOLDER", folder))
    assert warm.failing(GATE, out, judged[1]) == set()


def other_needs(draw):
    """Return a change of needs.yaml that nobody thought of."""

    def change(document):
        rows = []
        for need in document["needs"]:
            if draw.random() < 0.8:
                need["method"] = draw.choice(["full", "lora", "qlora"])
                for field in ("tokens_per_run", "runs_per_month", "hours_per_run"):
                    need[field] *= 10 ** draw.uniform(-1.5, 1.5)
                rows.append(need)
        draw.shuffle(rows)
        document["needs"] = rows or document["needs"]
        for field in ("months", "purchase_budget", "rent_budget", "host_price"):
            document["thresholds"][field] *= 10 ** draw.uniform(-1, 1)

    return change


@pytest.mark.parametrize("seed", mark_soak(range(12), short=range(4)))
def test_gate_and_lab_decide_alike_whatever_is_stated(tmp_path, monkeypatch, seed):
    # 1. The lab's decision, with what the gate reads of it.
    draw = random.Random(seed)
    folder = restated(tmp_path / "stated", other_needs(draw))
    monkeypatch.setattr(deciding, "FOLDER", folder)
    machine = small_machine(draw.choice([2, 15, 64]))
    honest = deciding.decide(deciding.store_catalogue(tmp_path / "artifacts"), machine)
    path = tmp_path / "artifacts/decision/machine.json"
    path.write_text(json.dumps(machine.to_json()))

    # 2. The gate's.
    monkeypatch.setenv("PHASES_OUT", str(tmp_path))
    monkeypatch.delenv("PHASES_GATE_CACHE", raising=False)
    expected = decision.recomputed()

    # 3. All numbers, sentences and tables.
    for name, measurement in decision_measurements(honest).items():
        assert outputs.same(measurement.value, expected["numbers"][name], 1e-6), name
    findings = decision_findings(honest)
    assert len(findings) == len(expected["findings"])
    assert all(map(agree, findings, expected["findings"]))
    assert {table.title for table in decision_tables(honest)} == set(TITLES)
    for table in decision_tables(honest):
        columns, rows = expected["tables"][table.title]
        assert list(table.columns) == columns
        assert len(table.rows) == len(rows), table.title
        for row, recomputed in zip(table.rows, rows, strict=True):
            assert all(map(decision.same_cell, row, recomputed)), (row, recomputed)


ONLY_DECISION = """
from gates.hardware.decision import *
from gates.shared import standard
from gates.shared.standard import (
    test_figures_were_drawn_from_their_data,
    test_files_are_those_of_the_result,
    test_report_was_made_from_the_result,
)


def test_every_measurement_is_judged():
    standard.assert_all_judged(NAMES)


def test_report_states_what_was_recomputed():
    standard.assert_report_states(recomputed()["numbers"])
"""


def test_the_runner_verifies_a_decision_and_kills_every_mutant(judged, tmp_path):
    gates = tmp_path / "judged"
    shutil.copytree(ROOT / "gates", gates / "gates", ignore=shutil.ignore_patterns("__pycache__"))
    (gates / "gates/hardware/test_only_decision.py").write_text(ONLY_DECISION)
    assert_judges_every_measurement("hardware/test_only_decision.py", *judged, gates)
