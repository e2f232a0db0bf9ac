"""The measuring part: records the real model, its other forms and ten families."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lab.activation_extraction.measured import (
    COUNTED,
    STREAM,
    WITHOUT_MID,
    Counted,
    FamilyArrays,
    Logits,
    ModelArrays,
    Stream,
)
from lab.instruments import adapters, families, models, residual_stream, sequences
from lab.instruments.activations import ActivationExtractor
from lab.instruments.adapters import LoraSettings
from lab.instruments.logit_lens import lens_logits

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from lab.instruments.activation_statistics import ActivationStatistics
    from lab.instruments.models import Loaded, Quantisation


# The real model


@torch.no_grad()  # type: ignore[untyped-decorator]
def measure_model(
    loaded: Loaded, ids: torch.Tensor, *, positions: Sequence[int], stop_layer: int
) -> tuple[ModelArrays, dict[str, Counted]]:
    """Record all texts [S, T] at once, and hold them against what transformers gives.

    positions: whose logits are compared.
    """
    model = loaded.model
    at = list(positions)

    # 1. The texts without and with the extractor.
    plain = model(ids, use_cache=False, output_hidden_states=True)
    normed: list[torch.Tensor] = []
    hooks = [
        layer.get_submodule("input_layernorm").register_forward_hook(
            lambda _, __, output: normed.append(output[0])
        )
        for layer in residual_stream.layers(model)
    ]
    with ActivationExtractor(model, record=STREAM) as extractor:
        recorded = model(ids, use_cache=False).logits
    for hook in hooks:
        hook.remove()
    extractor.require_all_recorded()

    # 2. The lens: of every layer, of the stream and of the stream behind the final norm.
    own = plain.logits[:, at]
    norm: Any = residual_stream.final_norm(model)
    lens_kl, double_kl = [], []
    for layer in extractor.layers:
        residual = extractor["resid_post", layer][:, at]  # [S, P, D]
        lens_kl.append(divergence(own, lens_logits(model, residual)))
        double_kl.append(divergence(own, lens_logits(model, norm(residual))))
    last = extractor["resid_post", extractor.layers[-1]]

    # 3. A pass that ends early.
    with ActivationExtractor(model, layers=[stop_layer], stop=True) as stopped:
        model(ids, use_cache=False)
    arrays = ModelArrays(
        ids=_array(ids),
        stream={name: _array(extractor.stacked(name)[:, 0]) for name in STREAM},
        normed=_array(torch.stack(normed)),
        hidden_states=_array(torch.stack([hidden[0] for hidden in plain.hidden_states])),
        final_normed=_array(norm(last[0])),
        stopped=_array(stopped["resid_post", stop_layer][0]),
        logits=Logits(
            plain=_array(own),
            recorded=_array(recorded[:, at]),
            lens=_array(lens_logits(model, last[:, at])),
            double=_array(lens_logits(model, plain.hidden_states[-1][:, at])),
        ),
        lens_kl=_array(torch.stack(lens_kl)),
        double_kl=_array(torch.stack(double_kl)),
    )

    # 4. Statistics over two passes, and of the tensors.
    half = len(ids) // 2
    with ActivationExtractor(model, record=COUNTED, statistics=True) as counter:
        model(ids[:half], use_cache=False)
        model(ids[half:], use_cache=False)
    counter.require_all_recorded()
    statistics = {}
    for name in COUNTED:
        layers = [counter.statistics[name, layer] for layer in counter.layers]
        statistics[name] = Counted(streamed(layers), reference(extractor.stacked(name)))
    return arrays, statistics


def divergence(own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return KL(own || other) of logits [..., V], in nats, computed in float64."""
    own_log = own.double().log_softmax(-1)
    return (own_log.exp() * (own_log - other.double().log_softmax(-1))).sum(-1)


def streamed(layers: Sequence[ActivationStatistics]) -> dict[str, np.ndarray]:
    """Return the extractor's statistics of every layer as arrays, by STATISTICS."""
    places = [
        [[one.sequence, one.position, one.dimension] for one in layer.largest] for layer in layers
    ]
    return {
        "mean": np.stack([layer.mean.cpu().numpy() for layer in layers]),
        "variance": np.stack([layer.variance.cpu().numpy() for layer in layers]),
        "mean_norm": np.array([layer.mean_norm for layer in layers]),
        "mean_norm_without_first": np.array([layer.mean_norm_without_first for layer in layers]),
        "mean_median": np.array([layer.mean_median for layer in layers]),
        "largest": np.array([[one.size for one in layer.largest] for layer in layers]),
        "places": np.array(places),
    }


