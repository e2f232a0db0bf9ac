"""Gate of FEAT-015: was this model looked at, and do numbers, pictures and sentences follow?

Four levels: token ids, kinds and control dimensions drawn again from the text and the seed
(drawn.py); all stored arrays from the model (model.py, interventions.py); every number, table and
figure from the stored arrays (arrays.py, shown.py); every sentence, caption and label from these
numbers (words.py, pictures.py). The probes' checks are in probe_checks.py. Nothing is left to a
sample. Random weights must have no massive activation, and tokens in another order little
similarity. How large the effects are is predicted by the plan. Checks that need the model are last,
because a mutant is judged until its first failure.
"""

from __future__ import annotations

import pytest

from gates.representation_analysis import (
    arrays,
    drawn,
    interventions,
    model,
    pictures,
    probe_numbers,
    probe_words,
    shown,
    words,
)
from gates.representation_analysis.arrays import MEASUREMENTS
from gates.representation_analysis.probe_checks import (
    test_probe_control_task_is_one_class_per_token_type,  # noqa: F401
    test_probe_figure_shows_what_was_stored,  # noqa: F401
    test_probe_findings_say_what_follows_from_the_numbers,  # noqa: F401
    test_probe_functions_are_those_that_the_seed_draws,  # noqa: F401
    test_probe_functions_of_one_package_are_in_one_split,  # noqa: F401
    test_probe_measurement_follows_from_what_was_stored,  # noqa: F401
    test_probe_settings_are_those_of_the_plan,  # noqa: F401
    test_probe_tables_follow_from_what_was_stored,  # noqa: F401
    test_probe_tokens_and_labels_are_those_of_the_functions,  # noqa: F401
    test_probes_of_the_pinned_model_read_more_than_their_controls,  # noqa: F401
)
from gates.shared import outputs, standard, stored
from gates.shared.standard import (  # noqa: F401 - pytest collects the three checks here
    test_figures_were_drawn_from_their_data,
    test_files_are_those_of_the_result,
    test_report_was_made_from_the_result,
)
from gates.shared.stored import config

PROFILES = {"cpu": ("cpu", "float32"), "gpu": ("cuda", "float32")}

# What another order of float32 may change: at least 10 times what eager attention changes here.
RELATIVE = 2e-4  # of norms and of the largest numbers
COSINE = 1e-4
LOGITS = 1e-3  # of a logit, and of what is added to it
MEAN_LOGITS = 2e-5  # of what a write adds to it, in the mean over tokens
NATS = 2e-4  # of a divergence, as a share of it, or of 0.1 nats where it is smaller
CKA = 1e-6
LOSS = 5e-4  # of a token's loss in nats, a share of it from 1 on
MEAN_LOSS = 1e-4  # in the mean of a sequence


#### the plan


def test_every_measurement_is_judged() -> None:
    standard.assert_all_judged((*MEASUREMENTS, *probe_numbers.UNITS))


def test_run_was_the_planned_one() -> None:
    settings = config()
    assert {name: settings.get(name) for name in drawn.PLANNED} == drawn.PLANNED
    assert arrays.seed() == 0, "another seed could be the one whose controls suit"
    environment = outputs.result()["environment"]
    assert (settings["device"], settings["dtype"]) == PROFILES[environment["profile"]]
    assert (environment["device"], environment["dtype"]) == PROFILES[environment["profile"]]


def test_model_is_the_one_of_the_input() -> None:
    environment = outputs.result()["environment"]
    assert environment["model_sha256"] == model.weights_digest()
    assert environment["model"] == config()["model"]


#### the text


@pytest.mark.parametrize("name", ["ids", "kinds", "test_ids"])
def test_tokens_are_those_of_the_text(name: str) -> None:
    assert stored.arrays("sequences")[name].tolist() == drawn.tokens()[name]


def test_files_have_the_arrays_of_the_plan_and_no_others() -> None:
    assert shown.sizes() == shown.planned_sizes()


