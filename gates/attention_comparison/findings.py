"""FEAT-012's findings and captions: every number at its place, every verdict as numbers decide."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gates.attention_comparison.arrays import STATISTICS
from gates.shared.documents import filled, shows
from gates.shared.stored import config

Numbers = Mapping[str, Any]

# One finding after the other: its words, with {measurement}, {100 * measurement}, {setting} for
# what is stated, and [choice] for a verdict.
FINDINGS = (
    "Fine-tuning moved attention by {js_tuned} per head. With the adapter switched off the same "
    "model differs from the base by exactly 0.",
    "Two seeds are {js_seeds} apart. They agree [shared_share] {100 * shared_share} % of the "
    "movement (0 %: independent, 100 %: equal).",
    "A random update of equal norm in every matrix moves attention by {js_random}. Training moved "
    "it [random_ratio] that: {random_ratio} times.",
    "{heads_above_seeds} of {heads} heads are above the other seeds and {heads_above_random} above "
    "the random updates (paired t over prompts, Holm, 0.05), {heads_moved} above both. "
    "{most_moved_head} moved furthest, by {js_most_moved}; the {ablated} furthest have "
    "{100 * top_share} % of all movement. Its mean depth is {movement_depth} (0: first layer, 1: "
    "last), [movement_depth]. Two seeds order the heads alike with a rank correlation of "
    "{seed_rank_correlation}.",
    "Attention moved [task_excess] on held-out examples of the task ({js_task}) than on running "
    "text ({js_text}).",
    "In the mean over heads: "
    + ", ".join(
        f"{name.replace('_', ' ')} [{name}_shift] ({{{name}_shift}} from {{{name}_base}})"
        for name in STATISTICS
    )
    + ".",
    "Without the {ablated} heads that moved most the tuned model's task loss rises by "
    "{ablation_moved_tuned} from {loss_tuned}, [ablation_excess_tuned] without random ones "
    "({ablation_random_tuned}; difference {ablation_excess_tuned}).",
    "In the base, from a loss of {loss_base}, the same heads cost {ablation_moved_base} and random "
    "ones {ablation_random_base} (difference {ablation_excess_base}). [ablation_interaction]: "
    "{ablation_interaction}.",
    "[attention_lag]",
    "[first_step_moved]; [first_step_loss]. The heads that moved first and those that moved most "
    "in the end have a rank correlation of {early_late_correlation}. Over the {snapshots} "
    "snapshots the fall of the loss and the movement correlate with {loss_attention_correlation}.",
    "The training that was repeated for its snapshots ends at the stored adapter {trial} "
    "[replay_gap].",
)
VERDICTS = {  # measurement -> its words where it is above, below and around its reference
    "shared_share": (
        "more than independent moves would: the seeds share",
        "less than independent moves would: the shared share is",
        "about what independent moves would: the shared share is",
    ),
    "random_ratio": ("further than", "less far than", "about as far as"),
    "movement_depth": (
        "in the later half of the layers",
        "in the earlier half of the layers",
        "in the middle of the layers",
    ),
    "task_excess": ("more", "less", "not clearly more or less"),
    "ablation_excess_tuned": ("more than", "less than", "not clearly more or less than"),
    "ablation_interaction": (
        "Tuning made these heads matter more",
        "Tuning made these heads matter less",
        "It is not clear that tuning changed what these heads matter",
    ),
    "attention_lag": ("The loss fell first", "Attention moved first", "Neither clearly came first"),
    **{f"{name}_shift": ("rose", "fell", "did not clearly change") for name in STATISTICS},
}
REFERENCES = {"random_ratio": 1.0, "movement_depth": 0.5}  # of the others: 0
LAG = (
    ": the held-out loss was half of its way down at step {loss_half_step}, attention at "
    "{attention_half_step}, {attention_lag} steps later (negative: earlier). "
)
CAPTIONS = {  # figure -> its caption
    "moved": "Mean Jensen-Shannon divergence per head: {1000 * js_tuned} between base and tuned, "
    "{1000 * js_seeds} between two seeds, {1000 * js_random} between base and a random update of "
    "equal norm (thousandths of a nat). {most_moved_head} moved furthest; {heads_moved} of {heads} "
    "heads are above both nulls.",
    "layers": "Mean over a layer's heads, bands ± 1 standard error over {prompts} prompts. "
    "Largest: base against tuned in layer {tuned_layer} ({tuned_largest}); seed against seed in "
    "layer {seeds_layer} ({seeds_largest}); base against random in layer {random_layer} "
    "({random_largest}). Logarithmic scale.",
    "ablation": "Rise of the held-out loss without the {ablated} heads that moved most, and "
    "without each of {sets} random sets of as many others (bars: ± 1 standard error over "
    "examples; from the least to the largest set). Moved minus random: {ablation_excess_tuned} in "
    "the tuned model, {ablation_excess_base} in the base.",
    "over_time": "Share of the whole fall of the held-out loss, and of the whole movement of "
    "attention, at each snapshot. Half of the way: the loss at step {loss_half_step}, attention at "
    "step {attention_half_step}. The dashed line is a random update of the same norms, as a share "
    "of the trained one's end.",
    "heads_over_time": "Movement from the base at {panels} of {snapshots} snapshots of one "
    "training. Between the first and the last snapshot the order of the heads has a rank "
    "correlation of {early_late_correlation}; a head was above the random update for the first "
    "time at step {first_step_moved}.",
}
AXES = {  # figure -> title, x label, y label
    "moved": ("How far each head moved, beside what chance does", "head", "layer"),
    "layers": ("Movement of attention by layer", "layer", "movement (thousandths of a nat)"),
    "ablation": ("Task loss without some heads", "model", "rise of the loss (nats/token)"),
    "over_time": (
        "Does the loss know before attention moves?",
        "optimizer step",
        "share of the way",
    ),
    "heads_over_time": ("Which heads move first", "head", "layer"),
}
CHOICE = re.compile(r"\[([a-z_]+)\]")


def problems(findings: Sequence[str], numbers: Numbers, trial: str) -> list[str]:
    """Return what the findings say otherwise than the numbers; `trial`: the one repeated."""
    if len(findings) != len(FINDINGS):
        return [f"{len(findings)} findings; expected {len(FINDINGS)}"]
    known = dict(numbers) | {"trial": trial, "ablated": config()["ablation"]["heads"]}
    found = []
    for finding, template in zip(findings, FINDINGS, strict=True):
        found += _problems(finding, _with_verdicts(template, numbers), known)
    return found


def problems_of_figure(name: str, figure: Mapping[str, Any], known: Numbers) -> list[str]:
    """Return what a figure's caption, title and axes say otherwise than the numbers."""
    found = _problems(figure["caption"], CAPTIONS[name], known)
    stated = tuple(figure[field] for field in ("title", "x_label", "y_label"))
    if stated != AXES[name]:
        found.append(f"{name}: {stated}; expected {AXES[name]}")
    return found


