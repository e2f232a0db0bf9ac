"""Gate of FEAT-021: were these models trained, and does each number and picture follow from them?

Every training is done again from its seed (gates/induction_heads/replay.py), every array of a
stored step follows from the stored weights by a numpy model (model.py), every number from the
stored arrays (arrays.py), and every sentence from the numbers (words.py). That copying is learnt,
at which step, and which head is needed for it are findings: the plan predicts them, this gate does
not check them. It checks that the controls differ from the runs in one thing each.
"""

from __future__ import annotations

import math

import pytest

from gates.induction_heads import arrays, model, plan, replay, report, words
from gates.induction_heads.arrays import MEASUREMENTS
from gates.induction_heads.plan import CONDITIONS, PLANNED
from gates.shared import outputs, standard, stored
from gates.shared.standard import (  # noqa: F401 - pytest collects the three checks here
    test_figures_were_drawn_from_their_data,
    test_files_are_those_of_the_result,
    test_report_was_made_from_the_result,
)
from gates.shared.stored import config

SEEDS = range(3)
TABLES = ("steps", "ends", "groups", "heads")
COLUMNS = (
    (
        "run",
        "seed",
        "previous-token head",
        "induction head",
        "loss on second copies",
        "steps of the fall, 90 % to 10 %",
    ),
    (
        "run",
        "seed",
        "loss, first copy",
        "loss, second copy",
        "accuracy, second copy",
        "induction score",
        "previous-token score",
    ),
    ("seed", "zeroed", "heads", "rise of the loss on second copies"),
    (
        "seed",
        "head",
        "previous-token score",
        "induction score",
        "rise of the loss without it",
    ),
)
FIGURES = ("loss", "scores", "ablation")
AXES = {
    "loss": ("optimizer step", "loss on second copies (nats/token)"),
    "scores": ("optimizer step", "share of attention"),
    "ablation": ("zeroed", "rise of the loss (nats/token)"),
}
FILMS = ("film_induction_heads", "film_previous_token_heads")
MOVING_SHARE = 0.9  # of the numbers of an array: weight decay alone moves every number but 0
STARTED = 300  # seconds that starting the processes of the trainings may take
NEAR_CHANCE = 0.1  # nats/token


#### the plan


def test_every_measurement_is_judged() -> None:
    standard.assert_all_judged([*MEASUREMENTS, "training_seconds"])


def test_run_was_of_the_planned_size() -> None:
    """Seeds, steps, sizes, thresholds: smaller settings are for the tests of this gate."""
    for name, planned in PLANNED.items():
        assert plan.plan()[name] == planned, f"{name} is {plan.plan()[name]}, planned {planned}"
    assert set(plan.plan()) == set(PLANNED)


def test_runs_are_those_of_the_plan() -> None:
    folders = sorted(path.name for path in stored.artifact("runs").iterdir())
    assert folders == sorted(plan.all_names())
    for run in plan.all_names():
        parts = ["curve.safetensors", "weights.safetensors"]
        if plan.condition_of(run) == "repeats":
            parts += ["ablation.safetensors", "patterns.safetensors"]
        assert sorted(path.name for path in stored.artifact(f"runs/{run}").iterdir()) == sorted(
            parts
        )
    assert len(set(plan.plan()["seeds"])) == len(plan.plan()["seeds"]) == len(SEEDS)


def test_runs_have_the_planned_shape() -> None:
    settings = plan.plan()
    steps = plan.evaluated_steps()
    assert plan.stored_steps()[-1] == settings["steps"] == steps[-1]
    for name in plan.all_names():
        curve = arrays.load(name, "curve")
        assert curve["steps"].tolist() == steps
        shape = (len(steps), plan.layers_of(name), settings["heads"])
        assert curve["induction"].shape == curve["previous"].shape == shape
        for field in ("first", "second", "accuracy"):
            assert curve[field].shape == (len(steps),)
        embedding = arrays.load(name, "weights")["embedding"]
        expected = (len(plan.stored_steps()), settings["vocabulary"], settings["width"])
        assert embedding.shape == expected, f"{name}: {embedding.shape}"


def test_no_fixed_distance_is_right() -> None:
    periods = plan.plan()["periods"]
    drawn = stored.arrays("evaluation")["periods"].tolist()
    assert 3 < periods["shortest"] < periods["longest"]
    assert 2 * periods["longest"] <= plan.plan()["length"]
    assert all(periods["shortest"] <= period <= periods["longest"] for period in drawn)
    share = max(drawn.count(period) for period in set(drawn)) / len(drawn)
    assert share < 0.5, f"{share} of the sequences have the same period"


def test_sequences_repeat_and_are_random_otherwise() -> None:
    held_out = stored.arrays("evaluation")
    settings = plan.plan()
    film_periods = [settings["film_period"]] * settings["film"]
    pairs = (
        (held_out["ids"], held_out["periods"].tolist()),
        (held_out["film"], film_periods),
    )
    for ids, periods in pairs:
        assert len(ids) == len(periods)
        assert ids.min() >= 0 and ids.max() < settings["vocabulary"]
        for row, period in zip(ids, periods, strict=True):
            assert (row[period:] == row[:-period]).all(), f"no repeat after {period} tokens"
        pieces = [tuple(row[:period].tolist()) for row, period in zip(ids, periods, strict=True)]
        assert len(set(pieces)) > len(pieces) / 2, "the same sequence again and again"
    assert len(held_out["ids"]) == settings["evaluation"]


def test_held_out_sequences_are_those_of_their_seeds() -> None:
    replay.assert_held_out_agrees()


