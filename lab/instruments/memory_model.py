"""The memory of a training step in closed form, from a model's shape and the training's settings.

Weights, their 4-bit scales, adapters, gradients and optimizer are counted. Activations are what
autograd keeps of each layer (the way of Korthikanti et al. 2022, arXiv:2205.05198, for this lab's
loop: fused attention, no dropout). What no formula gives, `MemoryFit` adds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lab.instruments.model_shape import ModelShape

NF4_BYTES = 0.5  # of a weight in 4 bits
BLOCK = 64  # weights that share a scale (Dettmers et al. 2023, arXiv:2305.14314)
SCALES_BLOCK = 256  # scales that share a scale of their own
FLOAT32 = 4  # bytes
INT64 = 8
GROUP_ROWS = 128  # tokens whose logits `fused_cross_entropy` holds at one time

Method = Literal["full", "lora", "qlora"]


@dataclass(frozen=True)
class TrainingSetup:
    """The settings of a training that decide its memory and its time.

    batch: sequences per step; sequence: tokens of each; supervised: share of the tokens that the
    loss counts; weight_bytes: of a weight that is not in 4 bits, and of an activation;
    optimizer_bytes: per trained parameter (AdamW in float32: 8; with a float32 copy of 16-bit
    weights: 12); logits: "fused" (this lab: supervised tokens only, in groups) or "full" (all
    tokens at once); all_parameters: full fine-tuning trains the embedding, the head and the norms
    too; this lab trains the linear layers only. checkpointing: layers keep their input only and
    are computed again (this lab never does; not held against a measurement).
    """

    method: Method
    batch: int
    sequence: int
    supervised: float = 1.0
    rank: int = 16
    weight_bytes: int = 4
    adapter_bytes: int = 4
    double_quant: bool = True
    checkpointing: bool = False
    optimizer_bytes: int = 8
    logits: Literal["fused", "full"] = "fused"
    all_parameters: bool = False

    @property
    def tokens(self) -> int:
        """Return T, the tokens of a step."""
        return self.batch * self.sequence

    @property
    def supervised_tokens(self) -> int:
        """Return S, the tokens of a step that the loss counts."""
        return self.batch * max(1, round(self.supervised * self.sequence))


@dataclass(frozen=True)
class MemoryFit:
    """What no formula gives.

    runtime: bytes of the process (or of the GPU's context) without a model; activation_factor:
    bytes held per byte of activations (the allocator's slack); workspace: bytes of temporary
    tensors and buffers of kernels.
    """

    runtime: float
    activation_factor: float
    workspace: float


# what a formula alone says: no slack, no process
NO_SLACK = MemoryFit(runtime=0.0, activation_factor=1.0, workspace=0.0)


@dataclass(frozen=True)
class MemoryParts:
    """Bytes of a training step.

    weights_linear: of the linear layers; weights_other: embedding, head, norms, biases; absmax: the
    scales of 4-bit weights; adapters; optimizer; runtime: as in `MemoryFit`, are there all the
    time. activations (slack included), logits and workspace are there when the loss is computed,
    gradients when the weights are updated. One moment's are gone when the other's come.
    """

    weights_linear: float
    weights_other: float
    absmax: float
    adapters: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    workspace: float
    runtime: float

    @property
    def weights(self) -> float:
        """Return the bytes of the model's weights, 4-bit scales included."""
        return self.weights_linear + self.weights_other + self.absmax

    @property
    def loaded(self) -> float:
        """Return what the process holds once the model is loaded."""
        return self.runtime + self.weights

    @property
    def at_loss(self) -> float:
        """Return what only the moment of the loss holds."""
        return self.activations + self.logits

    @property
    def increment(self) -> float:
        """Return what the training adds to the loaded process, at its peak."""
        peak = max(self.at_loss, self.gradients)
        return self.adapters + self.optimizer + self.workspace + peak

    @property
    def total(self) -> float:
        """Return the peak of the whole process."""
        return self.loaded + self.increment

    def at_peak(self) -> dict[str, float]:
        """Return the parts that are there at the peak, by name; their sum is `total`."""
        parts = {
            "runtime": self.runtime,
            "weights": self.weights_linear + self.weights_other,
            "absmax": self.absmax,
            "adapters": self.adapters,
            "optimizer": self.optimizer,
            "workspace": self.workspace,
            "gradients": 0.0,
            "activations": 0.0,
            "logits": 0.0,
        }
        if self.at_loss >= self.gradients:
            return parts | {"activations": self.activations, "logits": self.logits}
        return parts | {"gradients": self.gradients}


def memory(shape: ModelShape, setup: TrainingSetup, fit: MemoryFit = NO_SLACK) -> MemoryParts:
    """Return the bytes of a training step by purpose."""
    trained = trained_parameters(shape, setup)
    adapters = 0
    trained_bytes = setup.weight_bytes
    if setup.method != "full":
        adapters = trained * setup.adapter_bytes
        trained_bytes = setup.adapter_bytes
    linear = float(shape.linear_parameters * setup.weight_bytes)
    absmax = 0.0
    if setup.method == "qlora":
        linear = shape.linear_parameters * NF4_BYTES
        absmax = float(absmax_bytes(shape, double_quant=setup.double_quant))
    others = shape.total - shape.linear_parameters
    return MemoryParts(
        weights_linear=linear,
        weights_other=float(others * setup.weight_bytes),
        absmax=absmax,
        adapters=float(adapters),
        gradients=float(trained * trained_bytes),
        optimizer=float(trained * setup.optimizer_bytes),
        activations=fit.activation_factor * activation_bytes(shape, setup),
        logits=float(logits_bytes(shape, setup)),
        workspace=fit.workspace,
        runtime=fit.runtime,
    )


def trained_parameters(shape: ModelShape, setup: TrainingSetup) -> int:
    """Return how many parameters are trained."""
    if setup.method != "full":
        return setup.rank * shape.adapter_parameters_per_rank
    if setup.all_parameters:
        return shape.total
    return shape.linear_parameters


def absmax_bytes(shape: ModelShape, *, double_quant: bool) -> int:
    """Return the bytes of the scales of all linear layers in 4 bits.

    A float32 for each 64 weights; with double quantisation a byte, and a float32 for 256 of them.
    """
    total = 0
    for inputs, outputs in shape.layer_linears:
        scales = math.ceil(inputs * outputs / BLOCK)
        if double_quant:
            total += scales + FLOAT32 * math.ceil(scales / SCALES_BLOCK)
        else:
            total += FLOAT32 * scales
    return shape.layers * total


def activation_bytes(shape: ModelShape, setup: TrainingSetup) -> int:
    """Return the bytes that autograd keeps of the forward pass, without the logits."""
    per_layer = layer_activation_bytes(shape, setup)
    layers = shape.layers * per_layer
    if setup.checkpointing:
        layers = shape.layers * setup.tokens * shape.width * setup.weight_bytes + per_layer
    # cosines and sines of the positions, the gradient that the loss keeps, and three lists of
    # positions: of rows in the pack, of the pack in rows, of supervised tokens
    floats = 2 * shape.head_width * setup.tokens + shape.width * setup.supervised_tokens
    positions = 2 * setup.tokens + setup.supervised_tokens
    return layers + setup.weight_bytes * floats + INT64 * positions


def layer_activation_bytes(shape: ModelShape, setup: TrainingSetup) -> int:
    """Return the bytes that autograd keeps of one layer.

    Two norms' inputs (in float32) and outputs; rotated queries, keys and values; attention's result
    in rows of sequences and in the pack's order, and its log-sum-exp; the wide activations of the
    MLP: gate, activated gate, up and their product, or without a gate the activation's input and
    output; each adapter's product of rank r. Exact for Llama in float32: a test holds it against
    autograd's own tensors. The last norm takes the place of the first layer's first one, below
    which nothing is trained.
    """
    queries = shape.query_heads * shape.head_width
    keys = shape.key_heads * shape.head_width
    wide = 2
    if shape.gated:
        wide = 4
    elements = 2 * shape.width + 3 * queries + 2 * keys + wide * shape.mlp_width
    if setup.method != "full":
        elements += setup.rank * len(shape.layer_linears)
    # norms: inputs and one number per token; attention: the log-sum-exp of each head
    in_float32 = 2 * (shape.width + 1) + shape.query_heads
    return setup.tokens * (setup.weight_bytes * elements + FLOAT32 * in_float32)


def logits_bytes(shape: ModelShape, setup: TrainingSetup) -> int:
    """Return the bytes as wide as the vocabulary that are held at one time.

    Fused: logits and softmax of one group of supervised tokens in float32; for a head in another
    type also the gradient rounded to it. Full: for all tokens the logits, their log-softmax and
    its gradient in float32.
    """
    per_logit = 2 * FLOAT32
    if setup.logits == "full":
        return setup.tokens * shape.vocabulary * (per_logit + setup.weight_bytes)
    if setup.weight_bytes != FLOAT32:
        per_logit += setup.weight_bytes
    groups = math.ceil(setup.supervised_tokens / GROUP_ROWS)
    rows = math.ceil(setup.supervised_tokens / groups)
    return rows * shape.vocabulary * per_logit
