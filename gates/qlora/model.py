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
from gates.shared.stored import artifact, cached, config, rows

EXAMPLES = 24  # of the evaluation set; a third of the true run goes into them
LAYERS = 12  # of 210; each is quantised twice
BATCH = 16  # sequences of similar length at a time
ADAPTERS = tuple(
    f"artifacts/adapter_{name}/{file}"
    for name in ("initial", *RUNS)
    for file in ("adapter_config.json", "adapter_model.safetensors")
)
GENERATIONS = "artifacts/generations.json"


def sampled_examples() -> list[int]:
    """Return the indices of the evaluation examples that the nonce draws, in order."""
    count = len(rows("evaluation"))
    return sorted(outputs.rng().sample(range(count), min(EXAMPLES, count)))


def sampled_layers() -> list[int]:
    """Return the indices among `linear_names` that the nonce draws, in order."""
    count = len(linear_names())
    return sorted(outputs.rng().sample(range(count), min(LAYERS, count)))


def losses() -> dict[str, Any]:
    """Return by evaluation loss, entropy and hit of the sample's supervised tokens, and more.

    "evaluations": name -> {"losses", "entropies", "hits"}; "first": loss of the first batch by
    "base" and "initial"; "margins": per run ("before", "after") how far below the most likely token
    each generated token was, in nats.
    """
    files = ("artifacts/evaluation.jsonl", "artifacts/train.jsonl", *ADAPTERS, GENERATIONS)
    return dict(cached("qlora losses", files, lambda: _quietly(files)))


def _quietly(files: Iterable[str]) -> dict[str, Any]:
    """Compute without libraries' warnings: by hand, this repository's config makes them errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _losses(files)


def _losses(files: Iterable[str]) -> dict[str, Any]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    # 1. The base in four bits with all adapters.
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
    # 2. What it is asked: the sample, the first training batch, the prompts of the answers.
    evaluation = rows("evaluation")
    sample = [evaluation[i] for i in sampled_examples()]
    first_batch = rows("train")[: config()["training"]["batch_size"]]
    generations = outputs.read_json(GENERATIONS)

    # 3. The base, the initial adapter, and both trained ones.
    recomputed: dict[str, Any] = {"evaluations": {}, "first": {}, "margins": {}}
    with torch.no_grad():
        with model.disable_adapter():
            recomputed["evaluations"]["base"] = _tokens(model, sample)
            recomputed["first"]["base"] = _mean(_tokens(model, first_batch)["losses"])
            recomputed["margins"]["before"] = _margins(model, generations, "before")
        model.set_adapter("initial")
        recomputed["first"]["initial"] = _mean(_tokens(model, first_batch)["losses"])
        for name in RUNS:
            model.set_adapter(name)
            recomputed["evaluations"][name] = _tokens(model, sample)
            if name == "true":
                recomputed["margins"]["after"] = _margins(model, generations, "after")
    return recomputed


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _tokens(model: Any, examples: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Return loss, entropy and hit of every supervised token, in the order of the examples."""
    import torch

    # 1. Batches of similar length, so that there is little padding.
    by_length = sorted(range(len(examples)), key=lambda i: len(examples[i]["ids"]))
    by_example: dict[int, Any] = {}
    for first in range(0, len(by_length), BATCH):
        group = by_length[first : first + BATCH]
        log_p = _log_probabilities(model, [examples[i] for i in group])
        by_example |= dict(zip(group, log_p, strict=True))

    # 2. Back in the order of the examples.
    columns: dict[str, list[float]] = {"losses": [], "entropies": [], "hits": []}
    for i, example in enumerate(examples):
        log_p = by_example[i]  # [S, V]
        targets = torch.tensor([label for label in example["labels"][1:] if label != -100])  # [S]
        columns["losses"] += (-log_p.gather(1, targets[:, None])[:, 0]).tolist()
        columns["entropies"] += (-(log_p.exp() * log_p).sum(1)).tolist()
        columns["hits"] += (log_p.argmax(1) == targets).float().tolist()
    return columns


