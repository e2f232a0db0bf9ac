"""FEAT-014's arrays from the model, by hooks of the gate's own.

Everything is recomputed, not a sample: all texts through the real model, its four other forms, and
all ten families, which are drawn again from the seed. torch is imported inside the functions, so
that a warm cache never loads it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gates.activation_extraction import families
from gates.activation_extraction.arrays import COUNTED, FAMILIES, FORMS, STREAM
from gates.activation_extraction.hooks import LLAMA, read
from gates.shared import outputs, sequences, stored
from gates.shared.stored import artifact, cached, config
from gates.shared.trials_model import without_warnings

ADAPTER = "adapter_model.safetensors"
OF_MODEL = ("normed", "hidden_states", "final_normed", "stopped")
LOGITS = ("plain", "recorded", "lens", "double")


def folder() -> Path:
    """Return the folder of the model."""
    return outputs.inputs()[config()["model"]]


def document() -> dict[str, Any]:
    """Return the model's config.json."""
    content: dict[str, Any] = json.loads((folder() / "config.json").read_text("utf-8"))
    return content


def weights_digest() -> str:
    """Return the sha256 (hex) of the model's weights."""

    def compute() -> str:
        return outputs.digest_of(folder() / "model.safetensors")

    return str(cached("activation weights", [], compute))


def texts() -> list[list[int]]:
    """Return the texts' tokens as they must be, [S][T]."""
    settings = config()["texts"]

    def compute() -> list[list[int]]:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
        ids = tokenizer.encode(sequences.documentation(), add_special_tokens=False).ids
        return sequences.windows(ids, settings["count"], settings["length"])

    return list(cached(f"activation texts {settings}", [], compute))


def model_differences() -> dict[str, float]:
    """Return array -> how far what is stored is from what the model does.

    Of vectors: the largest ‖stored − recomputed‖ / ‖recomputed‖ of a token; of logits: the largest
    difference; of the lens: nats, beyond 1 nat as a share; of statistics: of its own size.
    """
    read_files = [f"artifacts/{name}.safetensors" for name in ("model", "logits", "statistics")]
    key = f"activation model {_settings()}"
    return dict(cached(key, read_files, lambda: without_warnings(_model_differences)))


def form_differences() -> dict[str, dict[str, float]]:
    """Return form -> name of STREAM -> the difference of vectors, as in `model_differences`.

    And "rounding" -> write -> how far the stored bfloat16 is from float32, over how far the gate's
    own is: bfloat16 that was never computed with, but rounded from float32, is nearer.
    """
    read_files = ["artifacts/forms.safetensors"]
    read_files += [f"artifacts/adapter/{name}" for name in ("adapter_config.json", ADAPTER)]
    key = f"activation forms {_settings()}"
    return dict(cached(key, read_files, lambda: without_warnings(_form_differences)))


def family_differences() -> dict[str, dict[str, float]]:
    """Return family -> "float32", "float64", "logits", "lens" -> the largest difference."""
    read_files = [f"artifacts/families/{family}.safetensors" for family in FAMILIES]
    key = f"activation families {_settings()}"
    return dict(cached(key, read_files, lambda: without_warnings(_family_differences)))


def _settings() -> str:
    """Return all that the model's arrays depend on, beside files."""
    return json.dumps([config(), outputs.result()["environment"]["seed"]], sort_keys=True)


#### the real model


