"""FEAT-001's arrays computed again from base model and adapters, for a sample drawn by the nonce.

Written apart from the experiment's code: padded batches instead of packed ones, PEFT's own loading,
bitsandbytes asked directly. torch, transformers and peft are imported inside the functions, so that
a warm cache never loads them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from gates.qlora.arrays import RUNS, SETS, linear_names, nf4_bytes
from gates.shared import outputs
from gates.shared.stored import artifact, cached, rows

EXAMPLES = 24  # of the evaluation set; a third of the true run goes into them
LAYERS = 12  # of 210; each is quantised twice
BATCH = 16  # sequences of similar length at a time
ADAPTERS = tuple(
    f"artifacts/adapter_{name}/{file}"
    for name in ("initial", *RUNS)
    for file in ("adapter_config.json", "adapter_model.safetensors")
)
SPOKEN = "artifacts/generations.json"


def sampled_examples() -> list[int]:
    """Give the indices of the evaluation examples that the nonce draws, in order."""
    count = len(rows("evaluation"))
    return sorted(outputs.rng().sample(range(count), min(EXAMPLES, count)))


def sampled_layers() -> list[int]:
    """Give the indices among `linear_names` that the nonce draws, in order."""
    count = len(linear_names())
    return sorted(outputs.rng().sample(range(count), min(LAYERS, count)))


def _refuse_changed(files: Iterable[str]) -> None:
    """Stop before minutes of computation on files that are not those the result names."""
    stated = outputs.result()["files"]
    for name in files:
        assert stated.get(name) == outputs.digest_of(outputs.out() / name), (
            f"{name} is not the file of result.json"
        )


def losses() -> dict[str, Any]:
    """Give, by evaluation, loss, entropy and hit of the sample's supervised tokens, and more.

    "evaluations": name -> {"losses", "entropies", "hits"}; "first": loss of the first batch by
    "base" and "initial"; "margins": per run ("before", "after") how far below the most likely token
    each generated token was, in nats.
    """
    files = ("artifacts/evaluation.jsonl", "artifacts/train.jsonl", *ADAPTERS, SPOKEN)
    return dict(cached("qlora losses", files, lambda: _quietly(files)))


def _quietly(files: Iterable[str]) -> dict[str, Any]:
    """Compute without libraries' warnings: by hand, this repository's config makes them errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _losses(files)