def _log_probabilities(model: Any, examples: list[dict[str, Any]]) -> list[Any]:
    """Return per example [S, V]: log-probabilities at the positions before its supervised tokens.

    Padded on the right.
    """
    import torch

    # 1. Pad: ids and mask are [B, T].
    longest = max(len(e["ids"]) for e in examples)
    padded = []
    masks = []
    for e in examples:
        padding = longest - len(e["ids"])
        padded.append(e["ids"] + [0] * padding)
        masks.append([1] * len(e["ids"]) + [0] * padding)
    language_model = model.get_base_model()
    hidden = language_model.model(
        input_ids=torch.tensor(padded), attention_mask=torch.tensor(masks)
    ).last_hidden_state  # [B, T, d]

    # 2. The head, at the positions that predict a supervised token.
    log_probabilities = []
    for row, e in enumerate(examples):
        positions = [t for t, label in enumerate(e["labels"][1:]) if label != -100]
        logits = language_model.lm_head(hidden[row, positions])  # [S, V]
        log_probabilities.append(logits.float().log_softmax(-1))
    return log_probabilities


def _margins(model: Any, generations: list[dict[str, Any]], when: str) -> list[float]:
    """Return log p(most likely) − log p(generated) of each generated token.

    It is 0 everywhere if decoding was greedy.
    """
    examples = []
    for generation in generations:
        prompt, answer = generation["prompt"], generation[when]
        if answer:
            labels = [-100] * len(prompt) + answer
            examples.append({"ids": prompt + answer, "labels": labels})
    margins: list[float] = []
    for example, log_p in zip(examples, _log_probabilities(model, examples), strict=True):
        answer = [label for label in example["labels"] if label != -100]
        for row, token in zip(log_p, answer, strict=True):  # row: [V]
            margins.append(float(row.max() - row[token]))
    return margins


def decoded() -> dict[str, Any]:
    """Return the texts of the stored ids, by the base model's tokenizer.

    train, control, evaluation -> [(prompt, answer)] of each example; "generations" -> [(before,
    after)] of each.
    """
    files = (*(f"artifacts/{name}.jsonl" for name in SETS), GENERATIONS)
    return dict(cached("qlora texts", files, _decoded))


def _decoded() -> dict[str, Any]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(outputs.inputs()["smollm2-135m"] / "tokenizer.json"))

    def text(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True))

    texts: dict[str, Any] = {}
    for name in SETS:
        texts[name] = []
        for row in rows(name):
            first = row["labels"].count(-100)  # of the answer's tokens
            texts[name].append((text(row["ids"][:first]), text(row["ids"][first:])))
    texts["generations"] = []
    for generation in outputs.read_json(GENERATIONS):
        texts["generations"].append((text(generation["before"]), text(generation["after"])))
    return texts


def quantisation() -> dict[str, Any]:
    """Return what bitsandbytes makes of the sampled layers and of a Gaussian matrix.

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
    """Return a matrix's errors in NF4 and FP4 (double quantisation), its bytes, values per block.

    The errors are relative.
    """
    import numpy as np
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    entry: dict[str, float] = {}
    for kind in ("nf4", "fp4"):
        packed, state = quantize_4bit(
            weight, blocksize=64, compress_statistics=True, quant_type=kind
        )
        entry[kind] = float((dequantize_4bit(packed, state) - weight).norm() / weight.norm())
        if kind == "nf4":
            entry["bytes"] = packed.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
    blocks = np.sort(weight.numpy().reshape(-1, 32), axis=1)  # [blocks, 32], each in order
    entry["distinct"] = float((np.diff(blocks, axis=1) > 0).sum(1).mean() + 1)
    entry["expected_bytes"] = nf4_bytes(weight.numel())
    return entry
