"""The mutants of outputs: they follow from the outputs, the plan's patterns and a nonce."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from phases.execution.collect import matches
from phases.judge.copies import Output
from phases.judge.measurements import Change, alter_result
from phases.judge.mutants import DAMAGES, alter_file, damage_file, kind_of
from phases.judge.mutation import (
    MutantKind,
    Mutation,
    digest_only,
    is_exempt,
    mutation_order,
)
from phases.judge.tables_and_sentences import alter_other_numbers, alter_sentences, alter_tables
from phases.record.result import RESULT, read_measurements

__all__ = [
    "MutantKind",
    "Mutation",
    "digest_only",
    "expected_mutations",
    "feature_mutations",
    "is_exempt",
]


def expected_mutations(
    digests: Mapping[str, str], patterns: Sequence[str], nonce: str, result: bytes | None
) -> list[Mutation]:
    """Return all mutations of a feature's outputs, in the order of its verdict.

    Args:
        digests: path -> SHA-256 of the outputs; none of them but result.json is read.
        patterns: see `feature_mutations`, as for the others.

    Raises:
        StrictJsonError: result.json cannot be read.
    """
    outputs = {path: Output(path, Path(path), sha256) for path, sha256 in digests.items()}
    return mutation_order(list(feature_mutations(outputs, patterns, nonce, result)))


def feature_mutations(
    outputs: Mapping[str, Output], patterns: Sequence[str], nonce: str, result: bytes | None
) -> Iterator[Mutation]:
    """Yield all mutations of a feature's outputs but `empty`.

    Args:
        outputs: by their path; none is read before its mutant is made.
        patterns: the outputs as the plan declares them.
        nonce: what the altered file of a pattern is drawn by.
        result: result.json; None where there is none.

    Raises:
        StrictJsonError: result.json cannot be read.
    """
    # 1. What every gate must notice: measurements, and the damage of any file. The measurements
    #    stand for the damage of result.json.
    files = dict(outputs)
    if result is not None and read_measurements(result):
        yield measurements_mutation(files.pop(RESULT), RESULT)
    for path, output in sorted(files.items()):
        make = partial(_damage, output)
        yield Mutation(MutantKind.TAMPER, path, make, path, DAMAGES[kind_of(path)])

    # 2. What a reader wants to know: was it judged, or only sealed?
    for pattern in patterns:
        candidates = sorted(path for path in files if matches(pattern, path))
        if candidates:
            rng = random.Random(f"{nonce}:{pattern}")
            path = rng.choice(candidates)
            yield Mutation(MutantKind.CONTENT, pattern, partial(_alter, files[path], rng), path)
    if result is not None:
        yield from _result_mutations(result)


def _result_mutations(result: bytes) -> Iterator[Mutation]:
    """Yield the mutations of what a result.json says besides its measurements."""
    parts: dict[str, Callable[[bytes], bytes]] = {
        f"tables of {RESULT}": alter_tables,
        f"sentences of {RESULT}": alter_sentences,
        f"other numbers of {RESULT}": alter_other_numbers,
    }
    for part, alter in parts.items():
        altered = alter(result)
        if altered != result:
            make: Callable[[], Mapping[str, bytes]] = partial(dict, {RESULT: altered})
            yield Mutation(MutantKind.CONTENT, part, make, RESULT)


def measurements_mutation(result: Output, target: str) -> Mutation:
    """Return the mutation that changes all measurements of a result.json at once."""

    def make() -> dict[str, bytes]:
        return {result.path: alter_result(result.read(), Change.LARGE)}

    return Mutation(MutantKind.MEASUREMENTS, target, make)


def _damage(output: Output) -> dict[str, bytes]:
    return {output.path: damage_file(output.path, output.read())}


def _alter(output: Output, rng: random.Random) -> dict[str, bytes]:
    return {output.path: alter_file(output.path, output.read(), rng)}
