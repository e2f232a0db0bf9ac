"""FEAT-010's recorded patterns, held against transformers' eager attention, run by the gate.

The real model in float32; of its other forms and of the families those that the nonce draws. torch
is imported inside the functions, so that a warm cache never loads it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from gates.attention_extraction.arrays import FAMILIES
from gates.shared import outputs, stored
from gates.shared.stored import artifact, cached, config
from gates.shared.trials_model import without_warnings

FORMS = ("bfloat16", "nf4", "adapter")
DRAWN = 3  # families


def differences() -> dict[str, Any]:
    """Return what the real model's eager attention and sdpa logits differ by from the stored."""
    read = ["artifacts/model.safetensors", "artifacts/parity.safetensors"]
    document: dict[str, Any] = cached(f"real model {config()['shift']}", read, _differences)
    return document


def form_differences() -> tuple[str, list[float]]:
    """Return the form that the nonce draws, and the mean difference of a weight.

    Of what was recorded, and of what it was held against.
    """
    form = outputs.rng().choice(FORMS)
    read = ["artifacts/model.safetensors", "artifacts/parity.safetensors"]
    read += [f"artifacts/adapter/{name}" for name in ("adapter_config.json", ADAPTER)]
    differences: list[float] = cached(
        f"form {form}", read, lambda: without_warnings(_form_differences, form)
    )
    return form, differences


def family_differences() -> dict[str, list[float]]:
    """Return the largest differences of the drawn families, in float32 and float64.

    Of what was recorded and of what it was held against, whichever is larger.
    """
    drawn = outputs.rng().sample(FAMILIES, DRAWN)
    differences: dict[str, list[float]] = {}
    for family in drawn:
        read = [f"artifacts/families/{family}.safetensors"]
        read += [f"artifacts/families/{family}/{name}" for name in ("config.json", WEIGHTS)]
        differences[family] = cached(f"family {family}", read, partial(_family_differences, family))
    return differences


WEIGHTS = "model.safetensors"
ADAPTER = "adapter_model.safetensors"


def _differences() -> dict[str, Any]:
    import torch

    # 1. The stored text through the model with eager attention.
    arrays = stored.arrays("model")
    ids = torch.from_numpy(arrays["ids"])[None]
    model = _load(torch.float32)
    patterns = _eager(model, ids)[:, 0]

    # 2. Positions shifted and stretched.
    places = torch.arange(ids.shape[1])[None]
    shifted = _eager(model, ids, positions=places + config()["shift"])[:, 0]
    stretched = _eager(model, ids, positions=places * config()["stretch"])[:, 0]

    # 3. Both sides of every pair, as they should be; float64 is more exact, and no more.
    pairs = {name: torch.from_numpy(array) for name, array in stored.arrays("parity").items()}
    expected = {
        "float32": (patterns, patterns),
        "float64": (patterns, patterns),
        "shift": (shifted, patterns),
        "stretch": (stretched, patterns),
    }
    differences = {}
    for kind, (recorded, reference) in expected.items():
        ours = _largest(recorded, pairs[f"{kind}.recorded"])
        theirs = _largest(reference, pairs[f"{kind}.reference"])
        differences[kind] = max(ours, theirs)

    # 4. The same text behind padding, and the logits of sdpa.
    padding = config()["padding"]
    padded = torch.cat([ids[:, :1].expand(1, padding), ids[:, : ids.shape[1] - padding]], 1)
    mask = (torch.arange(padded.shape[1]) >= padding).long()[None]
    behind = _eager(model, padded, mask=mask)[:, 0, :, padding:]
    model.set_attn_implementation("sdpa")
    projected, logits = _projections(model, ids)
    for name, ours in projected.items():
        theirs = torch.from_numpy(arrays[name])
        differences[name] = _largest(ours.view(theirs.shape), theirs) / float(ours.abs().max())
    for name in ("logits_recorded", "logits_plain"):
        stored_logits = torch.from_numpy(arrays[name])
        differences[name] = _largest(logits[config()["logits"]], stored_logits)
    return {
        **differences,
        "pattern": _largest(patterns, torch.from_numpy(arrays["pattern"])),
        "padded": _largest(behind, torch.from_numpy(arrays["padded"])[:, :, padding:]),
        "natural": len(set(arrays["ids"].tolist())),
    }


def _projections(model: Any, ids: Any) -> tuple[dict[str, Any], Any]:
    """Return q, k, v and z of every layer, each [L, T, heads·D], and the logits [T, V].

    q, k and v are what the projections return, z is what the output projection gets.
    """
    import torch

    found: dict[str, list[Any]] = {"q": [], "k": [], "v": [], "z": []}
    handles = []
    for layer in model.model.layers:
        for name in ("q", "k", "v"):
            projection = getattr(layer.self_attn, f"{name}_proj")
            keep = partial(lambda kept, _, __, output: kept.append(output[0]), found[name])
            handles.append(projection.register_forward_hook(keep))
        keep_input = partial(lambda kept, _, inputs: kept.append(inputs[0][0]), found["z"])
        handles.append(layer.self_attn.o_proj.register_forward_pre_hook(keep_input))
    with torch.no_grad():
        logits = model(ids).logits[0]
    for handle in handles:
        handle.remove()
    return {name: torch.stack(layers) for name, layers in found.items()}, logits


def _form_differences(form: str) -> list[float]:
    import torch

    ids = torch.from_numpy(stored.arrays("model")["ids"])[None]
    dtype = torch.bfloat16 if form == "bfloat16" else torch.float32
    model = _load(dtype, nf4=form == "nf4")
    if form == "adapter":
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, artifact("adapter")).eval()
    weights = _eager(model, ids)[:, 0].double()
    differences = []
    for side in ("recorded", "reference"):
        ours = torch.from_numpy(stored.arrays("parity")[f"{form}.{side}"])
        differences.append(float((weights - ours).abs().mean()))
    return differences


def _family_differences(family: str) -> list[float]:
    import torch
    from transformers import AutoModelForCausalLM

    arrays = {
        name: torch.from_numpy(array) for name, array in stored.arrays(f"families/{family}").items()
    }
    folder = artifact(f"families/{family}")
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    narrow = _eager(model.eval(), arrays["ids"], mask=arrays["mask"])
    real = arrays["mask"][None, :, None, :, None]  # rows of padding are nobody's
    wide = _eager(model.double(), arrays["ids"])  # but for its softmax, which is float32
    largest = []
    for dtype, weights in (("float32", narrow * real), ("float64", wide)):
        sides = [arrays[f"{dtype}.{side}"] for side in ("recorded", "reference")]
        largest.append(max(_largest(weights, side) for side in sides))
    return largest


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
    return AutoModelForCausalLM.from_pretrained(
        outputs.inputs()[config()["model"]],
        dtype=dtype,
        quantization_config=quantiser,
        attn_implementation="eager",
        device_map="cpu",
    ).eval()


def _eager(model: Any, ids: Any, *, mask: Any = None, positions: Any = None) -> Any:
    """Return eager attention's weights [L, B, H, T, T]."""
    import torch

    with torch.no_grad():
        out = model(
            ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=False,
            output_attentions=True,
        )
    return torch.stack(out.attentions)


def _largest(a: Any, b: Any) -> float:
    return float((a.double() - b.double()).abs().max())
