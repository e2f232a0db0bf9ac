"""Induction heads: the data, what a look at a model sees, steps, sentences, a small real run."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lab.config import ConfigError, load_config
from lab.contract import Context, Inputs, Measurement, conduct
from lab.induction_heads import figures, numbers, report, sequences, training
from lab.induction_heads.experiment import EXPERIMENT, run
from lab.induction_heads.measured import Ablation, InductionObservations, InductionPlan, Run
from lab.instruments.attention_only import AttentionOnly

CONFIG = Path(__file__).resolve().parents[3] / "lab/induction_heads/experiment.yaml"


@pytest.fixture(scope="module")
def plan() -> InductionPlan:
    """Return a size at which copying is learnt within seconds."""
    planned = InductionPlan.from_config(load_config(CONFIG, "cpu"))
    return replace(
        planned,
        vocabulary=16,
        width=32,
        heads=2,
        head_width=16,
        length=16,
        periods=(4, 8),
        seeds=(0,),
        steps=200,
        learning_rate=1e-2,
        warmup=20,
        every=10,
        evaluation=64,
        film=8,
        film_period=6,
    )


@pytest.fixture(scope="module")
def trained(plan: InductionPlan) -> dict[str, Run]:
    """Return a run of each condition."""
    return {
        condition: training.train(plan, condition, seed=0)
        for condition in ("repeats", "no_repeats", "one_layer")
    }


def draw(*, repeated: bool) -> tuple[torch.Tensor, torch.Tensor]:
    return sequences.draw(
        count=200,
        length=20,
        vocabulary=50,
        periods=(4, 10),
        generator=torch.Generator().manual_seed(0),
        repeated=repeated,
    )


def test_weights_of_a_step_that_is_not_evaluated_are_refused():
    config = load_config(CONFIG, "cpu")
    config["plan"]["checkpoint_every"] = 7
    with pytest.raises(ConfigError, match="every 5, checkpoint_every 7, steps 400; expected each"):
        InductionPlan.from_config(config)


#### data


def copied(ids: torch.Tensor, periods: torch.Tensor) -> float:
    """Return for which share of the copying queries the key to copy from holds the next token."""
    mask = sequences.copying_queries(periods, 20)
    rows, queries = mask.nonzero(as_tuple=True)
    keys = sequences.copied_keys(periods, 20)[rows, queries]
    return float((ids[rows, keys] == ids[rows, queries + 1]).float().mean())


def test_repeated_sequences_can_be_copied_and_others_cannot():
    assert copied(*draw(repeated=True)) == 1.0
    assert copied(*draw(repeated=False)) < 0.1


def test_periods_vary_over_the_whole_range():
    _, periods = draw(repeated=True)
    assert set(periods.tolist()) == set(range(4, 11))


def test_copying_queries_are_those_of_the_second_copy():
    mask = sequences.copying_queries(torch.tensor([4]), 12)
    assert mask[0].nonzero().flatten().tolist() == [4, 5, 6]


#### what a look sees


def test_scores_are_shares_of_attention(plan):
    tests = training.evaluation_set(plan)
    model = AttentionOnly(training.shape_of(plan, 2), seed=3)
    seen = training.look(model, tests)
    with torch.no_grad():
        _, patterns = model(tests.ids)
    shares = []
    for row, period in enumerate(tests.periods.tolist()):
        for query in range(period, 2 * period - 1):
            shares.append(float(patterns[1][row, 1, query, query - period + 1]))
    assert seen["induction"][1, 1] == pytest.approx(np.mean(shares), rel=1e-5)
    one_back = [float(patterns[0][:, 0, query, query - 1].mean()) for query in range(1, 16)]
    assert seen["previous"][0, 0] == pytest.approx(np.mean(one_back), rel=1e-5)


def test_heads_are_found_by_their_scores():
    induction = np.array([[0.9, 0.0, 0.0], [0.8, 0.1, 0.4]])  # a score of layer 0 does not count
    previous = np.array([[0.1, 0.6, 0.2], [0.9, 0.9, 0.9]])
    assert training.find_heads(induction, previous) == {
        "induction_heads": ((1, 0), (1, 2)),
        "previous_token_heads": ((0, 1),),
        "other_heads": ((0, 0), (0, 2), (1, 1)),
    }


#### steps


def test_first_lasting_wants_the_rest_too():
    steps = [0, 5, 10, 15]
    assert numbers.first_lasting(steps, np.array([False, True, False, True])) == 15
    assert numbers.first_lasting(steps, np.array([False, False, True, True])) == 10
    assert numbers.first_lasting(steps, np.array([True] * 4)) == 0
    assert numbers.first_lasting(steps, np.array([True, True, True, False])) is None


def test_steps_of_a_made_up_run(plan, trained):
    chance = math.log(16)
    losses = np.linspace(chance, chance, 21)
    losses[10:] = 0.1  # falls at step 100
    scores = np.zeros((21, 2, 2))
    scores[9:, 1, 0] = 0.5  # rises at step 90
    made_up = replace(trained["repeats"], second=losses, induction=scores, previous=scores * 0)
    assert numbers.learnt_step(plan, made_up) == 100
    assert numbers.induction_step(plan, made_up) == 90
    assert numbers.previous_step(plan, made_up) is None
    assert numbers.fall_steps(plan, made_up) == 10  # from step 90, the last before it, to 100
    flat = replace(made_up, second=np.full(21, chance))
    assert numbers.learnt_step(plan, flat) is None
    assert numbers.fall_steps(plan, flat) is None


def test_films_show_the_steps_around_the_learnt_one(plan):
    assert figures.film_steps(plan, 120) == [0, 60, 90, 120, 150, 200]
    assert figures.film_steps(plan, None) == [0, 50, 80, 100, 120, 200]
    assert figures.film_steps(plan, 190) == [0, 100, 140, 190, 200]


#### a real run


def test_two_layers_learn_to_copy_and_the_controls_do_not(plan, trained):
    assert numbers.learnt_step(plan, trained["repeats"]) is not None
    assert trained["repeats"].induction[-1].max() > 0.5
    for condition in ("no_repeats", "one_layer"):
        assert numbers.learnt_step(plan, trained[condition]) is None, condition
        assert trained[condition].induction[-1].max() < 0.3, condition
    assert trained["no_repeats"].second.min() > math.log(16) - 0.1


def test_runs_of_a_seed_start_from_the_same_weights(trained):
    start = {name: run.weights["embedding"][0] for name, run in trained.items()}
    assert (start["repeats"] == start["no_repeats"]).all()
    assert (start["repeats"] == start["one_layer"]).all()


def test_found_heads_are_needed_and_an_untrained_model_has_none(plan, trained):
    ablation = training.ablate(plan, trained["repeats"])
    assert ablation.whole.mean() == pytest.approx(trained["repeats"].second[-1], abs=0.1)
    assert ablation.groups["induction_heads"].mean() > ablation.whole.mean() + 1

    untrained = {name: stored[:1] for name, stored in trained["repeats"].weights.items()}
    ablation = training.ablate(plan, replace(trained["repeats"], weights=untrained))
    assert abs(ablation.groups["induction_heads"].mean() - ablation.whole.mean()) < 0.1


def test_the_same_run_again_is_the_same(plan, trained):
    again = training.train(replace(plan, steps=10), "repeats", seed=0)
    assert (again.second == trained["repeats"].second[:2]).all()


#### numbers and sentences


def test_a_rise_counts_tokens():
    class Observations:
        periods = np.array([3, 5])  # second copies of 2 and 4 tokens

    ablation = Ablation(whole=np.zeros(2), single=np.zeros((1, 1, 2)), groups={}, heads={})
    assert numbers.rise(Observations, ablation, np.array([3.0, 0.0])) == pytest.approx(1.0)


def test_tokens_without_order_are_worth_their_frequencies():
    class Observations:
        ids = np.array([[7, 8, 7, 9, 7, 8, 7, 9]])
        periods = np.array([4])

    expected = (math.log(4) + math.log(2) + math.log(4)) / 3  # of 8, 7, 9
    assert numbers.unordered_loss(Observations) == pytest.approx(expected)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measurement]:
    """Return the measurements of the smoke profile, run as the command runs it."""
    out = tmp_path_factory.mktemp("induction") / "out"
    out.mkdir()
    context = Context(
        config=load_config(CONFIG, "smoke"),
        profile="smoke",
        seed=0,
        inputs=Inputs(),
        out=out,
        progress=lambda done, total, note: None,
    )
    kept = {}

    def keep(ctx: Context):
        outcome = run(ctx)
        kept.update(outcome.measurements)
        return outcome

    conduct(EXPERIMENT, keep, context)
    assert (out / "report.md").exists()
    assert {path.name for path in (out / "artifacts/runs").iterdir()} == {
        f"{condition}_seed{seed}"
        for condition in ("repeats", "no_repeats", "one_layer")
        for seed in (0, 1)
    }
    return kept


def test_sentences_follow_the_numbers(plan, result):
    def text(**changes: Measurement) -> str:
        return " ".join(report.findings(plan, {**result, **changes}))

    sample = Measurement.of_sample
    assert "None of 1 two-layer models learnt to copy" in text()
    learnt = {
        "seeds_learnt": Measurement.of_exact(3, "seeds"),
        "learnt_step": sample([100, 110, 120], "steps"),
        "induction_step": sample([90, 100, 110], "steps"),
        "previous_token_step": sample([95, 105, 115], "steps"),
        "fall_steps": sample([50, 50, 50], "steps"),
        "induction_lead": sample([10, 10, 10], "steps"),
        "previous_token_lead": sample([-5, -5, -5], "steps"),
    }
    assert "10.0 steps before the loss counts as learnt" in text(**learnt)
    assert "5.00 steps after the induction score" in text(**learnt)
    learnt["induction_lead"] = sample([-10, -10, -10], "steps")
    assert "10.0 steps after the loss counts as learnt" in text(**learnt)


def test_the_sentence_on_a_single_head_follows_the_numbers(plan, result):
    def text(alone: float) -> str:
        changes = {
            "ablation_previous_token_head": Measurement.of_sample([alone, 4.0], "nats/token"),
            "ablation_previous_token_heads": Measurement.of_sample([4.0, 4.0], "nats/token"),
        }
        return report.findings(plan, {**result, **changes})[-1]

    assert "in 1 model it is less than half" in text(0.3)
    assert "no model shares this work" in text(3.9)


def test_the_sentence_on_the_controls_follows_the_numbers(plan, result):
    def text(loss: float) -> str:
        changes = {"second_copy_loss_one_layer": Measurement.of_sample([loss, loss], "nats/token")}
        return " ".join(report.findings(plan, {**result, **changes}))

    unordered = result["unordered_loss"].number
    assert "0.500 above what knowing" in text(unordered + 0.5)
    assert "0.500 below what knowing" in text(unordered - 0.5)


#### captions


@pytest.fixture(scope="module")
def observations(plan: InductionPlan, trained: dict[str, Run]) -> InductionObservations:
    """Return what the three real runs make of an experiment."""
    held_out = training.evaluation_set(plan)
    return InductionObservations(
        plan=plan,
        runs={(condition, 0): one for condition, one in trained.items()},
        ablations={0: training.ablate(plan, trained["repeats"])},
        ids=held_out.ids.numpy(),
        periods=held_out.periods.numpy(),
        film=held_out.film.numpy(),
        seconds=1.0,
    )


def captions(observations: InductionObservations) -> dict[str, str]:
    shown = figures.figures(observations, numbers.measurements(observations))
    return {figure.name: figure.caption for figure in shown}


def test_captions_follow_the_numbers(plan, observations):
    learnt = captions(observations)
    step = numbers.learnt_step(plan, observations.runs["repeats", 0])
    assert "two-layer runs stay below half of it from step" in learnt["loss"]
    assert f"copying is learnt at step {step}" in learnt["film_induction_heads"]

    # the run without repeats in the place of the one that learnt
    flat = replace(observations.runs["no_repeats", 0], condition="repeats")
    runs = {**observations.runs, ("repeats", 0): flat}
    never = captions(replace(observations, runs=runs))
    assert "no two-layer run stays below half of it" in never["loss"]
    assert "this run never learnt to copy" in never["film_induction_heads"]


def test_films_show_the_pattern_below_the_diagonal(observations):
    film = figures.film(observations, "induction_heads")
    _, head = figures.film_head(observations, "induction_heads")
    last = film.panels[-1].values
    pattern = observations.runs["repeats", 0].patterns[-1, 1, head]
    assert last[8][3] == pytest.approx(float(pattern[8, 3]))
    assert last[3][8] is None
