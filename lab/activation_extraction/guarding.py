"""What the extractor must refuse, and what it must leave behind: nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from lab.activation_extraction.measured import STREAM, Guards
from lab.instruments import residual_stream
from lab.instruments.activations import ActivationExtractor
from lab.instruments.attention import CaptureError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()  # type: ignore[untyped-decorator]
def measure_guards(model: PreTrainedModel, ids: torch.Tensor, stop_layer: int) -> Guards:
    """Return what the extractor refused and left behind; ids: [1, T]."""

    def run(extractor: ActivationExtractor, passes: int) -> ActivationExtractor:
        with extractor:
            for _ in range(passes):
                model(ids, use_cache=False)
        return extractor

    # 1. What runs.
    whole = run(ActivationExtractor(model, record=STREAM), 1)
    stop_layers_run = layers_run(
        model, lambda: run(ActivationExtractor(model, layers=[stop_layer], stop=True), 1)
    )

    # 2. What is refused before, in and after a pass.
    model.activation_checkpointing_enable()
    checkpointing_refused = is_refused(ActivationExtractor(model).__enter__)
    model.activation_checkpointing_disable()
    before = hooks(model)
    second_pass_refused = is_refused(lambda: run(ActivationExtractor(model), 2))
    hooks_left = hooks(model) - before
    length = ids.shape[1]
    return Guards(
        layers_recorded=len(whole.recorded),
        stop_layers_run=stop_layers_run,
        checkpointing_refused=checkpointing_refused,
        second_pass_refused=second_pass_refused,
        missing_pass_refused=is_refused(run(ActivationExtractor(model), 0).require_all_recorded),
        change_in_place_refused=is_refused(lambda: read_changed(model, ids)),
        missing_position_refused=is_refused(
            lambda: run(ActivationExtractor(model, positions=[length]), 1)
        ),
        hooks_left=hooks_left,
    )


def read_changed(model: PreTrainedModel, ids: torch.Tensor) -> None:
    """Record a pass of a model that changes its stream in place, and read the stream."""
    last = residual_stream.layers(model)[-1]
    handle = last.register_forward_pre_hook(lambda _, inputs: inputs[0].add_(1.0))
    try:
        with ActivationExtractor(model) as extractor:
            model(ids, use_cache=False)
    finally:
        handle.remove()
    extractor.stacked("resid_post")


def layers_run(model: PreTrainedModel, action: Callable[[], Any]) -> int:
    """Return how many layers were computed to the end during an action."""
    count = 0

    def add(*_: Any) -> None:
        nonlocal count
        count += 1

    handles = [layer.register_forward_hook(add) for layer in residual_stream.layers(model)]
    action()
    for handle in handles:
        handle.remove()
    return count


def is_refused(action: Callable[[], Any]) -> bool:
    """Return whether an action raises CaptureError."""
    try:
        action()
    except CaptureError:
        return True
    return False


def hooks(model: PreTrainedModel) -> int:
    """Return how many hooks a model has."""
    count = 0
    for module in model.modules():
        count += len(module._forward_hooks) + len(module._forward_pre_hooks)
    return count
