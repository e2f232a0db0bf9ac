"""Changing the residual stream while a model runs, and looking at what it then predicts.

coordinate_set   one number of the stream, at one layer, position and dimension, is another one
write_replaced   what attention or MLP of a layer adds to the stream is one vector everywhere
started_at       the layers before one are not computed: the stream that enters it is given

All are context managers and leave the model as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch

from lab.instruments.models import architecture

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Part = Literal["attention", "mlp"]


@contextmanager
def coordinate_set(
    model: PreTrainedModel, layer: int, position: int, dimension: int, value: float
) -> Iterator[None]:
    """Set one coordinate of a layer's output to a value, in every sequence of a batch.

    Raises:
        IndexError: the layer does not exist.
    """

    def change(_layer: Any, _inputs: Any, output: Any) -> Any:
        stream = _stream_of(output).clone()
        stream[:, position, dimension] = value
        return _with_stream(output, stream)

    handle = _layers(model)[layer].register_forward_hook(change)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def write_replaced(
    model: PreTrainedModel, layer: int, part: Part, vector: torch.Tensor, *, first: int
) -> Iterator[None]:
    """Let a layer's attention or MLP write `vector` [D] at every position from `first` on.

    Raises:
        IndexError: the layer does not exist.
    """

    def change(_module: Any, _inputs: Any, output: Any) -> Any:
        write = _stream_of(output).clone()
        write[:, first:] = vector
        return _with_stream(output, write)

    family = architecture(model.config)
    name = family.attention if part == "attention" else family.mlp
    handle = _layers(model)[layer].get_submodule(name).register_forward_hook(change)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def started_at(model: PreTrainedModel, layer: int, stream: torch.Tensor) -> Iterator[None]:
    """Compute only from `layer` on, which `stream` [B, T, D] enters; earlier layers do nothing.

    The token ids that the model is given inside the block must be of the same shape [B, T].

    Raises:
        IndexError: the layer does not exist.
    """
    layers = _layers(model)
    entered = layers[layer]

    def give(_layer: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (stream, *inputs[1:])

    def pass_on(hidden: torch.Tensor, *_args: Any, **_settings: Any) -> torch.Tensor:
        return hidden

    skipped = list(layers)[:layer]
    handle = entered.register_forward_pre_hook(give)
    for module in skipped:
        module.forward = pass_on
    try:
        yield
    finally:
        handle.remove()
        for module in skipped:
            del module.forward  # the class's own is found again


def _layers(model: PreTrainedModel) -> torch.nn.ModuleList:
    layers = model.get_submodule(architecture(model.config).layers)
    assert isinstance(layers, torch.nn.ModuleList)
    return layers


def _stream_of(output: Any) -> torch.Tensor:
    """Return the tensor [B, T, D] of a module's output, which some families put in a tuple."""
    stream: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return stream


def _with_stream(output: Any, stream: torch.Tensor) -> Any:
    return (stream, *output[1:]) if isinstance(output, tuple) else stream