def reference(tensors: torch.Tensor) -> dict[str, np.ndarray]:
    """Return the same by their definition, from tensors [L, S, T, D] that were kept."""
    wide = tensors.double()
    norms = wide.norm(dim=-1)  # [L, S, T]
    sizes = wide.abs().flatten(1)  # [L, S·T·D]
    largest, at = sizes.topk(3)
    places = torch.stack(torch.unravel_index(at, tensors.shape[1:]), dim=-1)
    numbers = {
        "mean": wide.mean(dim=(1, 2)),
        "variance": wide.var(dim=(1, 2), correction=0),
        "mean_norm": norms.mean(dim=(1, 2)),
        "mean_norm_without_first": norms[:, :, 1:].mean(dim=(1, 2)),
        "mean_median": wide.abs().median(dim=-1).values.mean(dim=(1, 2)),
        "largest": largest,
        "places": places,
    }
    return {name: _array(number) for name, number in numbers.items()}


# Its other forms


def measure_forms(
    load: Callable[[torch.dtype, Quantisation | None], Loaded],
    ids: torch.Tensor,
    *,
    lora: Mapping[str, Any],
    silent_layer: int,
    seed: int,
    adapter_folder: Path,
) -> dict[str, Stream]:
    """Record one text [1, T] in bfloat16, in NF4, with an adapter, and with a layer that is silent.

    The adapter's B is random, so that it changes the model; it is written to `adapter_folder`.
    """
    forms = {
        "bfloat16": record(load(torch.bfloat16, None).model, ids),
        "nf4": record(load(torch.float32, "nf4").model, ids),
    }
    silent = load(torch.float32, None).model
    layer: Any = residual_stream.layers(silent)[silent_layer]
    with torch.no_grad():
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    adapted = adapters.attach(load(torch.float32, None), LoraSettings(**lora), seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in adapters.parameters(adapted).items():
        if "lora_B" in name:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(0.02 * noise)
    adapters.save(adapted, adapter_folder)
    adapted_stream = record(adapted, ids)
    return forms | {"adapter": adapted_stream, "silent": record(silent, ids)}


def record(model: PreTrainedModel | PeftModel, ids: torch.Tensor) -> Stream:
    """Return what is recorded of one text [1, T], in the width of numpy: bfloat16 as float32."""
    with torch.no_grad(), ActivationExtractor(model, record=STREAM) as extractor:
        model(ids, use_cache=False)
    extractor.require_all_recorded()
    return {name: _array(extractor.stacked(name)[:, 0].float()) for name in STREAM}


# Ten families


@torch.no_grad()  # type: ignore[untyped-decorator]
def measure_family(family: str, tokens: int, seed: int) -> FamilyArrays:
    """Record a tiny random model in float32, its second text behind padding, and in float64."""
    model = families.build(family, seed)
    ids = sequences.random_tokens(families.VOCABULARY, 2, tokens, seed=seed)  # [2, T]
    mask = torch.ones_like(ids)
    mask[1, : tokens // 4] = 0
    names: tuple[str, ...] = STREAM
    if residual_stream.residual_stream(model).resid_mid is None:
        names = WITHOUT_MID
    streams = {}
    # Without padding in float64: eager's least number of float64 is no number of its masks.
    for dtype, dtype_mask in ((torch.float32, mask), (torch.float64, None)):
        model.to(dtype)
        with ActivationExtractor(model, record=names) as extractor:
            logits = model(ids, attention_mask=dtype_mask, use_cache=False).logits
        extractor.require_all_recorded()
        streams[dtype] = {name: _array(extractor.stacked(name)) for name in names}
    last = extractor["resid_post", extractor.layers[-1]]
    return FamilyArrays(
        ids=_array(ids),
        mask=_array(mask),
        float32=streams[torch.float32],
        float64=streams[torch.float64],
        logits=_array(logits),
        lens=_array(lens_logits(model, last)),
    )


def _array(tensor: torch.Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().cpu().contiguous().numpy()
    return array


def load_from(folder: str | Path, device: str) -> Callable[..., Loaded]:
    """Return what loads the model of a folder with a dtype and a quantisation."""

    def load(dtype: torch.dtype, quantisation: Quantisation | None) -> Loaded:
        return models.load(folder, dtype=dtype, quantisation=quantisation, device=device)

    return load
