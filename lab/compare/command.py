"""`python -m lab compare OTHER`: one's own results beside those of another run, in sentences."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.compare.comparing import CHANCE, Comparison, compare_all
from lab.compare.reasons import describe_machine, find_reasons, has_same_seed_and_data
from lab.compare.runs import AUDIT, CompareError, Run, read_run
from lab.compare.sentences import FeatureComparison, RunComparison, paragraphs
from lab.verified import VerifiedResult

SCHEMA = "lab.compare/1"
WIDEST, NARROWEST = 100, 30  # columns of text


def main(argv: Sequence[str]) -> int:
    """Compare two runs on stdout and return the exit code.

    0: they were compared, whatever came out; 2: one of them cannot be read.
    """
    # 1. The arguments.
    parser = argparse.ArgumentParser(
        prog="python -m lab compare",
        description="Compare your own results with those of another run, in sentences.",
        epilog=(
            "OTHER is a clone, a folder of results or docs/sample-run. Estimates are compared by "
            "the 95 % interval of their difference, times and sizes by machine."
        ),
    )
    parser.add_argument("other", type=Path, metavar="OTHER", help="the other run's folder")
    parser.add_argument(
        "--root", type=Path, default=Path(), help="the repository of your own run (default: here)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    args = parser.parse_args(argv)

    # 2. Both runs, and the comparison.
    try:
        here = read_run(args.root, "--root")
        there = read_run(args.other, "OTHER")
        comparison = compare_runs(here, there)
    except CompareError as error:
        sys.stderr.write(f"error: {error}\nnext: {error.hint}\n")
        return 2

    # 3. What is said of it.
    machines = describe_machines(here), describe_machines(there)
    text = "\n".join(map(_wrap, paragraphs(comparison, machines)))
    if args.json:
        text = json.dumps(document(comparison, machines), ensure_ascii=False)
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe has gone
        sys.stdout = None  # or the interpreter would try to flush it
    return 0


def compare_runs(here: Run, there: Run) -> RunComparison:
    """Return the comparison of every feature that both runs have."""
    # 1. The numbers.
    numbers = {}
    for name, result_here in here.features.items():
        if name in there.features:
            numbers[name] = compare_all(result_here.measurements, there.features[name].measurements)
    changed = [name for name, comparisons in numbers.items() if _is_changed(comparisons)]

    # 2. What may be why.
    features = []
    for name, comparisons in numbers.items():
        results = here.features[name], there.features[name]
        features.append(_explain(name, comparisons, results, changed))
    return RunComparison(
        here=here,
        there=there,
        features=tuple(features),
        only_here=_missing(here.features, there.features),
        only_there=_missing(there.features, here.features),
    )


def _explain(
    name: str,
    comparisons: tuple[Comparison, ...],
    results: tuple[VerifiedResult, VerifiedResult],
    changed: Sequence[str],
) -> FeatureComparison:
    """Return a feature's comparisons with what differs between its two runs, here and there.

    Raises:
        CompareError: an environment or a receipt has another form than the runner's.
    """
    result_here, result_there = results
    try:
        reasons = find_reasons(result_here, result_there, changed)
        same_inputs = has_same_seed_and_data(result_here, result_there)
    except (KeyError, TypeError, AttributeError) as error:
        msg = (
            f"{name}: the environment of a result or its receipt has another form than the lab's "
            f"({type(error).__name__}: {error})"
        )
        raise CompareError(msg, AUDIT) from error
    return FeatureComparison(
        feature=name,
        comparisons=comparisons,
        only_here=_missing(result_here.measurements, result_there.measurements),
        only_there=_missing(result_there.measurements, result_here.measurements),
        reasons=reasons,
        same_inputs=same_inputs,
        is_same_run=result_here.receipt_digest == result_there.receipt_digest,
    )


def describe_machines(run: Run) -> str:
    """Return the machines of a run's features in words, each once."""
    return "; ".join(dict.fromkeys(describe_machine(one) for one in run.features.values()))


def document(comparison: RunComparison, machines: tuple[str, str]) -> dict[str, Any]:
    """Return the comparison as JSON has it."""
    every = [one for of in comparison.features for one in of.comparisons]
    intervals = sum(one.is_interval for one in every)
    features = []
    for of in comparison.features:
        features.append(
            {
                "feature": of.feature,
                "measurements": [_measurement_json(one) for one in of.comparisons],
                "only_here": of.only_here,
                "only_there": of.only_there,
                "reasons": of.reasons,
                "same_seed_and_data": of.same_inputs,
                "same_run": of.is_same_run,
            }
        )
    return {
        "schema": SCHEMA,
        "here": _run_json(comparison.here, machines[0]),
        "there": _run_json(comparison.there, machines[1]),
        "outcomes": dict(Counter(one.outcome.value for one in every)),
        "intervals": intervals,
        "differ_by_chance": CHANCE * intervals,
        "common_reasons": comparison.common_reasons,
        "features": features,
        "only_here": comparison.only_here,
        "only_there": comparison.only_there,
    }


def _run_json(run: Run, machine: str) -> dict[str, Any]:
    receipts = {name: one.receipt_digest for name, one in run.features.items()}
    return {
        "folder": str(run.folder),
        "sample": run.is_sample,
        "machine": machine,
        "receipts": receipts,
    }


def _measurement_json(one: Comparison) -> dict[str, Any]:
    return {
        "name": one.name,
        "outcome": one.outcome.value,
        "unit": one.here.unit,
        "here": one.here.value,
        "there": one.there.value,
        "difference": one.difference,
        "half_width": one.half,
        "ratio": one.ratio,
    }


def _is_changed(comparisons: Sequence[Comparison]) -> bool:
    """Return whether a number that no machine decides is another one."""
    return any(one.outcome in {"agrees", "differs", "unknown"} for one in comparisons)


def _missing(names: Any, others: Any) -> tuple[str, ...]:
    """Return what is among the names and not among the others."""
    return tuple(name for name in names if name not in others)


def _wrap(text: str) -> str:
    """Return a paragraph in lines as wide as the terminal; its indent is kept."""
    width = min(shutil.get_terminal_size().columns, WIDEST)
    indent = text[: len(text) - len(text.lstrip())]
    later = indent + "  " if indent else ""
    return textwrap.fill(
        text.strip(),
        width=max(width, NARROWEST),
        initial_indent=indent,
        subsequent_indent=later,
        break_on_hyphens=False,
        break_long_words=False,
    )
