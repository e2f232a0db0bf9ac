"""FEAT-011's experiment: sees a sink and induction heads where they are made, none where not."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gates.attention_views import arrays as gate
from lab.attention_views import experiment, figures, numbers, report, tables
from lab.attention_views.measured import (
    INDUCTION,
    NATURAL,
    NOTHING,
    PREVIOUS,
    REPEATED,
    SETS,
    SetStatistics,
    ShownText,
    ViewObservations,
    ViewPlan,
)
from lab.config import Config, load_config
from lab.contract import Context, ContractError, Inputs, Measurement, conduct
from tests.lab.present.pages import data_of

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ROOT / "lab/attention_views/experiment.yaml"
LAYERS, HEADS, PERIOD = 4, 3, 20
TOTAL = 1 + 2 * PERIOD


def make_context(out: Path, changes: dict | None = None) -> Context:
    config = Config({**load_config(CONFIG, "smoke"), **(changes or {})}, "test")
    return Context(config, "smoke", 0, Inputs(), out, lambda done, total, note: None)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the outputs of a run of the smoke profile."""
    folder = tmp_path_factory.mktemp("views") / "out"
    folder.mkdir()
    conduct(experiment.EXPERIMENT, experiment.run, make_context(folder))
    return folder


# Patterns that are made to be seen


def uniform(total: int) -> np.ndarray:
    """Return a pattern [T, T] that looks at all tokens before it evenly."""
    return np.tril(np.ones((total, total))) / np.arange(1, total + 1)[:, None]


def sink(total: int) -> np.ndarray:
    pattern = np.zeros((total, total))
    pattern[:, 0] = 1
    return pattern


def previous(total: int) -> np.ndarray:
    pattern = np.eye(total, k=-1)
    pattern[0, 0] = 1
    return pattern


def induction(total: int, period: int) -> np.ndarray:
    pattern = sink(total)
    for query in range(period + 1, total):
        pattern[query] = 0
        pattern[query, query - period + 1] = 1
    return pattern


def patterns(*, trained: bool, total: int = TOTAL) -> np.ndarray:
    """Return [L, H, T, T]: even ones; trained, sinks behind layer 1 and two special heads."""
    made = np.tile(uniform(total), (LAYERS, HEADS, 1, 1))
    if trained:
        made[1:] = sink(total)
        made[1, 1] = previous(total)
        made[2, 2] = induction(total, PERIOD)
    return made


def statistics_of(made: np.ndarray, *, is_repeated: bool, count: int = 2) -> SetStatistics:
    """Return the statistics of patterns [L, H, T, T], for `count` equal sequences."""
    total = made.shape[-1]
    queries = np.arange(total)

    def diagonal(offset: int) -> np.ndarray:
        values = np.zeros(made.shape[:3])
        values[..., offset:] = np.diagonal(made, -offset, axis1=-2, axis2=-1)
        return batched(values)

    def batched(values: np.ndarray) -> np.ndarray:
        return np.tile(values, (count, 1, 1, 1)).astype("float32")

    nats = -(made * np.log(np.where(made > 0, made, 1))).sum(-1)
    second = batched(made[..., 1])
    return SetStatistics(
        sink=batched(made[..., 0]),
        second=second,
        entropy=batched(nats),
        distance=batched((made * (queries[:, None] - queries)).sum(-1)),
        previous=diagonal(1),
        induction=diagonal(PERIOD - 1) if is_repeated else None,
        duplicate=diagonal(PERIOD) if is_repeated else None,
    )


def observations(
    *, losses: dict[str, float] | None = None, trained: bool = True
) -> ViewObservations:
    plan = replace(
        ViewPlan.from_config(load_config(CONFIG, "smoke")),
        period=PERIOD,
        shown_period=PERIOD,
        early=1,
        late=1,
    )
    statistics = {}
    for kind in SETS:
        made = patterns(trained=trained and "random_weights" not in kind and kind != "one_token")
        statistics[kind] = statistics_of(made, is_repeated=kind.startswith(REPEATED))
    given = {NOTHING: 2.0, INDUCTION: 10.0, PREVIOUS: 9.0} | dict.fromkeys(plan.random_sets, 3.0)
    given |= losses or {}
    norms = np.ones((2, LAYERS, TOTAL), dtype="float32")
    norms[:, :, 0] = np.array([1, 50, 60, 70])
    heads = {NOTHING: [], INDUCTION: [(2, 2), (2, 1)], PREVIOUS: [(1, 1)]}
    heads |= {name: [(1, 1), (0, number)] for number, name in enumerate(plan.random_sets)}
    text = ShownText(
        REPEATED,
        "twice",
        "A note.",
        np.arange(TOTAL),
        [f" t{i}" for i in range(TOTAL)],
        patterns(trained=trained).astype("float32"),
        PERIOD,
    )
    return ViewObservations(
        plan=plan,
        model="made",
        statistics=statistics,
        ids={kind: np.zeros((2, TOTAL), dtype="int64") for kind in (*SETS, "ablation")},
        norms=norms,
        heads=heads,
        losses={name: two_copies(second) for name, second in given.items()},
        texts=[text],
    )


