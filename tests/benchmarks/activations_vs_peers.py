"""Recording activations: this extractor, output_hidden_states, TransformerLens, nnsight.

The floor is the same forward pass, logits included, that records nothing. Every row runs in a
process of its own, and the rows take turns; ratios are to the floor of the same round. Before that,
all rows record one text, and what they recorded is compared. Needs `pip install -e '.[bench]'`, the
pretrained model, 4 GB of memory, and the machine alone for about ten minutes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
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
from tests.benchmarks._attention_rows import Job, RowResult

ROOT = Path(__file__).parents[2]
TOKENS = (128, 512, 1024, 2048)
PARITY_TOKENS = 512
PASSES, ROUNDS = 5, 5
AIM_RATIO = 1.10  # of the stream's three positions in all layers, at the longest text
PEER_LIMIT = 1e-4  # largest difference of a peer's vector, as a share of its length
STATISTICS_LIMIT = 1e-9  # largest difference of a mean, as a share of the largest mean

Results = Mapping[str, Mapping[int, Sequence[RowResult]]]  # row → tokens → rounds


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


class Outcome:
    """All that was measured, and the table made of it."""

    def __init__(self, ran: Results, compared: Mapping[str, Parity], threads: int) -> None:
        self.ran, self.compared, self.threads = ran, compared, threads
        self.tokens = sorted(ran[FLOOR])

    def ratio(self, row: str, tokens: int, field: str = "seconds") -> float:
        """Return the row's time over the floor's, the median of the rounds."""
        rounds = zip(self.ran[row][tokens], self.ran[FLOOR][tokens], strict=True)
        return statistics.median(
            statistics.median(getattr(one, field)) / statistics.median(getattr(floor, field))
            for one, floor in rounds
        )

    def added(self, row: str, tokens: int) -> float:
        """Return the bytes that the row needs beyond what the floor needs, median of rounds."""
        rounds = zip(self.ran[row][tokens], self.ran[FLOOR][tokens], strict=True)
        return statistics.median(one.added - floor.added for one, floor in rounds)

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
            faster = all(self.ratio(own, t) < self.ratio(peer, t) for t in self.tokens)
            smaller = all(self.added(own, t) < self.added(peer, t) for t in self.tokens)
            aims[f"faster than {peer}, at every length"] = faster
            aims[f"smaller than {peer}, at every length"] = smaller
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
        rounds = len(self.ran[FLOOR][self.tokens[0]])
        lines.append(f"{self.threads} threads, medians of {rounds} rounds; MB beyond the floor's")
        lines.append(f"{'':<35} {'T':>5} {'s':>7} {'x floor':>7} {'x CPU':>6} {'MB':>7}")
        for row in ROWS:
            lines += self._rows(row)
        for aim, met in self.aims().items():
            lines.append(f"{'met' if met else 'MISSED':<6}  {aim}")
        return lines

    def _rows(self, row: str) -> Iterable[str]:
        if row not in self.ran:
            return [f"{row:<35} not measured: {row.partition(',')[0]} is not installed"]
        lines = []
        for tokens in self.tokens:
            runs = self.ran[row][tokens]
            seconds = statistics.median(statistics.median(one.seconds) for one in runs)
            lines.append(
                f"{row:<35} {tokens:>5} {seconds:7.3f} {self.ratio(row, tokens):7.2f} "
                f"{self.ratio(row, tokens, 'cpu_seconds'):6.2f} "
                f"{self.added(row, tokens) / 1e6:7.0f}"
            )
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
    ran: dict[str, dict[int, list[RowResult]]] = {row: {t: [] for t in tokens} for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        for length in tokens:
            for number in range(rounds):
                for row in rows if number % 2 == 0 else reversed(rows):
                    job = Job(row, str(model), text[0, :length].tolist(), passes, threads)
                    result = _child(job, Path(folder) / "row.json")
                    ran[row][length].append(result)
                    taken = statistics.median(result.seconds)
                    print(f"  T = {length}: {row}, {taken:.2f} s", file=sys.stderr, flush=True)
    return Outcome(ran, compared, threads)


def _child(job: Job, out: Path) -> RowResult:
    module = "tests.benchmarks._activation_rows"
    argv = [sys.executable, "-m", module, json.dumps(asdict(job)), str(out)]
    env = os.environ | {"OMP_NUM_THREADS": str(job.threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{job.row}: {done.stderr[-2000:]}")
    return RowResult(**json.loads(out.read_text()))


def main() -> bool:
    """Print the table; return whether what was recorded is exact and every aim is met."""
    from lab.instruments import pretrained

    os.environ["HF_HUB_OFFLINE"] = "1"
    pretrained.fetch(pretrained.cache_folder())
    outcome = measure(pretrained.cache_folder() / pretrained.NAME)
    print("\n".join(outcome.lines()))
    return outcome.exact() and all(outcome.aims().values())
