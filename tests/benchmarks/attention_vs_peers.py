"""Recording attention: this extractor, eager attention, TransformerLens and nnsight; time, memory.

The floor is the same forward pass, logits included, that records nothing. Every row runs in a
process of its own, and the rows take turns; ratios are to the floor of the same round. Before that,
all rows record one text, and what they recorded is compared with eager attention. Needs
`pip install -e '.[bench]'`, the pretrained model, 12 GB of memory, and the machine alone for about
a quarter of an hour.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks._attention_rows import (
    EAGER,
    FLOOR,
    PATTERNS,
    PATTERNS_HALF,
    PEERS,
    ROWS,
    STATISTICS,
    Recorded,
    load,
    missing,
)
from tests.benchmarks._turns import Results, Times, take_turns

TOKENS = (128, 512, 1024, 2048)
PARITY_TOKENS = 512
PASSES, ROUNDS = 3, 3
AIM_RATIO, AIM_ADDED = 1.25, 50e6  # of the statistics at the longest text: time, bytes
PATTERN_LIMIT = 1e-5  # largest difference to eager attention, float32
HALF_LIMIT = 2**-11  # of weights up to 1, rounded to float16
STATISTICS_LIMIT = 1e-2  # largest difference of a statistic: nats, tokens (up to 2048 of them)


@dataclass(frozen=True)
class Parity:
    """The largest differences of a row to eager attention, None where the row records no such.

    logits: to the plain forward pass.
    """

    logits: float
    patterns: float | None = None
    statistics: dict[str, float] | None = None


def parity(model: str, ids: Any) -> dict[str, Parity]:
    """Run every row that is installed on ids [1, T] and compare what it recorded."""
    import torch

    compared = {}
    with torch.no_grad():
        floor = load(FLOOR, model)(ids).logits
        eager = load(EAGER, model)(ids)
        for row in ROWS:
            if row == FLOOR or missing(row):
                continue
            recorded = eager if row == EAGER else load(row, model)(ids)
            compared[row] = Parity(
                logits=_largest([(recorded.logits, floor)]),
                patterns=_largest(zip(recorded.patterns, eager.patterns, strict=True))
                if recorded.patterns
                else None,
                statistics=_of_statistics(recorded, eager) if recorded.statistics else None,
            )
    return compared


def _largest(pairs: Any) -> float:
    return max(float((one.double() - other.double()).abs().max()) for one, other in pairs)


def _of_statistics(recorded: Recorded, eager: Recorded) -> dict[str, float]:
    """Return the largest difference of each statistic to that of eager's patterns, in float64."""
    import torch

    differences: dict[str, float] = {}
    for layer, found in recorded.statistics.items():
        pattern = eager.patterns[layer].double()  # [1, H, T, T]
        positions = torch.arange(pattern.shape[-1], dtype=torch.float64)
        expected = {
            "sink": (found.sink, pattern[..., 0]),
            "entropy": (found.entropy, torch.special.entr(pattern).sum(-1)),
            "distance": (found.distance, positions * pattern.sum(-1) - pattern @ positions),
            "previous token": (found.diagonals[1][..., 1:], pattern.diagonal(-1, 2, 3)),
        }
        for name, pair in expected.items():
            differences[name] = max(differences.get(name, 0.0), _largest([pair]))
    return differences


class Outcome(Times):
    """All that was measured, and the table made of it."""

    def __init__(self, ran: Results, compared: Mapping[str, Parity], threads: int) -> None:
        super().__init__(ran, FLOOR, threads)
        self.compared = compared

    def exact(self) -> bool:
        """Return whether every row recorded what eager attention computes, logits untouched."""
        for row, found in self.compared.items():
            limit = HALF_LIMIT if row == PATTERNS_HALF else PATTERN_LIMIT
            own = row in (STATISTICS, PATTERNS, PATTERNS_HALF)
            if own and found.logits != 0:
                return False
            if found.patterns is not None and found.patterns >= limit:
                return False
            if found.statistics and max(found.statistics.values()) >= STATISTICS_LIMIT:
                return False
        return True

    def aims(self) -> dict[str, bool]:
        """Return each aim and whether it was met, at the longest text."""
        longest = self.tokens[-1]
        ratio, added = self.ratio(STATISTICS, longest), self.added(STATISTICS, longest)
        aims = {
            f"statistics at most {AIM_RATIO}x the floor: {ratio:.2f}x": ratio <= AIM_RATIO,
            f"statistics at most +{AIM_ADDED / 1e6:.0f} MB: {added / 1e6:+.0f} MB": added
            <= AIM_ADDED,
        }
        for peer in PEERS:
            if peer not in self.ran:
                continue
            aims[f"patterns faster than {peer}, at every length"] = self.is_faster(PATTERNS, peer)
            aims[f"patterns smaller than {peer}, at every length"] = self.is_smaller(PATTERNS, peer)
        return aims

    def lines(self) -> list[str]:
        """Return the proof, the table and the aims as lines."""
        lines = ["largest difference to eager attention, and of the logits to the plain forward:"]
        for row, found in self.compared.items():
            parts = [f"logits {found.logits:.1e}"]
            if found.patterns is not None:
                parts.append(f"patterns {found.patterns:.1e}")
            parts += [f"{name} {value:.1e}" for name, value in (found.statistics or {}).items()]
            lines.append(f"  {row:<35} {', '.join(parts)}")
        lines += self.table(ROWS)
        for aim, met in self.aims().items():
            lines.append(f"{'met' if met else 'MISSED':<6}  {aim}")
        return lines


def measure(
    model: Path,
    *,
    tokens: Sequence[int] = TOKENS,
    rounds: int = ROUNDS,
    passes: int = PASSES,
    threads: int | None = None,
) -> Outcome:
    """Compare what the rows record; then time all of them in turn, each second round backwards."""
    import torch
    from transformers import AutoTokenizer

    from lab.instruments import sequences

    threads = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    text = sequences.natural(AutoTokenizer.from_pretrained(model), 1, max(*tokens, PARITY_TOKENS))
    compared = parity(str(model), text[:, : min(PARITY_TOKENS, max(tokens))])
    rows = [row for row in ROWS if not missing(row)]
    ran = take_turns(
        "tests.benchmarks._attention_rows",
        rows,
        model,
        text[0].tolist(),
        tokens=tokens,
        rounds=rounds,
        passes=passes,
        threads=threads,
    )
    return Outcome(ran, compared, threads)


def main() -> bool:
    """Print the table; return whether what was recorded is exact and every aim is met."""
    from lab.instruments import pretrained

    os.environ["HF_HUB_OFFLINE"] = "1"
    pretrained.fetch(pretrained.cache_folder())
    outcome = measure(pretrained.cache_folder() / pretrained.NAME)
    print("\n".join(outcome.lines()))
    return outcome.exact() and all(outcome.aims().values())
