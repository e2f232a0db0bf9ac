"""The measuring part: records the real model, ten families and the guards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lab.attention_extraction.measured import OFFSET, FamilyArrays, Guards, ModelArrays, Pair
from lab.attention_extraction.parity import eager_patterns, wide_softmax
from lab.instruments import adapters, families, models, sequences
from lab.instruments.adapters import LoraSettings
from lab.instruments.attention import CaptureError
from lab.instruments.capture import SHAPES, AttentionExtractor

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from lab.instruments.models import Loaded, Quantisation


# The real model


@torch.no_grad()  # type: ignore[untyped-decorator]
def measure_model(
    loaded: Loaded, ids: torch.Tensor, padding: int, positions: list[int]
) -> tuple[ModelArrays, dict[str, Pair]]:
    """Record one text [1, T] in float32, and beside eager attention in float32 and float64.

    padding: tokens before a second text, the first's beginning; positions: whose logits are kept.
    """
    model = loaded.model

    # 1. The text, without and with the extractor.
    plain = model(ids, use_cache=False).logits[0, positions]
    with AttentionExtractor(model, record=SHAPES, statistics=True, offsets=[OFFSET]) as extractor:
        recorded = model(ids, use_cache=False).logits[0, positions]
    extractor.require_all_recorded()
    tensors = {name: _array(extractor.stacked(name)[:, 0]) for name in SHAPES}
    layers = [extractor.statistics[layer] for layer in extractor.layers]

    # 2. Parity, in the precision that is used and in one that leaves no rounding.
    kinds = {"float32": Pair(tensors["pattern"], _array(eager_patterns(model, ids)[:, 0]))}
    model.double()
    with wide_softmax():
        kinds["float64"] = _both(model, ids)
    model.float()

    # 3. A text behind padding.
    length = ids.shape[1] - padding
    padded_ids = torch.cat([ids[:, :1].expand(1, padding), ids[:, :length]], dim=1)
    mask = torch.ones_like(padded_ids)
    mask[:, :padding] = 0
    with AttentionExtractor(model) as behind_padding:
        model(padded_ids, attention_mask=mask, use_cache=False)

    arrays = ModelArrays(
        ids=_array(ids[0]),
        padding=padding,
        rope_theta=float(model.config.rope_parameters["rope_theta"]),
        pattern=tensors["pattern"],
        q=tensors["q"],
        k=tensors["k"],
        rot_q=tensors["rot_q"],
        rot_k=tensors["rot_k"],
        v=tensors["v"],
        z=tensors["z"],
        sink=_array(torch.stack([layer.sink[0] for layer in layers])),
        entropy=_array(torch.stack([layer.entropy[0] for layer in layers])),
        distance=_array(torch.stack([layer.distance[0] for layer in layers])),
        previous=_array(torch.stack([layer.diagonals[OFFSET][0] for layer in layers])),
        logits_recorded=_array(recorded),
        logits_plain=_array(plain),
        padded=_array(behind_padding.stacked("pattern")[:, 0]),
    )
    return arrays, kinds


@torch.no_grad()  # type: ignore[untyped-decorator]
def measure_positions(
    loaded: Loaded, ids: torch.Tensor, *, shift: int, stretch: int
) -> dict[str, Pair]:
    """Return the weights after positions changed, beside the usual ones.

    RoPE turns q and k by angles that grow with the position, so that a score depends on the
    distance alone (Su et al. 2021, arXiv:2104.09864): adding a constant changes nothing,
    multiplying does.
    """
    positions = torch.arange(ids.shape[1], device=ids.device)[None]

    def record(at: torch.Tensor) -> np.ndarray:
        with AttentionExtractor(loaded.model) as extractor:
            loaded.model(ids, position_ids=at, use_cache=False)
        return _array(extractor.stacked("pattern")[:, 0])

    usual = record(positions)
    return {
        "shift": Pair(record(positions + shift), usual),
        "stretch": Pair(record(positions * stretch), usual),
    }


def measure_wrappers(
    load: Callable[[torch.dtype, Quantisation | None], Loaded],
    ids: torch.Tensor,
    lora: Mapping[str, Any],
    seed: int,
    adapter_folder: Path,
) -> dict[str, Pair]:
    """Return the weights in bfloat16, in NF4 and with an adapter, beside eager attention's.

    The adapter's B is random, so that it changes the model; it is written to `adapter_folder`.
    """
    kinds = {
        "bfloat16": _both(load(torch.bfloat16, None).model, ids),
        "nf4": _both(load(torch.float32, "nf4").model, ids),
    }
    adapted = adapters.attach(load(torch.float32, None), LoraSettings(**lora), seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in adapters.parameters(adapted).items():
        if "lora_B" in name:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(0.02 * noise)
    adapters.save(adapted, adapter_folder)
    return kinds | {"adapter": _both(adapted, ids)}


def _both(model: PreTrainedModel | PeftModel, ids: torch.Tensor) -> Pair:
    """Return the weights [L, H, T, T] of one text [1, T], recorded and by eager attention."""
    recorded = _recorded(model, ids, None)
    # numpy has no bfloat16
    reference = eager_patterns(model, ids).to(recorded.dtype)
    return Pair(_array(recorded[:, 0]), _array(reference[:, 0]))


# Ten families


@torch.no_grad()  # type: ignore[untyped-decorator]
def measure_family(family: str, tokens: int, seed: int, folder: Path) -> FamilyArrays:
    """Record a tiny random model, its second text behind padding; write the model to `folder`."""
    model = families.build(family, seed)
    model.save_pretrained(folder)
    ids = sequences.random_tokens(families.VOCABULARY, 2, tokens, seed=seed)  # [2, T]
    mask = torch.ones_like(ids)
    mask[1, : tokens // 4] = 0

    is_text = mask[None, :, None, :, None]
    narrow = _recorded(model, ids, mask) * is_text
    narrow_reference = eager_patterns(model, ids, mask) * is_text
    # Without padding: eager's least number of float64 is no number of the float32 masks.
    model.double()
    with wide_softmax():
        wide = _recorded(model, ids, None)
        wide_reference = eager_patterns(model, ids)
    return FamilyArrays(
        ids=_array(ids),
        mask=_array(mask),
        float32=Pair(_array(narrow), _array(narrow_reference)),
        float64=Pair(_array(wide), _array(wide_reference)),
    )


def _recorded(
    model: PreTrainedModel | PeftModel, ids: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """Return the recorded patterns [L, B, H, T, T]."""
    with torch.no_grad(), AttentionExtractor(model) as extractor:
        model(ids, attention_mask=mask, use_cache=False)
    extractor.require_all_recorded()
    return extractor.stacked("pattern")


# The guards


def measure_guards(loaded: Loaded, ids: torch.Tensor) -> Guards:
    """Try what the extractor must refuse, and what it must leave behind: nothing."""
    model = loaded.model
    with torch.no_grad(), AttentionExtractor(model, record=()) as extractor:
        model(ids, use_cache=False)
        layers_recorded = len(extractor.recorded)

    model.activation_checkpointing_enable()
    checkpointing_refused = _is_refused(AttentionExtractor(model).__enter__)
    model.activation_checkpointing_disable()

    def run_twice() -> None:
        with torch.no_grad(), AttentionExtractor(model, record=["q", "k"]):
            model(ids, use_cache=False)
            model(ids, use_cache=False)  # raises in the first layer

    before = _traces(model)
    second_run_refused = _is_refused(run_twice)
    return Guards(
        layers_recorded=layers_recorded,
        checkpointing_refused=checkpointing_refused,
        second_run_refused=second_run_refused,
        hooks_left=_traces(model) - before,
    )


def _is_refused(action: Callable[[], Any]) -> bool:
    try:
        action()
    except CaptureError:
        return True
    return False


def _traces(model: PreTrainedModel) -> int:
    """Return how many hooks the model has, and whether its attention is not its own."""
    hooks = 0
    for module in model.modules():
        hooks += len(module._forward_hooks) + len(module._forward_pre_hooks)
    is_changed = model.config._attn_implementation != "sdpa"
    return hooks + int(is_changed)


def _array(tensor: torch.Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().cpu().contiguous().numpy()
    return array


def load_from(folder: str | Path, device: str) -> Callable[..., Loaded]:
    """Return what loads the model of a folder with a dtype and a quantisation."""

    def load(dtype: torch.dtype, quantisation: Quantisation | None) -> Loaded:
        return models.load(folder, dtype=dtype, quantisation=quantisation, device=device)

    return load