def two_copies(second: float) -> np.ndarray:
    """Return losses [2, 2·S]: 8 nats on the first copy, `second` on the second one."""
    row = np.repeat([8.0, second], PERIOD)
    return np.stack([row, row + 0.5]).astype("float32")


def measured(made: ViewObservations) -> dict[str, Measurement]:
    return numbers.measurements(made)


def test_a_sink_is_seen_where_it_is_and_nowhere_else() -> None:
    values = measured(observations())
    # 9 of 12 heads are behind layer 0; the previous-token head is no sink, the induction head
    # looks at the first token for its first copy
    assert values["sink_rate"].value == pytest.approx(100 * 8 / 12)
    assert values["sink_rate_one_token"].value == 0
    assert values["sink_rate_random_weights"].value == 0
    assert values["sink_rate_second_token"].value == 0
    assert values["sink_share_late"].number > 5 * values["sink_share_early"].number
    assert values["sink_rate"].n == 2


def test_special_heads_are_seen_where_they_are_and_nowhere_else() -> None:
    values = measured(observations())
    assert values["induction_head"].value == "L2H2"
    assert values["induction_score"].value == pytest.approx(1)
    assert values["induction_heads"].value == 1
    assert values["induction_score_random_weights"].number < 0.1
    assert values["previous_head"].value == "L1H1"
    assert values["previous_head_before_induction"].value is True
    untrained = measured(observations(trained=False))
    assert untrained["induction_heads"].value == 0
    assert untrained["previous_head_before_induction"].value is False
    assert untrained["sink_rate"].value == 0
    assert untrained["sink_follows_norm"].value is None, "all layers are the same"


def test_a_head_that_looks_at_the_first_token_alone_is_near_without_it() -> None:
    natural = observations().statistics[NATURAL]
    with_sink = numbers.distance_map(natural, with_sink=True)
    without = numbers.distance_map(natural, with_sink=False)
    assert with_sink[3, 0] == pytest.approx(TOTAL / 2, rel=0.05)
    assert without[3, 0] == 0
    # of the token just before, only query 1 sees the first token
    assert without[1, 1] == pytest.approx((TOTAL - 2) / (TOTAL - 1))
    entropy = numbers.entropy_map(natural)
    assert entropy[0, 0] == pytest.approx(1)
    assert entropy[3, 0] == pytest.approx(0)


def test_the_residual_that_goes_with_the_sink_is_seen() -> None:
    made = observations()
    assert measured(made)["sink_follows_norm"].number > 0.7
    turned = replace(made, norms=made.norms[:, ::-1].copy())
    assert measured(turned)["sink_follows_norm"].number < 0


def test_the_causal_test_compares_with_all_random_sets() -> None:
    values = measured(observations())
    assert values["ablation_rise_ratio"].value == pytest.approx(8)
    assert values["ablation_ratio"].value == pytest.approx(10.25 / 3.25)
    assert values["random_sets_with_previous_head"].value == 3
    assert values["loss_without_random_heads"].n == 3
    same = measured(observations(losses={INDUCTION: 3.0}))
    assert same["ablation_rise_ratio"].value == pytest.approx(1)
    none = measured(observations(losses=dict.fromkeys(("random_0", "random_1", "random_2"), 2.0)))
    assert none["ablation_rise_ratio"].value is None


# Sentences that change with their numbers


def all_findings(**changes: float | str | bool) -> str:
    made = observations()
    values = measured(made)
    for name, value in changes.items():
        values[name] = replace(values[name], value=value)
    return " ".join(report.findings(made.plan, values))


@pytest.mark.parametrize(
    ("name", "value", "before", "after"),
    [
        ("sink_rate_second_token", 99.0, "the sink is the first token", "is no sink"),
        ("sink_rate_random_tokens", 1.0, "not about content", "means something"),
        ("sink_rate_one_token", 99.0, "it vanishes", "it stays there"),
        ("sink_late_over_early", 0.5, "token grows with depth", "does not grow with depth"),
        ("sink_follows_norm", 0.1, "follows the size", "does not follow the size"),
        ("distance_late_without_sink", 99.0, "which is nearer", "which is farther"),
        ("induction_score", 0.01, "training made them", "so there are none"),
        ("previous_head_before_induction", False, "an earlier layer has", "no earlier layer has"),
        ("ablation_ratio", 1.5, "more than any", "nearly as much"),
        ("loss_without_previous_head", 2.5, "needs this head too", "does not hang on"),
    ],
)
def test_a_finding_flips_with_its_number(name: str, value: float, before: str, after: str) -> None:
    assert before in all_findings()
    flipped = all_findings(**{name: value})
    assert after in flipped
    assert before not in flipped