def _problems(finding: str, template: str, known: Numbers) -> list[str]:
    """Return what is wrong with one finding; only numbers are left open in its template."""
    slots = filled(template, finding)
    if slots is None:
        return [f"{finding!r} is not {template!r}"]
    found = []
    for name, text in slots:
        value = _value(name, known)
        is_stated = shows(text, value) or (value is None and text == "none")
        if not is_stated:
            found.append(f"{finding[:40]!r} states {name} as {text!r}; it is {value}")
    return found


def _value(name: str, known: Numbers) -> Any:
    """Return the value of a measurement, or 100 times it."""
    factor, _, measurement = name.rpartition(" * ")
    number = known[measurement]
    value = number["value"] if isinstance(number, dict) else number
    return int(factor) * value if factor else value


def _with_verdicts(template: str, numbers: Numbers) -> str:
    """Return a template with the words that the numbers decide."""
    special = {
        "attention_lag": _lag,
        "first_step_moved": _first_moved,
        "first_step_loss": _first_loss,
        "replay_gap": _replay,
    }

    def choose(match: re.Match[str]) -> str:
        name = match[1]
        if name in special:
            return special[name](numbers)
        return VERDICTS[name][_side(numbers[name], REFERENCES.get(name, 0.0))]

    return CHOICE.sub(choose, template)


def _lag(numbers: Numbers) -> str:
    lag = numbers["attention_lag"]
    if lag["value"] is None:
        return "The held-out loss did not fall, so there is no order of loss and attention."
    way = VERDICTS["attention_lag"][_side(lag, 0.0)] + LAG
    overshoot = numbers["attention_overshoot"]["value"]
    if overshoot == 0:
        return way + "Attention was furthest from the base at the end, step {attention_peak_step}."
    return way + (
        "Attention was furthest from the base at step {attention_peak_step}, "
        "{100 * attention_overshoot} % further than at the end."
    )


def _first_moved(numbers: Numbers) -> str:
    if numbers["first_step_moved"] is None:
        return "At no snapshot was a head above its null"
    return "The first snapshot with a head above its random update is step {first_step_moved}"


def _first_loss(numbers: Numbers) -> str:
    if numbers["first_step_loss"] is None:
        return "the loss never fell by a tenth of its way"
    return "the loss had fallen by a tenth of its way at step {first_step_loss}"


def _replay(numbers: Numbers) -> str:
    if numbers["replay_gap"] == 0:
        return "bit for bit"
    return "up to {replay_gap} per number"


def _side(number: Mapping[str, Any], reference: float) -> int:
    """Return 0 if the 95 % interval is above a reference, 1 if below, 2 if around it."""
    from scipy import stats

    if number["stderr"] is None or number["n"] < 2:
        return 2
    reach = float(stats.t.ppf(0.975, number["n"] - 1)) * number["stderr"]
    if number["value"] - reach > reference:
        return 0
    if number["value"] + reach < reference:
        return 1
    return 2
