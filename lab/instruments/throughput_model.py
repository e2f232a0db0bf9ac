"""The time of a training step in closed form, from a machine's measured rates.

Operations of the matrix products and of attention over the rates of these products, and bytes of
everything else over the memory's bandwidth. What no formula gives, `TimeFit` multiplies.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.instruments.memory_model import (
    TrainingSetup,
    activation_bytes,
    trained_parameters,
)
from lab.instruments.model_shape import ModelShape

# passes over an activation that is kept, beside the products: written, read, its gradient written
# and read; the adapter's optimizer reads and writes parameter, gradient and two moments
UPDATE_PASSES = 7


@dataclass(frozen=True)
class MachineRates:
    """What a machine does in a second.

    layer, adapter, head: FLOP/s of the products of a layer (T x width x MLP width), of an adapter
    (T x width x rank) and of the head (128 x width x vocabulary); attention: FLOP/s of causal
    attention, forward and back; bandwidth: bytes/s read and written; dequantised: 4-bit weights per
    second; overhead: seconds of one operation that has nothing to do.
    """

    layer: float
    adapter: float
    head: float
    attention: float
    bandwidth: float
    dequantised: float
    overhead: float

    @classmethod
    def of_datasheet(
        cls, peak: float, bandwidth: float, *, utilisation: float, overhead: float = 1e-5
    ) -> MachineRates:
        """Return the rates of a device from its peak [FLOP/s] and bandwidth [bytes/s].

        All products run at `utilisation` of the peak; a 4-bit weight costs the bytes that are read
        (0.5) and written (2).
        """
        products = peak * utilisation
        return cls(
            layer=products,
            adapter=products,
            head=products,
            attention=products,
            bandwidth=bandwidth,
            dequantised=bandwidth / 2.5,
            overhead=overhead,
        )


@dataclass(frozen=True)
class TimeFit:
    """What no formula gives, each a factor of a term.

    products: of the time of all products; passes: how often an activation that is kept passes
    through memory; operations: per layer, each at the machine's overhead.
    """

    products: float
    passes: float
    operations: float


# before a fit: products at their measured rates; an activation is written and read, forward and
# back; about a hundred operations of a layer
UNFITTED = TimeFit(products=1.0, passes=4.0, operations=100.0)


@dataclass(frozen=True)
class StepWork:
    """What a step has to do.

    FLOP: layer (frozen or trained matrices), adapter, head, attention; bytes: activations (kept),
    update; dequantised: 4-bit weights; layers.
    """

    layer: float
    adapter: float
    head: float
    attention: float
    activations: float
    update: float
    dequantised: float
    layers: int


def work(shape: ModelShape, setup: TrainingSetup) -> StepWork:
    """Return the work of a step.

    Per token and frozen weight 4 FLOP (forward 2, the input's gradient 2), per trained one 6; with
    checkpointing 2 more. The head: 4 per weight on the tokens whose logits are computed, 6 where it
    is trained. Causal attention: 2·L²·width forward per sequence, and 2.5 times that back (Dao
    2023, arXiv:2307.08691, section 4.1).
    """
    tokens = setup.tokens
    per_weight = 4
    adapter = 0.0
    if setup.method == "full":
        per_weight = 6
    else:
        adapter = 6.0 * tokens * setup.rank * shape.adapter_parameters_per_rank
    head_rows = setup.supervised_tokens
    if setup.logits == "full":
        head_rows = tokens
    head_per_weight = 4
    if setup.method == "full" and setup.all_parameters:
        head_per_weight = 6
    passes = 3.5
    if setup.checkpointing:
        per_weight += 2
        adapter *= 8 / 6
        passes += 1
    queries = shape.query_heads * shape.head_width
    attention = 2 * setup.batch * setup.sequence**2 * queries * shape.layers
    trained = trained_parameters(shape, setup)
    dequantised = 0.0
    if setup.method == "qlora":
        # forward and back, and once more where the forward pass is computed again
        dequantised = (2.0 + setup.checkpointing) * shape.linear_parameters
    return StepWork(
        layer=float(per_weight * tokens * shape.linear_parameters),
        adapter=adapter,
        head=float(head_per_weight * head_rows * shape.width * shape.vocabulary),
        attention=passes * attention,
        activations=float(activation_bytes(shape, setup)),
        update=float(UPDATE_PASSES * 4 * trained),
        dequantised=dequantised,
        layers=shape.layers,
    )


def step_seconds(
    shape: ModelShape, setup: TrainingSetup, rates: MachineRates, fit: TimeFit = UNFITTED
) -> float:
    """Return the seconds of one training step."""
    terms = step_terms(work(shape, setup), rates)
    products, passes, operations, fixed = terms
    return fit.products * products + fit.passes * passes + fit.operations * operations + fixed


def step_terms(todo: StepWork, rates: MachineRates) -> tuple[float, float, float, float]:
    """Return seconds: the products, one pass over the activations, one operation per layer, rest.

    The first three are what `TimeFit` multiplies; the rest are the update of the weights and the
    4-bit weights made wide.
    """
    products = (
        todo.layer / rates.layer
        + todo.adapter / rates.adapter
        + todo.head / rates.head
        + todo.attention / rates.attention
    )
    return (
        products,
        todo.activations / rates.bandwidth,
        todo.layers * rates.overhead,
        todo.update / rates.bandwidth + todo.dequantised / rates.dequantised,
    )
