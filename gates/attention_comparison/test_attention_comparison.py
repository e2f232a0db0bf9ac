"""Gate of FEAT-012: was attention really compared, and do the numbers follow?

Two levels: every number, table, figure and the page from the stored arrays
(gates/attention_comparison/arrays.py, shown.py, page.py); the arrays from base model, adapters and
snapshots: attention of every model (model.py), losses of every snapshot and under every ablation
(losses.py), the prompts (prompts.py), what holds without a model (identities.py). The control: the
base against itself is exactly 0. Checks that need the model are last, because a mutant is judged
until its first failure.
"""

from __future__ import annotations

import math

import pytest

from gates.attention_comparison import (
    arrays,
    findings,
    identities,
    losses,
    model,
    page,
    prompts,
    shown,
)
from gates.attention_comparison.arrays import PLANNED, RECOMPUTED, SEED, STATISTICS
from gates.shared import attention_page, outputs, standard, stored, trials
from gates.shared.standard import (
    test_figures_were_drawn_from_their_data,  # noqa: F401
    test_files_are_those_of_the_result,  # noqa: F401
    test_report_was_made_from_the_result,  # noqa: F401
)
from gates.shared.stored import cached, config

# What another order of arithmetic may change. bfloat16 on a GPU keeps 8 bits of a number.
TOKEN_LOSSES = {"float32": (5e-4, 2e-3), "bfloat16": (0.01, 0.05)}  # in the mean, per token; nats
BATCH_LOSS = {"float32": 1e-3, "bfloat16": 0.02}  # a share of a training batch's loss
PAGE_LEVELS = {"float32": 1.0, "bfloat16": 8.0}  # a share is rounded to half a level
REPEATED = {"divergence": 0.3}  # of two trainings that differ a little; a share of the mean
OTHER_REPEATED = 0.05


def test_every_measurement_is_judged() -> None:
    standard.assert_all_judged((*RECOMPUTED, "replay_gap"))


@pytest.mark.parametrize("name", RECOMPUTED)
def test_measurement_follows_from_what_was_stored(name: str) -> None:
    outputs.assert_agrees(name, shown.recomputed()["numbers"][name])


def test_report_states_what_was_recomputed() -> None:
    numbers = shown.recomputed()["numbers"]
    standard.assert_report_states({name: numbers[name] for name in RECOMPUTED})


def test_run_was_the_planned_one() -> None:
    settings = config()
    actual = {name: settings.get(name) for name in PLANNED}
    assert actual == PLANNED
    assert outputs.result()["environment"]["seed"] == SEED
    kinds = [prompt["kind"] for prompt in arrays.prompts()]
    for kind in ("task", "text", "repeated"):
        assert kinds.count(kind) == PLANNED["prompts"][kind], kind
    for name, (actual_shape, planned) in identities.shapes().items():
        assert actual_shape == planned, f"{name} is {actual_shape}; planned {planned}"


# The adapters


def test_adapters_are_the_trials_that_the_config_names() -> None:
    names = arrays.planned_trials()
    assert arrays.heads()["trials"] == names
    trials.assert_no_faults(names, arrays.features())
    trials.assert_one_sweep_context(names, arrays.features(), config())


def test_nothing_was_trained_where_it_could_be_taken_over() -> None:
    if arrays.features():
        assert trials.own() == [], f"trained here: {trials.own()}"


def test_repeated_training_ends_at_the_stored_adapter() -> None:
    replay = identities.replay()
    gap, training = replay.pop("gap"), replay.pop("losses")
    outputs.assert_agrees("replay_gap", gap)
    # Another kind of processor rounds differently, and twenty steps let that grow.
    assert gap < 0.01, f"the last snapshot is {gap} from the stored adapter"
    assert training < 0.05, f"training losses differ by a share of {training}"
    for name, share in replay.items():
        limit = REPEATED.get(name.partition(".")[2], OTHER_REPEATED)
        if gap == 0:
            limit = 1e-6
        assert share <= limit, f"{name}: the last differs by a share of {share}"


def test_random_updates_have_the_norms_of_the_trained_ones() -> None:
    for group, worst in identities.norms().items():
        assert worst < 1e-4, f"{group}: a norm differs by a share of {worst}"


# The arrays, without a model


def test_prompts_are_those_of_the_settings() -> None:
    holds = prompts.as_planned()
    assert set(holds) == {"task", "text", "repeated", "order"}
    assert all(holds.values()), holds


def test_base_against_itself_is_exactly_nothing() -> None:
    def largest() -> float:
        return float(abs(stored.arrays("arrays")["adapter_off.divergence"]).max())

    assert cached("attention comparison control", (arrays.ARRAYS,), largest) == 0.0


def test_values_are_possible() -> None:
    ranges = identities.ranges()
    low, high = ranges["divergence"]
    assert low >= 0 and high <= math.log(2) + 1e-9
    for name in ("sink", "entropy", "induction"):
        low, high = ranges[name]
        assert low >= -1e-5 and high <= 1 + 1e-5, f"{name} is from {low} to {high}"
    longest = max(len(prompt["ids"]) for prompt in arrays.prompts())
    for name in ("distance", "distance_without_sink"):
        low, high = ranges[name]
        assert low >= 0 and high <= longest, f"{name} is from {low} to {high}"