def test_interventions_are_on_other_text_than_the_dimension_was_chosen_by() -> None:
    sequences = stored.arrays("sequences")
    length = sequences["test_ids"].shape[1]
    chosen_by = {tuple(row[:length]) for row in sequences["ids"].tolist()}
    assert not chosen_by & {tuple(row) for row in sequences["test_ids"].tolist()}


#### numbers, tables and figures, from the arrays


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_measurement_follows_from_what_was_stored(name: str) -> None:
    expected = arrays.measurements()[name]
    outputs.assert_agrees(name, expected)
    actual = outputs.measurement(name)
    assert actual["unit"] == words.UNITS[name]
    assert actual.get("exact", False) == (not isinstance(expected, dict)), f"{name} is no estimate"


def test_report_states_what_was_recomputed() -> None:
    recomputed = arrays.measurements() | probe_numbers.measurements()
    standard.assert_report_states(recomputed)


def test_findings_say_what_follows_from_the_numbers() -> None:
    """Whole sentences: no number, label or verdict may be another one."""
    findings = outputs.result()["findings"]
    expected_findings = [*words.findings(), *probe_words.findings()]
    for actual, expected in zip(findings, expected_findings, strict=True):
        assert words.agree(actual, expected), f"{actual!r}; expected {expected!r}"
    report_text = (outputs.out() / "report.md").read_text("utf-8")
    listed = report_text.partition("## Findings\n")[2].partition("\n## ")[0]
    assert listed.strip().splitlines() == [f"- {finding}" for finding in findings]


@pytest.mark.parametrize("index", range(len(shown.TABLES)), ids=shown.TABLES)
def test_table_follows_from_what_was_stored(index: int) -> None:
    table = outputs.result()["tables"][index]
    expected = shown.tables()[index]
    assert (table["title"], table["columns"]) == (expected["title"], expected["columns"])
    standard.assert_table_agrees(index, expected["rows"])


def test_there_are_no_other_tables_and_figures() -> None:
    result = outputs.result()
    assert len(result["tables"]) == len(shown.TABLES) + len(probe_words.TABLES)
    names = [figure["name"] for figure in result["figures"]]
    assert names == [*pictures.ORDER, *probe_words.FIGURES]


@pytest.mark.parametrize("name", pictures.ORDER)
def test_figure_shows_what_was_stored(name: str) -> None:
    expected = dict(pictures.figures()[name])
    drawn_data = outputs.read_json(f"figures/{name}.json")
    (listed,) = (one for one in outputs.result()["figures"] if one["name"] == name)
    assert (listed["title"], listed["caption"]) == (drawn_data["title"], drawn_data["caption"])
    report_text = (outputs.out() / "report.md").read_text("utf-8")
    assert f"\n{drawn_data['caption']} (data: `figures/{name}.json`)\n" in report_text
    caption, actual_caption = expected.pop("caption"), drawn_data.pop("caption")
    assert words.agree(actual_caption, caption), f"{actual_caption!r}; expected {caption!r}"
    values, actual_values = expected.pop("values"), pictures.values_of(drawn_data)
    assert outputs.same(actual_values, values, 1e-5)
    assert pictures.described(drawn_data) == expected


#### controls, from the arrays


def test_random_weights_have_nothing_that_is_massive() -> None:
    top, median = arrays.largest_and_median(arrays.data(), "stream_random_weights")
    assert len(stored.arrays("stream_random_weights")["hits"]) == 0
    assert (top < 100).all() and (top < 1000 * median).all()


def test_random_weights_are_another_model() -> None:
    trained, control = stored.arrays("stream"), stored.arrays("stream_random_weights")
    assert abs(trained["norms"] / control["norms"] - 1).mean() > 0.01


def test_tokens_in_another_order_are_less_alike() -> None:
    values = arrays.values()
    assert values["cka_shuffled"] < values["cka_without_outliers"] / 2


def test_control_dimensions_have_no_massive_activation() -> None:
    target = arrays.target()
    massive = set(stored.arrays("stream")["hits"][:, 3].tolist()) | {target["dimension"]}
    assert not massive & set(target["others"])
    assert len(set(target["others"])) == config()["interventions"]["dimensions"]