#### the trainings


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_run_starts_from_its_seed(condition: str, seed: int) -> None:
    """So the three runs of a seed start from the same weights, and no seed is another one's."""
    replay.assert_start_agrees(plan.names(condition)[seed])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_run_is_the_training_of_its_seed(condition: str, seed: int) -> None:
    replay.assert_agrees(plan.names(condition)[seed])


def test_every_run_moves_from_step_to_step() -> None:
    for run in plan.all_names():
        for name, array in arrays.load(run, "weights").items():
            for index in range(1, len(array)):
                moved = (array[index] != array[index - 1]).mean()
                assert moved > MOVING_SHARE, f"{run}: {name} rests before step {index}"


def test_no_two_runs_share_what_they_learnt() -> None:
    owner: dict[bytes, str] = {}
    for run in plan.all_names():
        parts = {"curve": arrays.load(run, "curve"), "weights": arrays.load(run, "weights")}
        contents = [parts["curve"][field][1:] for field in ("first", "second", "induction")]
        for array in parts["weights"].values():
            contents += list(array[1:])
        for array in contents:
            other = owner.setdefault(array.tobytes(), run)
            assert other == run, f"{run} has an array of {other}"


#### what every honest run satisfies


def test_untrained_models_are_at_chance() -> None:
    for name in plan.all_names():
        loss = float(arrays.load(name, "curve")["second"][0])
        chance = math.log(plan.plan()["vocabulary"])
        assert abs(loss - chance) < NEAR_CHANCE, f"{name} starts at {loss}; chance is {chance}"


def test_without_repeats_nothing_is_learnt() -> None:
    chance = math.log(plan.plan()["vocabulary"])
    for name in plan.names("no_repeats"):
        lowest = float(arrays.load(name, "curve")["second"].min())
        assert lowest > chance - NEAR_CHANCE, f"{name} reaches {lowest}; chance is {chance}"


def test_patterns_are_attention() -> None:
    import numpy as np

    for name in plan.names("repeats"):
        patterns = arrays.load(name, "patterns")["patterns"]
        assert patterns.min() >= 0
        assert np.allclose(patterns.sum(-1), 1, atol=1e-4), f"{name}: a row does not sum to 1"
        assert not np.triu(patterns, 1).any(), f"{name}: attention to the future"


#### numbers, tables and figures, from the arrays


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_measurement_follows_from_what_was_stored(name: str) -> None:
    outputs.assert_agrees(name, arrays.measurements()[name])


def test_time_is_that_of_the_trainings() -> None:
    seconds = outputs.read_json("artifacts/seconds.json")
    outputs.assert_agrees("training_seconds", seconds["all"])
    runs = seconds["runs"]
    assert sorted(runs) == sorted(plan.all_names())
    longest, total = max(runs.values()), sum(runs.values())
    workers = config()["workers"]
    assert min(runs.values()) > 0
    assert max(longest, total / workers) <= seconds["all"] <= total + STARTED


def test_report_states_what_was_recomputed() -> None:
    standard.assert_report_states({name: arrays.measurements()[name] for name in MEASUREMENTS})


def test_findings_say_what_was_recomputed() -> None:
    actual = outputs.result()["findings"]
    for finding, expected in zip(actual, words.findings(arrays.measurements()), strict=True):
        assert words.says(finding, expected), f"{finding!r}, recomputed {expected!r}"


def test_captions_say_what_was_recomputed() -> None:
    expected = words.captions(arrays.measurements())
    shown = {one["name"]: one for one in outputs.result()["figures"]}
    assert set(shown) == set(expected)
    for name, (title, caption) in expected.items():
        for one in (shown[name], outputs.read_json(f"figures/{name}.json")):
            assert one["title"] == title, f"{name}: {one['title']!r}, recomputed {title!r}"
            assert words.says(one["caption"], caption), f"{one['caption']!r}, not {caption!r}"


@pytest.mark.parametrize("index", range(len(TABLES)), ids=TABLES)
def test_table_follows_from_what_was_stored(index: int) -> None:
    assert outputs.result()["tables"][index]["columns"] == list(COLUMNS[index])
    standard.assert_table_agrees(index, report.tables()[index])


@pytest.mark.parametrize("name", FIGURES)
def test_figure_shows_what_was_stored(name: str) -> None:
    figure = outputs.read_json(f"figures/{name}.json")
    assert (figure["x_label"], figure["y_label"]) == AXES[name]
    expected = report.figures()[name]
    assert [one["label"] for one in figure["series"]] == list(expected)
    for one in figure["series"]:
        assert one["band"] is None
        assert outputs.same([one["x"], one["y"]], expected[one["label"]], 1e-5), one["label"]


@pytest.mark.parametrize("name", FILMS)
def test_film_shows_what_was_stored(name: str) -> None:
    film = outputs.read_json(f"figures/{name}.json")
    assert (film["x_label"], film["y_label"]) == ("key position", "query position")
    assert (film["value_label"], film["x_names"], film["y_names"]) == ("share of attention", [], [])
    panels = film["panels"]
    actual = [[panel["label"], panel["values"]] for panel in panels]
    assert outputs.same(actual, report.films()[name], 1e-5)


#### the arrays, from the weights


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_stored_steps_agree_with_the_weights(condition: str, seed: int) -> None:
    model.assert_agrees(plan.names(condition)[seed])


@pytest.mark.parametrize("seed", SEEDS)
def test_ablations_agree_with_the_weights(seed: int) -> None:
    model.assert_ablations_agree(plan.names("repeats")[seed])