def test_tokens_are_counted_to_their_examples() -> None:
    assert identities.tokens_are_of_their_examples()


def test_ablated_heads_are_those_that_moved_most_and_drawn_ones() -> None:
    expected = identities.sets()
    for name, heads in expected.items():
        assert arrays.heads()[name] == heads, name


# The page and the report


def test_page_is_that_of_the_lab() -> None:
    attention_page.assert_frame_is_that_of_the_lab(page.NAME)


def test_page_shows_the_numbers() -> None:
    assert page.problems() == []


@pytest.mark.parametrize("index", range(5))
def test_table_follows_from_what_was_stored(index: int) -> None:
    table = outputs.result()["tables"][index]
    assert (table["title"], table["columns"]) == shown.TABLES[index]
    standard.assert_table_agrees(index, shown.recomputed()["tables"][index])


@pytest.mark.parametrize("name", ["layers", "ablation", "over_time"])
def test_figure_shows_the_numbers(name: str) -> None:
    drawn = outputs.read_json(f"figures/{name}.json")["series"]
    by_label = {series["label"]: series for series in drawn}
    expected = shown.recomputed()["series"][name]
    assert list(by_label) == list(expected)
    for label, (x, y, *band) in expected.items():
        assert outputs.same(by_label[label]["x"], x, 1e-5), label
        assert outputs.same(by_label[label]["y"], y, 1e-5), label
        assert outputs.same(by_label[label]["band"] or [], band, 1e-5), label


@pytest.mark.parametrize("name", ["moved", "heads_over_time"])
def test_heatmap_shows_the_numbers(name: str) -> None:
    drawn = outputs.read_json(f"figures/{name}.json")
    expected = shown.recomputed()["panels"][name]
    assert [panel["label"] for panel in drawn["panels"]] == list(expected)
    assert drawn["low"] == 0 and drawn["high"] is None
    for panel in drawn["panels"]:
        assert outputs.same(panel["values"], expected[panel["label"]], 1e-5), panel["label"]


@pytest.mark.parametrize("name", sorted(findings.CAPTIONS))
def test_caption_and_axes_are_those_of_the_figure(name: str) -> None:
    figure = outputs.read_json(f"figures/{name}.json")
    assert findings.problems_of_figure(name, figure, shown.captioned()) == []


def test_findings_say_what_the_numbers_say() -> None:
    numbers = {"replay_gap": identities.replay()["gap"], **shown.recomputed()["numbers"]}
    trial = arrays.planned_trials()[0]
    assert findings.problems(outputs.result()["findings"], numbers, trial) == []


# The arrays, from the weights


def test_attention_of_every_model_agrees_with_the_weights() -> None:
    found = model.differences()["models"]
    counts: dict[str, int] = {}
    for label, gaps in found.items():
        group = label.partition(" ")[0]
        counts[group] = counts.get(group, 0) + 1
        assert set(gaps) == _arrays_of(group)
        for name, (in_the_mean, worst) in gaps.items():
            what = f"{label}, {name}: stored and recomputed differ by"
            assert in_the_mean < 1, f"{what} {in_the_mean} times what is allowed, in the mean"
            assert worst < 1, f"{what} {worst} times what is allowed, in one head"
    seeds, snapshots = len(config()["seeds"]), len(arrays.steps())
    assert counts == {
        "base": 1,
        "tuned": seeds,
        "between_seeds": math.comb(seeds, 2),
        "random": seeds * config()["draws"],
        "snapshots": snapshots,
        "snapshots_random": snapshots,
    }


def _arrays_of(group: str) -> set[str]:
    """Return the names of the arrays of a group of models, norms left out."""
    names = {"divergence", *STATISTICS}
    if group == "base":
        return names - {"divergence"}
    if group == "between_seeds":
        return {"divergence"}
    return names


def test_base_with_an_adapter_switched_off_is_the_base() -> None:
    assert model.differences()["off"] < 1e-12


def test_norms_agree_with_the_tensors() -> None:
    worst = model.differences()["norms"]
    assert max(worst.values()) < 1e-3, worst


def test_page_shows_the_patterns() -> None:
    for label, levels in model.differences()["page"].items():
        assert levels <= PAGE_LEVELS[config()["dtype"]], f"{label}: {levels} levels"


@pytest.mark.parametrize("kind", ["held_out", "tuned", "base"])
def test_losses_agree_with_the_weights(kind: str) -> None:
    mean_limit, token_limit = TOKEN_LOSSES[config()["dtype"]]
    for label, (mean, size) in losses.differences()[kind].items():
        what = f"{kind}, {label}: stored and recomputed losses differ by"
        assert abs(mean) < mean_limit, f"{what} {mean} in the mean"
        assert size < token_limit, f"{what} {size} per token"


def test_snapshots_have_the_losses_of_their_training() -> None:
    for step, share in losses.differences()["training"].items():
        assert share < BATCH_LOSS[config()["dtype"]], f"step {step}: a share of {share}"