def _losses(files: Iterable[str]) -> dict[str, Any]:
    _refuse_changed(files)
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    path = outputs.inputs()["smollm2-135m"]
    base = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, quantization_config=four_bits, device_map="cpu"
    )
    # AVX512-BF16: bitsandbytes' kernel for evaluation would round to bfloat16
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    model = PeftModel.from_pretrained(
        base, artifact("adapter_initial"), adapter_name="initial"
    ).eval()
    for name in RUNS:
        model.load_adapter(artifact(f"adapter_{name}"), adapter_name=name)
    evaluation = rows("evaluation")
    chosen = [evaluation[i] for i in sampled_examples()]
    batch = rows("train")[: outputs.result()["environment"]["config"]["training"]["batch_size"]]
    spoken = outputs.read_json(SPOKEN)
    found: dict[str, Any] = {"evaluations": {}, "first": {}, "margins": {}}
    with torch.no_grad():
        with model.disable_adapter():
            found["evaluations"]["base"] = _tokens(model, chosen)
            found["first"]["base"] = _mean(_tokens(model, batch)["losses"])
            found["margins"]["before"] = _margins(model, spoken, "before")
        for name in ("initial", *RUNS):
            model.set_adapter(name)
            if name == "initial":
                found["first"][name] = _mean(_tokens(model, batch)["losses"])
            else:
                found["evaluations"][name] = _tokens(model, chosen)
            if name == "true":
                found["margins"]["after"] = _margins(model, spoken, "after")
    return found


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _tokens(model: Any, examples: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Give loss, entropy and hit of every supervised token, in the order of the examples."""
    import torch

    order = sorted(range(len(examples)), key=lambda i: len(examples[i]["ids"]))  # little padding
    found: dict[int, Any] = {}
    for first in range(0, len(order), BATCH):
        group = order[first : first + BATCH]
        log_p = _log_probabilities(model, [examples[i] for i in group])
        found |= dict(zip(group, log_p, strict=True))
    columns: dict[str, list[float]] = {"losses": [], "entropies": [], "hits": []}
    for i, example in enumerate(examples):
        rows_of_p, labels = found[i], [label for label in example["labels"][1:] if label != -100]
        targets = torch.tensor(labels)
        columns["losses"] += (-rows_of_p.gather(1, targets[:, None])[:, 0]).tolist()
        columns["entropies"] += (-(rows_of_p.exp() * rows_of_p).sum(1)).tolist()
        columns["hits"] += (rows_of_p.argmax(1) == targets).float().tolist()
    return columns


def _log_probabilities(model: Any, examples: list[dict[str, Any]]) -> list[Any]:
    """Give per example [S, V]: log-probabilities at the positions before its supervised tokens.

    Padded on the right.
    """
    import torch

    longest = max(len(e["ids"]) for e in examples)
    ids = torch.tensor([e["ids"] + [0] * (longest - len(e["ids"])) for e in examples])
    mask = torch.tensor([[1] * len(e["ids"]) + [0] * (longest - len(e["ids"])) for e in examples])
    language_model = model.get_base_model()
    hidden = language_model.model(input_ids=ids, attention_mask=mask).last_hidden_state  # [B, T, d]
    kept = [[t for t, label in enumerate(e["labels"][1:]) if label != -100] for e in examples]
    logits = [language_model.lm_head(hidden[row, positions]) for row, positions in enumerate(kept)]
    return [each.float().log_softmax(-1) for each in logits]


def _margins(model: Any, spoken: list[dict[str, Any]], when: str) -> list[float]:
    """Give log p(most likely) − log p(generated) of each generated token.

    It is 0 everywhere if decoding was greedy.
    """
    said = [s for s in spoken if s[when]]
    examples = [
        {"ids": s["prompt"] + s[when], "labels": [-100] * len(s["prompt"]) + s[when]} for s in said
    ]
    margins: list[float] = []
    for example, log_p in zip(examples, _log_probabilities(model, examples), strict=True):
        chosen = [label for label in example["labels"] if label != -100]
        margins += [float(row.max() - row[token]) for row, token in zip(log_p, chosen, strict=True)]
    return margins


def decoded() -> dict[str, Any]:
    """Give what the stored ids say, by the base model's tokenizer.

    train, control, evaluation -> [(prompt, answer)] of each example; "spoken" -> [(before, after)]
    of each generation.
    """
    files = (*(f"artifacts/{name}.jsonl" for name in SETS), SPOKEN)
    return dict(cached("qlora texts", files, _decoded))


def _decoded() -> dict[str, Any]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(outputs.inputs()["smollm2-135m"] / "tokenizer.json"))

    def text(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True))

    found: dict[str, Any] = {}
    for name in SETS:
        split = [(row["ids"], row["labels"].count(-100)) for row in rows(name)]
        found[name] = [(text(ids[:first]), text(ids[first:])) for ids, first in split]
    found["spoken"] = [
        (text(said["before"]), text(said["after"])) for said in outputs.read_json(SPOKEN)
    ]
    return found


def quantisation() -> dict[str, Any]:
    """Give what bitsandbytes makes of the sampled layers and of a Gaussian matrix.

    "layers": [{"nf4", "fp4", "distinct", "bytes", "expected_bytes"}]; "gaussian": {"nf4",
    "fp4", "distinct"}.
    """
    return dict(cached("qlora quantisation", (), _quantisation))


def _quantisation() -> dict[str, Any]:
    import torch
    from safetensors import safe_open

    names = linear_names()
    with safe_open(outputs.inputs()["smollm2-135m"] / "model.safetensors", framework="pt") as file:
        layers = [_quantisation_error(file.get_tensor(names[i]).float()) for i in sampled_layers()]
    generator = torch.Generator().manual_seed(outputs.rng().getrandbits(32))
    return {
        "layers": layers,
        "gaussian": _quantisation_error(torch.randn(1024, 1024, generator=generator)),
    }


def _quantisation_error(weight: Any) -> dict[str, float]:
    """Give a matrix's errors in NF4 and FP4 (double quantisation), its bytes, values per block.

    The errors are relative.
    """
    import numpy as np
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    found: dict[str, float] = {}
    for kind in ("nf4", "fp4"):
        packed, state = quantize_4bit(
            weight, blocksize=64, compress_statistics=True, quant_type=kind
        )
        found[kind] = float((dequantize_4bit(packed, state) - weight).norm() / weight.norm())
        if kind == "nf4":
            found["bytes"] = packed.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
    ordered = np.sort(weight.numpy().reshape(-1, 32), axis=1)
    found["distinct"] = float((np.diff(ordered, axis=1) > 0).sum(1).mean() + 1)
    found["expected_bytes"] = nf4_bytes(weight.numel())
    return found
