"""A comparison in sentences: what differs most, then feature by feature, with what may be why."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lab.compare.comparing import CHANCE, Comparison, Outcome
from lab.compare.runs import Run
from lab.present.numbers import count, number, quantity
from lab.verified import SAMPLE_ASSURANCE

MOST = 5  # of the clearest differences, over all and of a feature
NAMES = 8  # that a sentence lists
DIGITS = 2  # of a ratio


@dataclass(frozen=True)
class FeatureComparison:
    """A feature of both runs.

    only_here, only_there: names of measurements that one side has; reasons: what differs between
    the runs of this feature; same_inputs: whether seed, profile, config, data and inputs are the
    same; is_same_run: whether both have the same receipt.
    """

    feature: str
    comparisons: tuple[Comparison, ...]
    only_here: tuple[str, ...]
    only_there: tuple[str, ...]
    reasons: tuple[str, ...]
    same_inputs: bool
    is_same_run: bool

    def having(self, *outcomes: Outcome) -> list[Comparison]:
        """Return the comparisons with one of these outcomes, the clearest difference first."""
        chosen = [one for one in self.comparisons if one.outcome in outcomes]
        return sorted(chosen, key=lambda one: -one.size)

    @property
    def has_other_numbers(self) -> bool:
        """Return whether a number that no machine decides is another one."""
        return bool(self.having(Outcome.AGREES, Outcome.DIFFERS, Outcome.UNKNOWN))


@dataclass(frozen=True)
class RunComparison:
    """Two runs, compared.

    features: those that both have; only_here, only_there: ids of those that one side has.
    """

    here: Run
    there: Run
    features: tuple[FeatureComparison, ...]
    only_here: tuple[str, ...]
    only_there: tuple[str, ...]

    @property
    def common_reasons(self) -> tuple[str, ...]:
        """Return what differs between the runs of every feature."""
        if not self.features:
            return ()
        first, *others = self.features
        return tuple(
            reason for reason in first.reasons if all(reason in one.reasons for one in others)
        )


def paragraphs(comparison: RunComparison, machines: tuple[str, str]) -> list[str]:
    """Return the comparison as paragraphs; those that begin with blanks are parts of a list.

    machines: of both sides, in words.
    """
    text = [_heading(comparison)]
    text += _clearest(comparison)
    text.append(_balance(comparison))
    text += _why(comparison, machines)
    for one in comparison.features:
        text += ["", *_feature(one, comparison.common_reasons)]
    for names, side in ((comparison.only_here, "here"), (comparison.only_there, "there")):
        if names:
            text += ["", f"Only {side}: {', '.join(names)}."]
    return text


def _heading(comparison: RunComparison) -> str:
    """Return what is compared with what."""
    here, there = comparison.here, comparison.there
    sentences = [
        f"Here: {here.folder} ({count(len(here.features), 'feature')}"
        f"{', a sample run' if here.is_sample else ''}). There: {there.folder} "
        f"({count(len(there.features), 'feature')}{', a sample run' if there.is_sample else ''})."
    ]
    for run, side in ((here, "here"), (there, "there")):
        if run.is_sample:
            sentences.append(f"Of the run {side}, {SAMPLE_ASSURANCE}.")
    return " ".join(sentences)


def _clearest(comparison: RunComparison) -> list[str]:
    """Return the clearest differences of all features."""
    differences = []
    for of in comparison.features:
        for one in of.having(Outcome.DIFFERS):
            differences.append((one.size, f"{of.feature}.{_difference(one)}"))
    if not differences:
        return ["Nothing differs that is no time, rate or size of a process."]
    differences.sort(key=lambda pair: -pair[0])
    lines = ["What differs most:"]
    lines += [f"  {text}" for _, text in differences[:MOST]]
    if len(differences) > MOST:
        lines.append(f"  and {number(len(differences) - MOST)} more, below.")
    return lines


def _balance(comparison: RunComparison) -> str:
    """Return how many measurements agree, and how many intervals would miss by chance."""
    every = [one for of in comparison.features for one in of.comparisons]
    outcomes = Counter(one.outcome for one in every)
    measurements = count(len(every), "measurement")
    sentences = [
        f"{measurements} of {count(len(comparison.features), 'feature')} are in both: "
        f"{outcomes[Outcome.EQUAL]} equal, {outcomes[Outcome.AGREES]} within the interval of their "
        f"difference, {outcomes[Outcome.DIFFERS]} different, {outcomes[Outcome.MACHINE]} of the "
        f"machine (a ratio), {outcomes[Outcome.UNKNOWN]} undecided."
    ]
    intervals = [one for one in every if one.is_interval]
    if intervals:
        outside = sum(one.outcome == Outcome.DIFFERS for one in intervals)
        sentences.append(
            f"{count(len(intervals), 'interval')} decided, each at 95 %: about "
            f"{number(CHANCE * len(intervals), 2)} would exclude 0 by chance if nothing differed; "
            f"{number(outside)} did."
        )
    return " ".join(sentences)


def _why(comparison: RunComparison, machines: tuple[str, str]) -> list[str]:
    """Return what differs between the runs of every feature, and the two machines."""
    lines = []
    if machines[0] == machines[1]:
        lines.append(f"Machine of both: {machines[0]}.")
    else:
        lines.append(f"Machine here: {machines[0]}; there: {machines[1]}.")
    if comparison.common_reasons:
        lines.append("Between all runs differ:")
        lines += [f"  {reason}" for reason in comparison.common_reasons]
    # Independent runs are the rule of the interval, and these are not.
    dependent = []
    for one in comparison.features:
        if one.same_inputs and one.has_other_numbers:
            dependent.append(one.feature)
    if dependent:
        lines.append(
            f"Seed, config and data are the same in {_listed(dependent)}: what is deterministic "
            "would be equal there but for what differs above or below, and an interval for "
            "independent runs is wider than it need be."
        )
    return lines


# One feature


def _feature(of: FeatureComparison, common: Sequence[str]) -> list[str]:
    """Return the paragraphs of a feature."""
    judged = of.having(Outcome.EQUAL, Outcome.AGREES, Outcome.DIFFERS)
    differing = of.having(Outcome.DIFFERS)
    agreeing = len(judged) - len(differing)
    equal = len(of.having(Outcome.EQUAL))
    total = count(len(judged), "measurement")
    sentences = [f"{of.feature}: {number(agreeing)} of {total} agree, {number(equal)} are equal."]
    if of.is_same_run:
        sentences = [f"{of.feature}: the same run, both sides have the same receipt."]
    if differing:
        shown = "; ".join(_difference(one) for one in differing[:MOST])
        more = ""
        if len(differing) > MOST:
            more = f"; and {number(len(differing) - MOST)} more (--json lists all)"
        sentences.append(f"Different: {shown}{more}.")
    sentences += _undecided(of)
    sentences += _machine_sentences(of.having(Outcome.MACHINE))
    for names, side in ((of.only_here, "here"), (of.only_there, "there")):
        if names:
            sentences.append(f"Only {side}: {_listed(names)}.")
    return [" ".join(sentences), *_reason_lines(of, common)]


def _undecided(of: FeatureComparison) -> list[str]:
    """Return what nothing decides, and how far apart it is."""
    unknown = of.having(Outcome.UNKNOWN)
    if not unknown:
        return []
    apart = [one.relative for one in unknown if one.relative is not None]
    text = "Undecided, as there is no interval or no number"
    if apart:
        text += f" (at most {number(100 * max(apart), DIGITS)} % apart)"
    return [f"{text}: {_listed([one.name for one in unknown])}."]


def _machine_sentences(of_machine: Sequence[Comparison]) -> list[str]:
    """Return how times, rates and sizes compare, by unit."""
    by_unit: dict[str, list[float]] = {}
    for one in of_machine:
        if one.ratio is not None:
            by_unit.setdefault(one.here.unit, []).append(one.ratio)
    parts = []
    for unit, ratios in by_unit.items():
        middle = number(statistics.median(ratios), DIGITS)
        low, high = number(min(ratios), DIGITS), number(max(ratios), DIGITS)
        spread = "" if low == high else f" ({low} to {high})"
        parts.append(f"{count(len(ratios), 'number')} in {unit} {middle}{spread}")
    if not parts:
        return []
    return [f"Here over there, the median: {', '.join(parts)}."]


def _reason_lines(of: FeatureComparison, common: Sequence[str]) -> list[str]:
    """Return what may be why its numbers are others."""
    if not of.has_other_numbers:
        return []
    own = [reason for reason in of.reasons if reason not in common]
    if own:
        return ["  Besides, between these runs differ:", *(f"    {reason}" for reason in own)]
    if not of.reasons:
        return [
            "  Code, config, data, seed, machine and packages are the same, so these numbers "
            f"should be too. Next: python -m phases verify {of.feature}, which judges what is "
            "stored again, and the report of FEAT-019."
        ]
    return []


def _difference(one: Comparison) -> str:
    """Return a measurement of both sides: `best_rate: 0.001 here, 5e-4 there (exact)`."""
    text = f"{one.name}: {quantity(one.here)} here, {quantity(one.there)} there"
    if one.half is None or one.difference is None:
        return f"{text} (exact)"
    low, high = one.difference - one.half, one.difference + one.half
    return f"{text} (difference {number(low, 3)} to {number(high, 3)})"


def _listed(names: Iterable[str]) -> str:
    """Return names, of many the first ones."""
    names = list(names)
    if len(names) <= NAMES:
        return ", ".join(names)
    return f"{', '.join(names[:NAMES])} and {number(len(names) - NAMES)} more"
