"""Memory: tensors by their bytes, the peak by the kernel."""

import gc

import pytest
import torch

from lab.instruments import adapters, memory, models, training
from lab.instruments.adapters import LoraSettings
from lab.instruments.chat import IGNORE, Encoded

MIB = 2**20


def test_a_storage_counts_once():
    whole = torch.zeros(100)
    assert memory.tensor_bytes([whole, whole[:10], whole.view(10, 10)]) == 400
    assert memory.tensor_bytes([torch.zeros(3, dtype=torch.uint8), torch.zeros(3)]) == 3 + 12
    assert memory.tensor_bytes([]) == 0


def test_the_peak_sees_what_was_freed_and_starts_anew():
    gc.collect()
    memory.reset_peak()
    before = memory.peak_bytes()
    block = torch.ones(64 * MIB // 4)
    with_block = memory.resident_bytes()
    del block
    assert memory.peak_bytes() - before > 60 * MIB
    assert with_block - memory.resident_bytes() > 60 * MIB
    memory.reset_peak()
    assert memory.peak_bytes() - before < 30 * MIB


@pytest.mark.parametrize("quantisation", [None, "nf4"])
def test_a_training_step_is_split_by_what_its_tensors_hold(tiny_folder, quantisation):
    loaded = models.load(tiny_folder, dtype=torch.float32, quantisation=quantisation)
    linear = sum(w.numel() for _, w in models.linear_weights(models.tiny(0).model))
    other = models.tiny(0).model.num_parameters() - linear
    model = adapters.attach(loaded, LoraSettings(4, 8), seed=0)
    trained = sum(p.numel() for p in adapters.parameters(model).values())
    found = []
    examples = [Encoded((5, 6, 7, 8), (IGNORE, IGNORE, 7, 8))]
    memory.reset_peak()
    training.train(
        model,
        examples,
        training.Settings(steps=1, batch_size=1, learning_rate=1e-3, warmup_steps=0),
        after_step=lambda done, step, optimizer: found.append(memory.split(model, optimizer)),
    )
    split = found[0]
    assert split.adapters == split.gradients == 4 * trained
    tensors = len(adapters.parameters(model))
    # two moments, and a step counter for each tensor
    assert split.optimizer == 2 * 4 * trained + 4 * tensors
    # and the scales' scales:
    weights = 4 * linear if quantisation is None else linear // 2 + linear // 64
    assert 0 <= split.weights - (weights + 4 * other) < 2000
    assert (
        split.peak
        == split.weights + split.adapters + split.gradients + split.optimizer + split.rest
    )
    assert split.rest > 50 * MIB  # a Python process with torch