def _model_differences() -> dict[str, float]:
    import torch

    # 1. All texts at once, as they were recorded.
    arrays = _stored("model")
    model = _load(torch.float32)
    ids = torch.tensor(texts())
    stream, out = read(model, LLAMA, ids)
    at = config()["positions"]
    last = stream["resid_post"][-1]  # [S, T, D]
    ours = {name: tensors[:, 0] for name, tensors in stream.items()}
    ours["hidden_states"] = torch.cat([ours["resid_pre"], model.model.norm(last[:1])])
    ours["final_normed"] = model.model.norm(last[0])
    ours["stopped"] = ours["resid_post"][config()["stop_layer"]]
    differences = {name: _vectors(arrays[name], ours[name]) for name in (*STREAM, *OF_MODEL)}

    # 2. Logits: of the model, and of the lens once and twice normed.
    own = out.logits[:, at]
    twice = model.lm_head(model.model.norm(model.model.norm(last[:, at])))
    logits = dict.fromkeys(("plain", "recorded", "lens"), own) | {"double": twice}
    for name, tensor in logits.items():
        differences[name] = _largest(_stored("logits")[name], tensor)

    # 3. The lens of every layer.
    for name, times in (("lens_kl", 1), ("double_kl", 2)):
        gaps = []
        for residual, theirs in zip(stream["resid_post"][:, :, at], arrays[name], strict=True):
            normed = residual
            for _ in range(times):
                normed = model.model.norm(normed)
            nats = _divergence(own, model.lm_head(normed))
            gaps.append(float(((theirs - nats).abs() / nats.clamp(min=1.0)).max()))
        differences[name] = max(gaps)

    # 4. Statistics: both sides.
    for name in COUNTED:
        for side in ("streamed", "reference"):
            differences[f"{name}.{side}"] = _of_statistics(f"{name}.{side}", stream[name])
    return differences


def _of_statistics(part: str, tensors: Any) -> float:
    """Return how far stored statistics are from those of tensors [L, S, T, D].

    Each as a share of its own size: a mean of the root mean square of its dimension, a variance of
    the deviation times that. Beside massive activations, all other dimensions would be nothing.
    """
    import torch

    arrays = _stored("statistics")
    wide = tensors.double()
    tokens = wide.flatten(1, 2)  # [L, S·T, D]
    lengths = wide.square().sum(-1).sqrt()
    middle = (tokens.shape[2] - 1) // 2  # the lower one of two
    centre = tokens.mean(1)
    variance = (tokens - centre[:, None]).square().mean(1)
    size = tokens.square().mean(1).sqrt()  # [L, D]
    ours = {
        "mean": centre,
        "variance": variance,
        "mean_norm": lengths.mean((1, 2))[:, None],
        "mean_norm_without_first": lengths[:, :, 1:].mean((1, 2))[:, None],
        "mean_median": tokens.abs().sort(-1).values[..., middle].mean(1)[:, None],
        "largest": wide.abs().flatten(1).sort(-1, descending=True).values[:, :3],
    }
    scales = {name: true.abs() for name, true in ours.items()}
    scales |= {"mean": size, "variance": variance.sqrt() * size}
    gaps = []
    for name, true in ours.items():
        theirs = arrays[f"{part}.{name}"].view(true.shape)
        gaps.append(float(((theirs - true).abs() / scales[name].clamp(min=1e-12)).max()))

    # Two values that are nearly equal may change places: what must be right is the value there.
    for layer, places in enumerate(arrays[f"{part}.places"].tolist()):
        assert len(set(map(tuple, places))) == 3, f"{part}: a place is stored twice"
        there = torch.stack([wide[layer][tuple(place)].abs() for place in places])
        gaps.append(float(((there / ours["largest"][layer]) - 1).abs().max()))
    return max(gaps)


#### its forms


def _form_differences() -> dict[str, dict[str, float]]:
    import torch

    arrays = _stored("forms")
    ids = torch.tensor(texts()[:1])[:, : config()["form_tokens"]]
    differences: dict[str, dict[str, float]] = {}
    whole, _ = read(_load(torch.float32), LLAMA, ids)
    for form in FORMS:
        stream, _ = read(_form(form), LLAMA, ids)
        if form == "bfloat16":
            differences["rounding"] = {
                name: _typical(arrays[f"{form}.{name}"], whole[name][:, 0])
                / _typical(stream[name][:, 0], whole[name][:, 0])
                for name in ("attn_out", "mlp_out")
            }
        differences[form] = {
            name: _vectors(arrays[f"{form}.{name}"], stream[name][:, 0]) for name in STREAM
        }
    return differences