def test_an_ablation_that_shows_nothing_is_not_praised() -> None:
    text = all_findings(ablation_ratio=0.9, ablation_rise_ratio=1.0)
    assert "does not show what copying needs" in text
    undefined = all_findings(ablation_ratio=0.9, ablation_rise_ratio=None)
    assert "does not show what copying needs" in undefined


def test_captions_state_the_numbers_of_their_data() -> None:
    made = observations()
    captions = {f.name: f.caption for f in figures.figures(made, measured(made))}
    assert "L2H2" in captions["score_map"]
    assert "L1H1 alone" in captions["ablation"]
    assert "10.2 without the 2 induction heads" in captions["ablation"]
    other = observations(losses={INDUCTION: 5.0}, trained=False)
    changed = {f.name: f.caption for f in figures.figures(other, measured(other))}
    assert "5.25 without the 2 induction heads" in changed["ablation"]
    for name in set(captions) - {"norm_profile"}:
        assert captions[name] != changed[name], name


def test_a_later_token_is_not_drawn() -> None:
    made = observations()
    (patterns_figure,) = (f for f in figures.figures(made, measured(made)) if f.name == "patterns")
    for panel in patterns_figure.panels:
        assert panel.values[3][4] is None
        assert panel.values[4][4] is not None


def test_tables_name_the_heads() -> None:
    layers, heads, ablations = tables.tables(observations())
    assert len(layers.rows) == LAYERS
    assert heads.rows[0][:2] == ("L2H2", pytest.approx(1))
    assert ablations.rows[0][:2] == ("nothing", "none")
    assert ablations.rows[1][1] == "L2H2 L2H1"


def test_the_page_states_the_causal_test() -> None:
    made = observations()
    facts = report.page_facts(made.plan, measured(made))
    assert "is 2.25 nats per token, without the 2 induction heads 10.2" in facts
    other = observations(losses={INDUCTION: 5.0})
    assert "induction heads 5.25" in report.page_facts(other.plan, measured(other))


# The run


def test_the_run_is_complete(out: Path) -> None:
    result = json.loads((out / "result.json").read_text())
    paths = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert set(result["files"]) == paths - {"result.json", "report.md"}
    assert set(result["measurements"]) == set(gate.MEASUREMENTS)
    names = {figure["name"] for figure in result["figures"]}
    assert names == {path.stem for path in (out / "figures").iterdir()}
    assert len(names) == 8


def test_the_page_of_the_run_has_every_text(out: Path) -> None:
    document = data_of((out / "attention.html").read_text())
    labels = [text["label"] for text in document["texts"]]
    assert labels[:2] == ["running text", "a random sequence twice"]
    assert labels[-1] == "own"
    assert document["layers"] == 2


def test_a_text_that_is_too_long_is_refused(tmp_path: Path) -> None:
    long = [{"label": "long", "text": "x" * 65}]
    with pytest.raises(ContractError, match=r"'long' has 65 tokens; expected 2 to 64; .*--file"):
        experiment.measure(make_context(tmp_path, {"texts": long}))


def test_random_weights_are_other_weights_and_leave_the_random_state_alone(tiny) -> None:
    import torch

    from lab.attention_views import observing

    before = torch.get_rng_state()
    first, second = (observing.untrained(tiny.model, seed) for seed in (5, 5))
    assert torch.equal(before, torch.get_rng_state())
    weight = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(first.get_parameter(weight), second.get_parameter(weight))
    assert not torch.equal(first.get_parameter(weight), tiny.model.get_parameter(weight))


def test_switched_off_heads_change_the_loss_and_none_does_not(tiny) -> None:
    import torch

    from lab.attention_views import observing

    ids = torch.arange(40, 60)[None]
    plain = observing.token_losses(tiny.model, ids)
    assert plain.shape == (1, 19)
    with torch.no_grad():
        expected = tiny.model(ids, labels=ids).loss
    assert plain.mean() == pytest.approx(float(expected), rel=1e-5)
    assert not np.allclose(plain, observing.token_losses(tiny.model, ids, [(0, 1), (1, 2)]))
