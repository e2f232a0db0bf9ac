"""The rows of `attention_vs_peers`, each run in a process of its own.

Started as `python -m tests.benchmarks._attention_rows '{"row": …}' OUT`. All rows give the same
model the same tokens and compute its logits; they differ in what they record beside them. Whoever
records patterns also reads each of them once, one layer after the other: this extractor makes them
whole only then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from tests.benchmarks._turns import Job, RowResult, run_job, time_passes

FLOOR = "plain forward, SDPA"
STATISTICS = "this extractor, statistics"
PATTERNS, PATTERNS_HALF = "this extractor, patterns", "this extractor, patterns in float16"
EAGER, LENS, SIGHT = "eager, output_attentions", "TransformerLens, run_with_cache", "nnsight, trace"
ROWS = (FLOOR, STATISTICS, PATTERNS, PATTERNS_HALF, EAGER, LENS, SIGHT)
PEERS = (EAGER, LENS, SIGHT)
NEEDS = {LENS: "transformer_lens", SIGHT: "nnsight"}  # the module that a row imports


@dataclass(frozen=True)
class Recorded:
    """What a row returns: the logits [1, T, V] and what it recorded.

    patterns: yields one per layer, [1, H, T, T], as the library gives it to whoever reads it;
    statistics: layer → `AttentionStatistics`.
    """

    logits: Any
    patterns: Iterable[Any] = ()
    statistics: Any = None


def missing(row: str) -> bool:
    """Return whether the row's library is not installed."""
    return row in NEEDS and find_spec(NEEDS[row]) is None


def load(row: str, model: str) -> Callable[[Any], Recorded]:
    """Load the model as the row does; return its forward pass on ids [1, T]."""
    loaders = {LENS: _lens, SIGHT: _sight}
    if row in loaders:
        return loaders[row](model)
    return _transformers(row, model)


def _transformers(row: str, model: str) -> Callable[[Any], Recorded]:
    import torch
    from transformers import AutoModelForCausalLM

    from lab.instruments.capture import AttentionExtractor

    network = AutoModelForCausalLM.from_pretrained(
        model,
        dtype=torch.float32,
        attn_implementation="eager" if row == EAGER else "sdpa",
    ).eval()
    options: dict[str, dict[str, Any]] = {
        STATISTICS: {"record": (), "statistics": True, "offsets": (1,)},
        PATTERNS: {},
        PATTERNS_HALF: {"dtype": torch.float16},
    }

    def plain(ids: Any) -> Recorded:
        return Recorded(network(ids, use_cache=False).logits)

    def eager(ids: Any) -> Recorded:
        output = network(ids, use_cache=False, output_attentions=True)
        return Recorded(output.logits, output.attentions)

    def extracted(ids: Any) -> Recorded:
        with AttentionExtractor(network, **options[row]) as extractor:
            logits = network(ids, use_cache=False).logits
        extractor.require_all_recorded()
        if row == STATISTICS:
            return Recorded(logits, statistics=extractor.statistics)
        return Recorded(logits, (extractor["pattern", layer] for layer in extractor.layers))

    return {FLOOR: plain, EAGER: eager}.get(row, extracted)


def _lens(model: str) -> Callable[[Any], Recorded]:
    """Load TransformerLens 3's bridge, which runs transformers' own model with its eager attention.

    It keeps the weights as they are (no compatibility mode), so logits are those of transformers.
    """
    import torch
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(model, dtype=torch.float32, device="cpu")

    def cached(ids: Any) -> Recorded:
        logits, cache = bridge.run_with_cache(
            ids, names_filter=lambda name: name.endswith("attn.hook_pattern"), use_cache=False
        )
        return Recorded(logits, [cache["pattern", layer] for layer in range(len(cache))])

    return cached


def _sight(model: str) -> Callable[[Any], Recorded]:
    """Load nnsight's wrapper; with eager attention a layer's second result is its pattern."""
    import torch
    from nnsight.modeling.transformers import TransformersModel

    network = TransformersModel(
        model,
        task="text-generation",
        dtype=torch.float32,
        attn_implementation="eager",
        device_map="cpu",
        dispatch=True,
    )

    def traced(ids: Any) -> Recorded:
        with network.trace(ids, use_cache=False):
            patterns = []
            for layer in network.model.layers:
                patterns.append(layer.self_attn.output[1])
            patterns.save()
            logits = network.lm_head.output.save()
        return Recorded(logits, patterns)

    return traced


def run(job: Job) -> RowResult:
    """Time the passes of a row, the reading of each pattern included."""

    def load_and_read(row: str, model: str) -> Callable[[Any], Recorded]:
        forward = load(row, model)

        def read(ids: Any) -> Recorded:
            recorded = forward(ids)
            for pattern in recorded.patterns:
                pattern[..., 0].mean()
            return recorded

        return read

    return time_passes(job, load_and_read)


if __name__ == "__main__":
    run_job(run)
