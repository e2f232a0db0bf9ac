"""A sample of the gate's own: of each drawn feature something that the nonce draws, recomputed.

It comes from the base model and the feature's stored files, by transformers and numpy, and not
from the rows of the experiment. `of(feature)` returns what is stored and what was recomputed, as
lists of numbers. torch is imported inside.
"""

from __future__ import annotations

import json
import math
import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gates.shared import outputs
from gates.shared.stored import cached, header
from gates.shared.trials_model import token_values
from gates.synthesis.reproduction import compared, earlier

EXAMPLES = 12  # held-out examples
NOISE = 0.02  # of the largest value: float32 in another order, padded batches in place of packs

Sample = dict[str, Any]


def of(feature: str) -> Sample:
    """Return the sample of a feature: what it is of, stored and recomputed values."""

    def compute() -> Sample:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _sample(feature)

    return dict(cached(f"sample {feature} {earlier.started()}", [], compute))


def _sample(feature: str) -> Sample:
    draw = outputs.rng()
    kind = earlier.module(feature)
    if kind in SAMPLES:
        return dict(SAMPLES[kind](feature, draw))
    return _measurements(feature, draw)


def _pair(what: str, stored: Any, again: Any) -> Sample:
    """Return a sample of two arrays."""
    import numpy as np

    return {
        "what": what,
        "stored": np.asarray(stored, dtype=float).ravel().tolist(),
        "recomputed": np.asarray(again, dtype=float).ravel().tolist(),
    }


def _array(feature: str, file: str, name: str) -> Any:
    return compared.read(feature, f"artifacts/{file}", [name])


def _json(feature: str, file: str) -> Any:
    return json.loads((earlier.folder(feature) / "artifacts" / file).read_text("utf-8"))


#### models


def _base(feature: str, **options: Any) -> Any:
    """Return the base model of a feature, in float32 unless it is quantised."""
    import torch
    from transformers import AutoModelForCausalLM

    path = outputs.inputs()[earlier.result(feature)["environment"]["config"]["model"]]
    return AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, device_map="cpu", **options
    ).eval()


