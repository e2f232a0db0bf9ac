import random
from dataclasses import replace

import pytest

from lab.instruments import fused_cross_entropy, memory
from lab.instruments.memory_model import (
    GROUP_ROWS,
    MemoryFit,
    TrainingSetup,
    absmax_bytes,
    activation_bytes,
    logits_bytes,
)
from lab.instruments.memory_model import memory as memory_of
from lab.instruments.model_shape import ModelShape

SIZES = {
    "vocab_size": 101,
    "hidden_size": 40,
    "intermediate_size": 56,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "head_dim": 12,
    "tie_word_embeddings": True,
}
SHAPE = ModelShape.from_config({"model_type": "llama", **SIZES})


def kept_by_autograd(setup: TrainingSetup) -> int:
    """Return what autograd keeps of one of the lab's own forward passes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from lab.instruments import adapters, full_tuning
    from lab.instruments.chat import Encoded
    from lab.instruments.models import Loaded
    from lab.instruments.packing import pack, supervised_tokens

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, attn_implementation="sdpa")).eval()
    if setup.method == "full":
        model.requires_grad_(requires_grad=False)
        for weight in full_tuning.linear_parameters(model).values():
            weight.requires_grad_(requires_grad=True)
    else:
        settings = adapters.LoraSettings(r=setup.rank, lora_alpha=1)
        model = adapters.attach(Loaded(model, None, "random"), settings, 0)
    draw = random.Random(1)
    prompt = setup.sequence + 1 - setup.supervised_tokens // setup.batch
    examples = []
    for first in range(setup.batch):
        ids = (first + 3, *(draw.randrange(3, 101) for _ in range(setup.sequence)))
        examples.append(Encoded(ids, (-100,) * prompt + ids[prompt:]))
    row = pack(examples)

    def loss() -> torch.Tensor:
        return supervised_tokens(model, row).losses.mean()

    return sum(memory.activation_bytes(model, loss))


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize(("batch", "sequence", "share"), [(2, 64, 0.5), (1, 96, 0.5), (2, 64, 1.0)])
def test_activations_are_those_of_autograd_to_the_byte(method, batch, sequence, share) -> None:
    setup = TrainingSetup(method, batch, sequence, share, rank=8)
    assert activation_bytes(SHAPE, setup) == kept_by_autograd(setup)


def test_another_depth_or_rank_is_seen() -> None:
    setup = TrainingSetup("lora", 2, 64, 0.5, rank=8)
    kept = kept_by_autograd(setup)
    assert activation_bytes(replace(SHAPE, layers=4), setup) > kept
    assert activation_bytes(SHAPE, replace(setup, rank=4)) < kept


def test_groups_of_logits_are_those_of_the_loss() -> None:
    import torch

    assert GROUP_ROWS == fused_cross_entropy.ROWS
    setup = TrainingSetup("lora", 1, 300)
    expected = memory.logits_bytes(300, SHAPE.vocabulary, torch.float32)
    assert logits_bytes(SHAPE, setup) == expected
    assert logits_bytes(SHAPE, replace(setup, logits="full")) > 2 * expected


def test_double_quantisation_takes_0_127_bits_of_scales() -> None:
    large = replace(SHAPE, width=1024, mlp_width=4096, query_heads=16, key_heads=16, head_width=64)
    bits = {dq: 8 * absmax_bytes(large, double_quant=dq) / large.linear_parameters for dq in (0, 1)}
    assert bits[False] == pytest.approx(0.5)
    assert bits[True] == pytest.approx(8 / 64 + 32 / (64 * 256))


def test_gradients_and_activations_are_not_there_together() -> None:
    short = memory_of(SHAPE, TrainingSetup("full", 1, 2))
    assert short.gradients > short.at_loss
    assert short.increment == short.optimizer + short.gradients
    assert short.at_peak()["activations"] == 0
    long = memory_of(SHAPE, TrainingSetup("full", 4, 512))
    assert long.increment == long.optimizer + long.at_loss
    for parts in (short, long):
        assert sum(parts.at_peak().values()) == parts.total


def test_fit_adds_workspace_and_runtime() -> None:
    setup = TrainingSetup("lora", 2, 64)
    plain = memory_of(SHAPE, setup)
    fitted = memory_of(SHAPE, setup, MemoryFit(1000.0, 2.0, 10.0))
    assert fitted.increment == plain.increment + plain.activations + 10
    assert fitted.loaded == plain.loaded + 1000