def test_every_intervention_changes_something_of_its_own() -> None:
    losses = stored.arrays("interventions")
    names = [f"losses.{name}" for name in ("base", "zeroed", "mean", *arrays.others())]
    different = {losses[name].tobytes() for name in names}
    assert len(different) == len(names), "two interventions have the same losses"


def test_last_depth_of_the_lens_is_the_model() -> None:
    lens = stored.arrays("lens")
    assert (lens["agrees"][:, -1] == 1).all()
    assert abs(lens["kl"][:, -1]).max() < 1e-4
    assert (lens["kl"] > -1e-4).all(), "a divergence is not negative"


def test_attributions_add_up_to_the_logit() -> None:
    writes = stored.arrays("writes")
    total = writes["attribution"].astype("float64").sum((1, 2)) + writes["embedding"]
    assert abs(total - writes["target"]).max() < LOGITS


def test_similarity_is_symmetric_and_one_with_itself() -> None:
    for name in ("raw", "without_outliers"):
        matrix = stored.arrays("similarity")[f"matrix.{name}"]
        assert abs(matrix - matrix.T).max() < 1e-5
        assert abs(matrix.diagonal() - 1).max() < 1e-5
        assert (matrix > -1e-5).all() and (matrix < 1 + 1e-5).all()
    first, second = (layer + 1 for layer in config()["cka"]["layers"])
    for name in ("raw", "without_outliers"):
        arrays_of_cka = stored.arrays("similarity")
        pair = arrays_of_cka[f"pair.{name}"][0]
        assert abs(arrays_of_cka[f"matrix.{name}"][first, second] - pair) < 1e-4


#### the arrays, from the model


@pytest.mark.parametrize("file", ["stream", "stream_random_weights"])
def test_stream_agrees_with_the_model(file: str) -> None:
    for name, difference in model.stream_differences(file).items():
        assert difference < RELATIVE, f"{file}: {name} differs by {difference}"


def test_outliers_are_those_of_the_stream() -> None:
    assert model.outliers_agree()


def test_writes_agree_with_the_model() -> None:
    limits = {"norms": RELATIVE, "cosine": COSINE, "stream_cosine": COSINE}
    limits |= dict.fromkeys(("mean attribution", "mean embedding"), MEAN_LOGITS)
    for name, difference in model.write_differences().items():
        assert difference < limits.get(name, LOGITS), f"{name} differs by {difference}"


def test_lens_agrees_with_the_model() -> None:
    differences = model.lens_differences()
    assert differences["kl"] < NATS, differences
    assert differences["agrees"] == 0, differences


def test_similarity_agrees_with_the_model() -> None:
    for name, difference in model.similarity_differences().items():
        assert difference < CKA, f"{name} differs by {difference}"


def test_target_is_the_largest_number_of_the_first_token() -> None:
    expected, target = interventions.expected()["target"], dict(arrays.target())
    assert abs(target.pop("mean") / expected.pop("mean") - 1) < RELATIVE
    assert target == expected


def test_losses_of_every_intervention_agree_with_the_model() -> None:
    import numpy as np

    actual = stored.arrays("interventions")
    expected = {
        f"losses.{name}": losses for name, losses in interventions.expected()["losses"].items()
    }
    expected["ablated"] = interventions.expected()["ablated"]
    assert set(actual) == set(expected)
    for name, losses in expected.items():
        recomputed = np.array(losses)
        assert actual[name].shape == recomputed.shape, name
        change = abs(actual[name] - recomputed) / np.maximum(1, recomputed)
        assert change.max() < LOSS, f"{name}: a token's loss differs by {change.max()}"
        assert change.mean(-1).max() < MEAN_LOSS, f"{name}: differs by {change.mean(-1).max()}"


#### the probes, from the model; imported here because checks run in this order

from gates.representation_analysis.probe_checks import (  # noqa: E402
    test_probe_classes_are_those_of_the_model,  # noqa: F401
)