def _adapted(base: Any, folder: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(base, folder).eval()


def _losses(model: Any, examples: Sequence[dict[str, Any]]) -> list[float]:
    import torch

    with torch.no_grad():
        return token_values(model, examples)["losses"]


def _examples(feature: str, kind: str) -> list[dict[str, Any]]:
    """Return the examples that a feature stored, or else the first feature that has them."""
    needed = [uri.partition(":")[2] for uri in earlier.dependencies(feature) if "feature:" in uri]
    for name in (feature, *sorted(needed)):
        path = earlier.folder(name) / "artifacts" / f"{kind}.jsonl"
        if path.is_file():
            return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    msg = f"{feature}: no {kind}.jsonl"
    raise AssertionError(msg)


def _of_examples(values: Any, ids: Any, examples: Sequence[int]) -> list[float]:
    """Return the values of some examples' tokens, in the order of the examples."""
    chosen: list[float] = []
    for example in examples:
        chosen += values[ids == example].tolist()
    return chosen


#### trainings


def _of_qlora(feature: str, draw: random.Random) -> Sample:
    import torch
    from transformers import BitsAndBytesConfig

    # 1. The base in four bits; a kernel of some CPUs would round to bfloat16.
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    base = _base(feature, quantization_config=four_bits)
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False

    # 2. Held-out losses of one of the two runs.
    run = draw.choice(["true", "shuffled"])
    evaluation = _examples(feature, "evaluation")
    chosen = sorted(draw.sample(range(len(evaluation)), min(EXAMPLES, len(evaluation))))
    model = _adapted(base, earlier.folder(feature) / "artifacts" / f"adapter_{run}")
    ids = _array(feature, "evaluation.safetensors", "example_ids")
    losses = _array(feature, "evaluation.safetensors", f"{run}.losses")
    return _pair(
        f"losses of the {run} run",
        _of_examples(losses, ids, chosen),
        _losses(model, [evaluation[i] for i in chosen]),
    )


def _of_trial(feature: str, draw: random.Random) -> Sample:
    names = [file.split("/")[2] for file in earlier.output_digests(feature) if "/trials/" in file]
    name = draw.choice(sorted(set(names) - {"base"}))
    evaluation = _examples(feature, "evaluation")
    chosen = sorted(draw.sample(range(len(evaluation)), min(EXAMPLES, len(evaluation))))
    folder = f"trials/{name}"
    model = _adapted(_base(feature), earlier.folder(feature) / "artifacts" / folder)
    ids = _array(feature, f"{folder}/evaluation.safetensors", "example_ids")
    losses = _array(feature, f"{folder}/evaluation.safetensors", "losses")
    return _pair(
        f"losses of the trial {name}",
        _of_examples(losses, ids, chosen),
        _losses(model, [evaluation[i] for i in chosen]),
    )


def _of_forgetting(feature: str, draw: random.Random) -> Sample:
    # 1. Texts, of which the sampled tokens at the end are supervised.
    path = earlier.folder(feature) / "artifacts" / "text.jsonl"
    texts = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    chosen = sorted(draw.sample(range(len(texts)), min(EXAMPLES, len(texts))))
    examples = []
    for i in chosen:
        ids, drawn = texts[i]["ids"], texts[i]["drawn"]
        examples.append({"ids": ids, "labels": [-100] * (len(ids) - drawn) + ids[-drawn:]})

    # 2. Their losses under a drawn adapter, stored where it was trained.
    name, trial = draw.choice(sorted(_json(feature, "models.json")["models"].items()))
    model = _adapted(_base(feature), _trial_folder(feature, trial["trial"]))
    of_text = _array(feature, "scores.safetensors", f"{name}.example_ids")
    losses = _array(feature, "scores.safetensors", f"{name}.losses")
    return _pair(
        f"losses of {name} on texts",
        _of_examples(losses, of_text, chosen),
        _losses(model, examples),
    )


def _trial_folder(feature: str, trial: str) -> Path:
    needed = [uri.partition(":")[2] for uri in earlier.dependencies(feature) if "feature:" in uri]
    for name in (feature, *sorted(needed)):
        folder = earlier.folder(name) / "artifacts" / "trials" / trial
        if folder.is_dir():
            return folder
    msg = f"{feature}: no trial {trial}"
    raise AssertionError(msg)


def _of_comparison(feature: str, draw: random.Random) -> Sample:
    import torch
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    # 1. The adapter of a drawn snapshot.
    stored = load_file(earlier.folder(feature) / "artifacts" / "snapshots.safetensors")
    steps = sorted({int(name.partition(".")[0]) for name in stored})
    place = draw.randrange(len(steps))
    prefix = f"{steps[place]}."
    tensors = {n.removeprefix(prefix): t for n, t in stored.items() if n.startswith(prefix)}
    settings = earlier.result(feature)["environment"]["config"]
    layers = {name.split(".")[-3] for name in tensors}
    lora = LoraConfig(**settings["lora"], target_modules=sorted(layers), task_type="CAUSAL_LM")
    torch.manual_seed(0)
    model = get_peft_model(_base(feature), lora).eval()
    set_peft_model_state_dict(model, tensors)

    # 2. The losses of drawn examples; those of the base come first.
    ids = _array(feature, "arrays.safetensors", "token_examples")
    losses = _array(feature, "arrays.safetensors", "snapshots.losses")[1 + place]
    numbers = sorted(set(ids.tolist()))
    first = settings["prompts"]["task"] - numbers[0]
    chosen = sorted(draw.sample(numbers, min(EXAMPLES, len(numbers))))
    evaluation = _examples(feature, "evaluation")
    return _pair(
        f"losses after step {steps[place]}",
        _of_examples(losses, ids, chosen),
        _losses(model, [evaluation[first + i] for i in chosen]),
    )


#### attention and the residual stream


def _forward(feature: str, ids: Any) -> Any:
    """Return what transformers gives of ids [B, T] with eager attention."""
    import torch

    model = _base(feature, attn_implementation="eager")
    with torch.no_grad():
        return model(
            torch.tensor(ids), output_attentions=True, output_hidden_states=True, use_cache=False
        )


def _of_extraction(feature: str, draw: random.Random) -> Sample:
    ids = _array(feature, "model.safetensors", "ids")
    stored = _array(feature, "model.safetensors", "pattern")  # [L, H, T, T]
    layer = draw.randrange(len(stored))
    again = _forward(feature, ids[None]).attentions[layer][0]
    return _pair(f"pattern of layer {layer}", stored[layer], again)


def _of_views(feature: str, draw: random.Random) -> Sample:
    ids = _array(feature, "sequences.safetensors", "natural")
    number = draw.randrange(len(ids))
    stored = _array(feature, "statistics_natural.safetensors", "sink")[number]  # [L, H, T]
    layer = draw.randrange(len(stored))
    again = _forward(feature, ids[[number]]).attentions[layer][0, :, :, 0]
    return _pair(f"sink of text {number}, layer {layer}", stored[layer], again)


def _of_activations(feature: str, draw: random.Random) -> Sample:
    ids = _array(feature, "model.safetensors", "ids")
    stored = _array(feature, "model.safetensors", "resid_pre")  # [L, T, D]
    layer = draw.randrange(len(stored))
    again = _forward(feature, ids[:1]).hidden_states[layer][0]
    return _pair(f"stream entering layer {layer}", stored[layer], again)


def _of_representations(feature: str, draw: random.Random) -> Sample:
    ids = _array(feature, "sequences.safetensors", "ids")
    number = draw.randrange(len(ids))
    stored = _array(feature, "stream.safetensors", "norms")[number]  # [L + 1, T]
    # transformers' last hidden state is behind the final norm
    layer = draw.randrange(len(stored) - 1)
    again = _forward(feature, ids[[number]]).hidden_states[layer][0].norm(dim=-1)
    return _pair(f"norms of text {number} entering layer {layer}", stored[layer], again)


#### without a language model


def _of_induction(feature: str, draw: random.Random) -> Sample:
    """Return the loss on first and second copies of a stored model, in float64."""
    import numpy as np

    # 1. A drawn model at a drawn stored step.
    plan = earlier.result(feature)["environment"]["config"]["plan"]
    files = [
        file for file in earlier.output_digests(feature) if file.endswith("weights.safetensors")
    ]
    file = draw.choice(sorted(files)).removeprefix("artifacts/")
    run = Path(file).parent
    names = header(earlier.folder(feature) / "artifacts" / file)
    step = draw.randrange(names["embedding"]["shape"][0])
    weights = {name: _array(feature, file, name)[step].astype(float) for name in names}

    # 2. Its losses on the second copies.
    ids = _array(feature, "evaluation.safetensors", "ids")
    periods = _array(feature, "evaluation.safetensors", "periods")
    log_p = _log_probabilities(weights, ids, plan["heads"], plan["head_width"])
    losses = -np.take_along_axis(log_p[:, :-1], ids[:, 1:, None], 2)[..., 0]  # [N, T - 1]
    is_first = np.arange(losses.shape[1])[None] < periods[:, None]
    place = step * plan["checkpoint_every"] // plan["every"]
    stored = _array(feature, f"{run}/curve.safetensors", "first")[place]
    return _pair(f"loss on first copies, {run.name}", [stored], [losses[is_first].mean()])


def _log_probabilities(weights: dict[str, Any], ids: Any, heads: int, width: int) -> Any:
    """Return log probabilities [N, T, V] of an attention-only model, rotations as complex turns."""
    import numpy as np

    length = ids.shape[1]
    rates = 10_000.0 ** (-np.arange(0, width, 2) / width)
    turns = np.exp(1j * np.arange(length)[:, None] * rates)  # [T, D / 2]

    def normed(x: Any) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt(centred.var(-1, keepdims=True) + 1e-5)

    def turned(x: Any) -> Any:
        return (x[..., : width // 2] + 1j * x[..., width // 2 :]) * turns

    x = weights["embedding"][ids]
    for layer in range(sum(name.endswith(".query") for name in weights)):
        q, k, v, o = (
            weights[f"layers.{layer}.{name}"] for name in ("query", "key", "value", "output")
        )
        stream = normed(x)
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            keys = turned(stream @ k[:, part]).conj().transpose(0, 2, 1)
            scores = (turned(stream @ q[:, part]) @ keys).real / math.sqrt(width)
            scores[:, np.triu(np.ones((length, length), dtype=bool), 1)] = -np.inf
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            x = x + shares / shares.sum(-1, keepdims=True) @ (stream @ v[:, part]) @ o[part]
    logits = normed(x) @ weights["unembedding"]
    top = logits.max(-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))


def _of_hardware(feature: str, draw: random.Random) -> Sample:
    """Return a rate: an amount over the median of its stored seconds."""
    import statistics

    rates = {"layer": "gemm_float32", "adapter": "gemm_adapter", "bandwidth": "bandwidth"}
    kind = draw.choice(sorted(rates))
    timing = _json(feature, "timings.json")[kind]
    again = timing["amount"] / statistics.median(timing["seconds"]) / 1e9
    stored = earlier.result(feature)["measurements"][rates[kind]]["value"]
    return _pair(f"rate of {kind}", [stored], [again])


def _measurements(feature: str, draw: random.Random) -> Sample:
    """Return the digests of drawn files, and the means of all measurements that have values."""
    stated = earlier.output_digests(feature)
    stored, again = [], []
    for file in draw.sample(sorted(stated), min(8, len(stated))):
        stored.append(int(stated[file][:8], 16))
        digest = outputs.sha256((earlier.folder(feature) / file).read_bytes())
        again.append(int(digest[:8], 16))
    for measurement in earlier.result(feature)["measurements"].values():
        if measurement.get("values"):
            stored.append(measurement["value"])
            again.append(outputs.sample(measurement["values"])["value"])
    return {"what": "digests and means", "stored": stored, "recomputed": again}


SAMPLES = {
    "lab.qlora.experiment": _of_qlora,
    "lab.loss_curves.experiment": _of_trial,
    "lab.learning_rate.experiment": _of_trial,
    "lab.lora_rank.experiment": _of_trial,
    "lab.forgetting.experiment": _of_forgetting,
    "lab.attention_comparison.experiment": _of_comparison,
    "lab.attention_extraction.experiment": _of_extraction,
    "lab.attention_views.experiment": _of_views,
    "lab.activation_extraction.experiment": _of_activations,
    "lab.representation_analysis.experiment": _of_representations,
    "lab.induction_heads.experiment": _of_induction,
    "lab.hardware.experiment": _of_hardware,
}


def assert_agrees(feature: str) -> None:
    """Check that a feature's sample is what it stored, to float noise."""
    sample = of(feature)
    stored, again = sample["stored"], sample["recomputed"]
    assert stored and len(stored) == len(again), f"{feature}: {sample['what']} has other sizes"
    # The mean too: beside one massive value all others could be anything.
    apart = [abs(a - b) for a, b in zip(stored, again, strict=True)]
    sizes = [max(abs(a), abs(b)) for a, b in zip(stored, again, strict=True)]
    for part, measure in (("most", max), ("the mean", math.fsum)):
        assert measure(apart) <= NOISE * measure(sizes), (
            f"{feature}: {sample['what']} differ in {part} by {measure(apart)}, of {measure(sizes)}"
        )
