"""The rows of `activations_vs_peers`, each run in a process of its own.

Started as `python -m tests.benchmarks._activation_rows '{"row": …}' OUT`. All rows give the same
model the same tokens and compute its logits; they differ in what they keep beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from tests.benchmarks._turns import Job, RowResult, run_job, time_passes

FLOOR = "plain forward"
STREAM, POST = "this extractor, pre + mid + post", "this extractor, post"
STATISTICS = "this extractor, statistics of post"
HIDDEN = "transformers, output_hidden_states"
LENS, SIGHT = "TransformerLens, pre + mid + post", "nnsight, pre + mid + post"
ROWS = (FLOOR, STREAM, POST, STATISTICS, HIDDEN, LENS, SIGHT)
OWN = (STREAM, POST, STATISTICS)
# Who records what a peer does: all three positions, or one per layer.
PEERS = {HIDDEN: POST, LENS: STREAM, SIGHT: STREAM}
NEEDS = {LENS: "transformer_lens", SIGHT: "nnsight"}  # the module that a row imports
POSITIONS = ("resid_pre", "resid_mid", "resid_post")


@dataclass(frozen=True)
class Recorded:
    """What a row returns: the logits [1, T, V] and what it recorded.

    stream: name of POSITIONS -> a tensor [1, T, D] per layer; statistics: layer ->
    `ActivationStatistics` of resid_post.
    """

    logits: Any
    stream: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    statistics: Mapping[int, Any] = field(default_factory=dict)


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

    from lab.instruments.activations import ActivationExtractor

    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()

    def plain(ids: Any) -> Recorded:
        return Recorded(network(ids, use_cache=False).logits)

    def hidden(ids: Any) -> Recorded:
        output = network(ids, use_cache=False, output_hidden_states=True)
        return Recorded(output.logits, {"resid_pre": output.hidden_states[:-1]})

    def extracted(ids: Any) -> Recorded:
        names = POSITIONS if row == STREAM else ("resid_post",)
        with ActivationExtractor(network, record=names, statistics=row == STATISTICS) as extractor:
            logits = network(ids, use_cache=False).logits
        extractor.require_all_recorded()
        if row == STATISTICS:
            return Recorded(
                logits,
                statistics={layer: each for (_, layer), each in extractor.statistics.items()},
            )
        stream = {name: [extractor[name, layer] for layer in extractor.layers] for name in names}
        return Recorded(logits, stream)

    return {FLOOR: plain, HIDDEN: hidden}.get(row, extracted)


def _lens(model: str) -> Callable[[Any], Recorded]:
    """Load TransformerLens 3's bridge, which runs transformers' own model with eager attention.

    It keeps the weights as they are (no compatibility mode), so logits are those of transformers.
    """
    import torch
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(model, dtype=torch.float32, device="cpu")
    hooks = tuple(f"hook_{name}" for name in POSITIONS)

    def cached(ids: Any) -> Recorded:
        logits, cache = bridge.run_with_cache(
            ids, names_filter=lambda name: name.endswith(hooks), use_cache=False
        )
        layers = range(len(cache) // len(POSITIONS))
        stream = {name: [cache[name, layer] for layer in layers] for name in POSITIONS}
        return Recorded(logits, stream)

    return cached


def _sight(model: str) -> Callable[[Any], Recorded]:
    """Load nnsight's wrapper, which runs transformers' own model with its kernel."""
    import torch
    from nnsight.modeling.transformers import TransformersModel

    network = TransformersModel(
        model, task="text-generation", dtype=torch.float32, device_map="cpu", dispatch=True
    )

    def traced(ids: Any) -> Recorded:
        with network.trace(ids, use_cache=False):
            tensors = []
            for layer in network.model.layers:
                tensors.append(layer.input)
                tensors.append(layer.post_attention_layernorm.input)
                tensors.append(layer.output)
            tensors.save()
            logits = network.lm_head.output.save()
        stream = {name: tensors[place::3] for place, name in enumerate(POSITIONS)}
        return Recorded(logits, stream)

    return traced


def run(job: Job) -> RowResult:
    """Time the passes of a row."""
    return time_passes(job, load)


if __name__ == "__main__":
    run_job(run)
