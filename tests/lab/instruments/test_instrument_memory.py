"""Memory: tensors by their bytes, the peak by the kernel."""

import gc
import math
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lab.instruments import adapters, fused_cross_entropy, memory, models, training
from lab.instruments.adapters import LoraSettings
from lab.instruments.chat import IGNORE, Encoded
from tests.forks import FORKS

MIB = 2**20


def test_a_storage_counts_once():
    tensor = torch.zeros(100)
    assert memory.tensor_bytes([tensor, tensor[:10], tensor.view(10, 10)]) == 400
    assert memory.tensor_bytes([torch.zeros(3, dtype=torch.uint8), torch.zeros(3)]) == 3 + 12
    assert memory.tensor_bytes([]) == 0


def test_the_peak_sees_what_was_freed_and_starts_anew():
    """In a process of its own: here a block may come from memory that other tests left free."""
    process = FORKS.Process(target=_allocate_and_free)
    process.start()
    process.join()
    assert process.exitcode == 0


def _allocate_and_free():
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
    splits = []
    examples = [Encoded((5, 6, 7, 8), (IGNORE, IGNORE, 7, 8))]
    memory.reset_peak()
    training.train(
        model,
        examples,
        training.Settings(steps=1, batch_size=1, learning_rate=1e-3, warmup_steps=0),
        after_step=lambda done, step, optimizer: splits.append(memory.split(model, optimizer)),
    )
    split = splits[0]
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


def test_activations_are_what_a_backward_pass_needs():
    weight = torch.zeros(5, 3, requires_grad=True)
    model = torch.nn.Module()
    model.register_parameter("weight", torch.nn.Parameter(weight))
    x = torch.ones(7, 3)

    def forward():
        y = x @ model.weight.t()  # keeps x [7, 3], and a weight of the model
        return y.exp().exp().sum()  # keeps both results [7, 5]

    assert memory.activation_bytes(model, forward) == (4 * 35, 4 * 35, 4 * 21)


def test_a_view_counts_as_its_storage_and_what_the_graph_drops_not_at_all():
    model = torch.nn.Linear(1, 1)
    storage = torch.ones(1000)
    parameter = torch.ones(2, requires_grad=True)

    def forward():
        parameter.exp().exp()  # no part of what is returned
        return (parameter * storage[:2]).sum() + (parameter * storage[5:7]).sum()

    assert memory.activation_bytes(model, forward) == (4000,)


def test_counting_activations_changes_no_random_number_and_no_gradient():
    model = torch.nn.Linear(3, 3)
    torch.manual_seed(0)
    expected = torch.rand(4)
    torch.manual_seed(0)
    dropout = torch.nn.functional.dropout
    memory.activation_bytes(model, lambda: dropout(model(torch.ones(2, 3))).sum())
    assert torch.equal(torch.rand(4), expected)
    assert model.weight.grad is None


class _WideTensors(TorchDispatchMode):
    """Record the largest sum of bytes of storages in use whose tensor has `count` numbers."""

    def __init__(self, count):
        super().__init__()
        self.count = count
        self.peak = 0
        self.storages = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        outputs = result
        if isinstance(result, torch.Tensor):
            outputs = [result]
        self.storages = {k: v for k, v in self.storages.items() if v[0]() is not None}
        for tensor in outputs:
            if isinstance(tensor, torch.Tensor) and tensor.numel() == self.count:
                storage = tensor.untyped_storage()
                # the first tensor of a storage: views of it come and go
                entry = (weakref.ref(tensor), storage.nbytes())
                self.storages.setdefault(storage.data_ptr(), entry)
        self.peak = max(self.peak, sum(size for _, size in self.storages.values()))
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [5, 128, 130])
def test_logits_bytes_are_those_of_the_fused_cross_entropy(dtype, tokens):
    vocabulary, width = 1000, 8
    head = torch.nn.Linear(width, vocabulary, bias=False, dtype=dtype)
    head.weight.requires_grad = False
    hidden = torch.randn(tokens, width, dtype=dtype, requires_grad=True)
    rows = math.ceil(tokens / math.ceil(tokens / fused_cross_entropy.ROWS))
    with _WideTensors(rows * vocabulary) as wide:
        fused_cross_entropy.measure(hidden, head, torch.zeros(tokens, dtype=torch.long))
    assert wide.peak == memory.logits_bytes(tokens, vocabulary, dtype)
