"""Recording activations: this extractor, output_hidden_states, TransformerLens, nnsight.

The floor is the same forward pass, logits included, that records nothing. Every row runs in a
process of its own, and the rows take turns; ratios are to the floor of the same round. Before that,
all rows record one text, and what they recorded is compared. Needs `pip install -e '.[bench]'`, the
pretrained model, 4 GB of memory, and the machine alone for about ten minutes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks._activation_rows import (
    FLOOR,
    HIDDEN,
    OWN,
    PEERS,
    ROWS,
    STREAM,
    Recorded,
    load,
    missing,
)
from tests.benchmarks._turns import Results, Times, take_turns

TOKENS = (128, 512, 1024, 2048)
PARITY_TOKENS = 512
PASSES, ROUNDS = 5, 5
AIM_RATIO = 1.10  # of the stream's three positions in all layers, at the longest text
PEER_LIMIT = 1e-4  # largest difference of a peer's vector, as a share of its length
STATISTICS_LIMIT = 1e-9  # largest difference of a mean, as a share of the largest mean


@dataclass(frozen=True)
class Parity:
    """The largest differences of a row, None where it records no such.

    logits: to the plain forward pass; stream: of a token's vector, as a share of its length, to
    this extractor's, and this extractor's to transformers' hidden states; statistics: of the means,
    to those of the tensors.
    """

    logits: float
    stream: float | None = None
    statistics: float | None = None


def parity(model: str, ids: Any) -> dict[str, Parity]:
    """Run every row that is installed on ids [1, T] and compare what it recorded."""
    import torch

    compared = {}
    with torch.no_grad():
        floor = load(FLOOR, model)(ids).logits
        own = load(STREAM, model)(ids)
        for row in ROWS:
            if row == FLOOR or missing(row):
                continue
            recorded = own if row == STREAM else load(row, model)(ids)
            reference = load(HIDDEN, model)(ids) if row == STREAM else own
            compared[row] = Parity(
                logits=float((recorded.logits - floor).abs().max()),
                stream=_of_streams(recorded, reference) if recorded.stream else None,
                statistics=_of_statistics(recorded, own) if recorded.statistics else None,
            )
    return compared


def _of_streams(one: Recorded, other: Recorded) -> float:
    """Return the largest ‖a − b‖ / ‖b‖ over tokens, layers and the names that both have."""
    names = set(one.stream) & set(other.stream)
    assert names, "they record nothing in common"
    pairs: list[tuple[Any, Any]] = []
    for name in names:
        pairs += zip(one.stream[name], other.stream[name], strict=True)
    return max(float(((a - b).norm(dim=-1) / b.norm(dim=-1)).max()) for a, b in pairs)


def _of_statistics(recorded: Recorded, own: Recorded) -> float:
    differences = []
    for layer, found in recorded.statistics.items():
        mean = own.stream["resid_post"][layer][0].double().mean(0)
        differences.append(float((found.mean - mean).abs().max() / mean.abs().max()))
    return max(differences)


class Outcome(Times):
    """All that was measured, and the table made of it."""

    def __init__(self, ran: Results, compared: Mapping[str, Parity], threads: int) -> None:
        super().__init__(ran, FLOOR, threads)
        self.compared = compared

    def exact(self) -> bool:
        """Return whether all rows recorded the same, and this extractor left logits untouched."""
        for row, found in self.compared.items():
            if row in OWN and found.logits != 0:
                return False
            limit = 0.0 if row in (*OWN, HIDDEN) else PEER_LIMIT
            if found.stream is not None and found.stream > limit:
                return False
            if found.statistics is not None and found.statistics >= STATISTICS_LIMIT:
                return False
        return True

    def aims(self) -> dict[str, bool]:
        """Return each aim and whether it was met."""
        longest = self.tokens[-1]
        ratio = self.ratio(STREAM, longest)
        aims = {
            f"all positions at most {AIM_RATIO:.2f}x the floor: {ratio:.2f}x": ratio <= AIM_RATIO
        }
        for peer, own in PEERS.items():
            if peer not in self.ran:
                continue
            aims[f"faster than {peer}, at every length"] = self.is_faster(own, peer)
            aims[f"smaller than {peer}, at every length"] = self.is_smaller(own, peer)
        return aims

    def lines(self) -> list[str]:
        """Return the proof, the table and the aims as lines."""
        lines = ["largest differences: of logits, of the stream (share of its length), of means:"]
        for row, found in self.compared.items():
            parts = [f"logits {found.logits:.1e}"]
            if found.stream is not None:
                parts.append(f"stream {found.stream:.1e}")
            if found.statistics is not None:
                parts.append(f"means {found.statistics:.1e}")
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
        "tests.benchmarks._activation_rows",
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