def _form(form: str) -> Any:
    import torch

    dtype = torch.bfloat16 if form == "bfloat16" else torch.float32
    model = _load(dtype, nf4=form == "nf4")
    if form == "silent":
        layer = model.model.layers[config()["silent_layer"]]
        with torch.no_grad():
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    if form == "adapter":
        from peft import PeftModel

        adapted = PeftModel.from_pretrained(model, artifact("adapter")).eval()
        return adapted.get_base_model()
    return model


#### ten families


def _family_differences() -> dict[str, dict[str, float]]:
    import torch

    differences = {}
    seed = outputs.result()["environment"]["seed"]
    for family in FAMILIES:
        arrays = _stored(f"families/{family}")
        model = families.build(family, seed)
        ids, mask = families.texts(seed)
        assert torch.equal(arrays["ids"], ids), f"{family}: other tokens than the seed draws"
        assert torch.equal(arrays["mask"], mask), f"{family}: other padding than planned"
        places = families.PLACES[family]
        gaps = {}
        narrow, _ = read(model, places, ids, mask)
        wide, out = read(model.double(), places, ids)
        for dtype, stream in (("float32", narrow), ("float64", wide)):
            stored_names = {name for name in arrays if name.startswith(f"{dtype}.")}
            expected = {f"{dtype}.{name}" for name in STREAM if name in stream}
            assert stored_names == expected, f"{family}: {sorted(stored_names ^ expected)}"
            gaps[dtype] = max(
                _vectors(arrays[f"{dtype}.{name}"], stream[name])
                for name in STREAM
                if name in stream
            )
        gaps["logits"] = _largest(arrays["logits"], out.logits)
        lens = families.lens(model, family, wide["resid_post"][-1])
        gaps["lens"] = _largest(arrays["lens"], lens)
        differences[family] = gaps
    return differences


#### tensors


def _load(dtype: Any, *, nf4: bool = False) -> Any:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    quantiser = None
    if nf4:
        quantiser = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    model = AutoModelForCausalLM.from_pretrained(
        folder(), dtype=dtype, quantization_config=quantiser, device_map="cpu"
    ).eval()
    model.requires_grad_(requires_grad=False)
    for module in model.modules():
        # On some CPUs bitsandbytes repacks 4-bit weights for a kernel that rounds to bfloat16.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def _stored(name: str) -> dict[str, Any]:
    import torch

    return {key: torch.from_numpy(array) for key, array in stored.arrays(name).items()}


def _vectors(stored_tensors: Any, ours: Any) -> float:
    """Return the largest difference of a vector, as a share of the length that it should have.

    A vector that should be 0 counts with a length of 1.
    """
    assert stored_tensors.shape == ours.shape, f"{tuple(stored_tensors.shape)}"
    wide = ours.double()
    lengths = wide.norm(dim=-1)
    gaps = (stored_tensors.double() - wide).norm(dim=-1)
    return float((gaps / lengths.where(lengths > 0, lengths.new_ones(()))).max())


def _typical(one: Any, other: Any) -> float:
    """Return the mean over layers of the median over tokens of the difference of vectors."""
    wide = other.double()
    gaps = (one.double() - wide).norm(dim=-1) / wide.norm(dim=-1)  # [L, T]
    return float(gaps.median(dim=1).values.mean())


def _divergence(own: Any, other: Any) -> Any:
    import torch

    probabilities = own.double().softmax(-1)
    logs = torch.nn.functional.log_softmax(other.double(), -1)
    entropy = torch.special.entr(probabilities).sum(-1)
    return -entropy - (probabilities * logs).sum(-1)


def _largest(one: Any, other: Any) -> float:
    assert one.shape == other.shape
    return float((one.double() - other.double()).abs().max())
