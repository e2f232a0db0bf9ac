"""The stored trials of the inputs, recomputed: losses, spectra of updates, answers."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from gates.shared import outputs, trials
from gates.shared.stored import cached, config, read_arrays
from gates.shared.trials_model import base_model, without_warnings

FEATURES = ("FEAT-005", "FEAT-006", "FEAT-007")
SCORED = "FEAT-008"
ANSWERS = "artifacts/answers.json"
ANSWERED = 4  # trials whose answers are recomputed, beside the base's
TIE = 2e-2  # logits: what another order of float32, or of rows in a batch, may exchange


def given_features() -> list[str]:
    """Return the features with trials that were given."""
    return [name for name in FEATURES if name in outputs.inputs()]


@cache
def folders() -> dict[str, tuple[str, Path]]:
    """Return trial -> (feature, folder) of every stored trial, of the first feature that has it."""
    stored: dict[str, tuple[str, Path]] = {}
    for feature in given_features():
        for path in sorted((trials.artifacts(feature) / "trials").glob("*/trial.json")):
            if path.parent.name != "base":
                stored.setdefault(path.parent.name, (feature, path.parent))
    return stored


def recomputed() -> dict[str, dict[str, Any]]:
    """Return trial -> what the explorer shows of it, but for its answers."""
    return dict(cached("site trials", (), _recompute))


def base_held_out() -> float | None:
    """Return the base's mean held-out loss in nats/token; None without trials."""
    features = given_features()
    if not folders():
        return None
    path = trials.artifacts(features[0]) / "trials/base/evaluation.safetensors"
    return float(read_arrays(path)["losses"].mean(dtype="float64"))


def _recompute() -> dict[str, dict[str, Any]]:
    import torch

    # One thread: on these small matrices a second one waits more than it works.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    forgotten = _forgetting()
    recomputed = {
        name: _one(name, feature, folder) | {"forgetting": forgotten.get(name)}
        for name, (feature, folder) in folders().items()
    }
    torch.set_num_threads(threads)
    return recomputed


def _one(name: str, feature: str, folder: Path) -> dict[str, Any]:
    # 1. What it was.
    text = (folder / "trial.json").read_bytes()
    document = json.loads(text)
    of = document["trial"]
    training, lora = of["training"], of["lora"]

    # 2. Its losses.
    steps = read_arrays(folder / "steps.safetensors")
    evaluation = read_arrays(folder / "evaluation.safetensors")
    return {
        "name": name,
        "cell": name.rpartition("-seed")[0],
        "feature": feature,
        "identity": document["identity"],
        "file": f"artifacts/trials/{name}/trial.json",
        "sha256": hashlib.sha256(text).hexdigest(),
        "batch": training["batch_size"],
        "steps": training["steps"],
        "examples": of["examples"],
        "shuffled": of["shuffled"],
        "rank": lora["r"],
        "alpha": lora["lora_alpha"],
        "rslora": lora["use_rslora"],
        "rate": training["learning_rate"],
        "seed": of["seed"],
        "losses": steps["loss"].tolist(),
        "curve": steps["curve"].tolist(),
        "held_out": float(evaluation["losses"].mean(dtype="float64")),
        "accuracy": float(evaluation["hits"].mean(dtype="float64")),
        **_of_update(folder, lora),
    }


def _scale(lora: Mapping[str, Any]) -> float:
    """Return s of ΔW = s·B·A."""
    divisor = math.sqrt(lora["r"]) if lora["use_rslora"] else lora["r"]
    return float(lora["lora_alpha"] / divisor)


def _factors(folder: Path) -> dict[str, tuple[Any, Any]]:
    """Return layer -> B [m, r] and A [r, n] of a stored adapter, by the layer's name."""
    tensors = read_arrays(folder / "adapter_model.safetensors")
    factors = {}
    for name, A in tensors.items():
        if name.endswith(".lora_A.weight"):
            layer = name.removesuffix(".lora_A.weight")
            B = tensors[f"{layer}.lora_B.weight"]
            factors[layer.removeprefix("base_model.model.")] = (B, A)
    return factors


def _of_update(folder: Path, lora: Mapping[str, Any]) -> dict[str, Any]:
    """Return spectra, stable rank and norm of an update, from the Gram matrices of its factors.

    The squared singular values of BA are the eigenvalues of √(AAᵀ)·BᵀB·√(AAᵀ), which is [r, r].
    """
    import torch

    by_kind: dict[str, list[Any]] = {}
    stable_ranks, squares = [], 0.0
    for layer, (B, A) in _factors(folder).items():
        wide_b, wide_a = torch.from_numpy(B).double(), torch.from_numpy(A).double()
        values, vectors = torch.linalg.eigh(wide_a @ wide_a.T)
        root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T  # [r, r]
        energies = torch.linalg.eigvalsh(root @ (wide_b.T @ wide_b) @ root).flip(0).clamp(min=0)
        energies = energies[: min(B.shape[0], A.shape[1])] * _scale(lora) ** 2
        by_kind.setdefault(layer.rpartition(".")[2], []).append(energies.sqrt())
        stable_ranks.append(float(energies.sum() / energies.max()))
        squares += float(energies.sum())
    spectra = {kind: torch.stack(rows).mean(0).tolist() for kind, rows in by_kind.items()}
    return {
        "spectra": spectra,
        "stable_rank": sum(stable_ranks) / len(stable_ranks),
        "norm": math.sqrt(squares),
    }


def _forgetting() -> dict[str, list[float]]:
    """Return trial -> margin lost, its standard error, KL, of those that were scored."""
    if SCORED not in outputs.inputs():
        return {}
    folder = outputs.inputs()[SCORED]
    models = json.loads((folder / "artifacts/models.json").read_text("utf-8"))["models"]
    result = json.loads((folder / "result.json").read_text("utf-8"))
    tables = {table["title"]: table for table in result["tables"]}
    columns, scored = tables["Adapters"]["columns"], {}
    chosen = [
        columns.index(name) for name in ("forgetting (nats/byte)", "stderr", "KL (nats/token)")
    ]
    for row in tables["Adapters"]["rows"]:
        scored[models[row[0]]["trial"]] = [row[i] for i in chosen]
    return scored


#### answers


def answers() -> dict[str, Any]:
    """Return the stored token ids: base -> one list per prompt, trials -> the same by name."""
    document: dict[str, Any] = outputs.read_json(ANSWERS)
    return document


@cache
def prompts() -> list[dict[str, Any]]:
    """Return the held-out examples that were answered."""
    features = given_features()
    if not folders():
        return []
    return trials.rows("evaluation", features)[: config()["answers"]]


def texts() -> dict[str, list[str]]:
    """Return trial (or "base") -> the text of each answer."""
    return dict(cached("site answers as texts", [ANSWERS], _texts))


def _texts() -> dict[str, list[str]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(outputs.inputs()[trials.model_name()] / "tokenizer.json"))
    stored = answers()
    decoded = {}
    for name, of_trial in {"base": stored["base"], **stored["trials"]}.items():
        decoded[name] = [
            tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in of_trial
        ]
    return decoded


def drawn() -> list[str]:
    """Return the trials whose answers are recomputed, drawn by the nonce."""
    names = sorted(folders())
    return sorted(outputs.rng().sample(names, min(ANSWERED, len(names))))


def answer_faults() -> dict[str, list[str]]:
    """Return name -> how its stored answers differ from greedy ones, of the base and drawn trials.

    An answer is fed to the model as a whole: at each place the next token must be the most likely
    one, up to TIE.
    """
    return dict(cached("site answers recomputed", [ANSWERS], lambda: without_warnings(_faults)))


def _faults() -> dict[str, list[str]]:
    import torch

    if not folders():
        return {}
    model = base_model().eval()
    end = model.config.eos_token_id
    parameters = dict(model.named_parameters())
    stored = answers()
    faults = {}
    for name in ["base", *drawn()]:
        kept = {}
        of_trial = stored["base"] if name == "base" else stored["trials"][name]
        with torch.no_grad():
            # 1. The adapter becomes part of the weights, and is taken out again afterwards.
            if name != "base":
                folder = folders()[name][1]
                scale = _scale(json.loads((folder / "trial.json").read_text())["trial"]["lora"])
                for layer, (B, A) in _factors(folder).items():
                    weight = parameters[f"{layer}.weight"]
                    kept[layer] = weight.clone()
                    weight += scale * torch.from_numpy(B) @ torch.from_numpy(A)
            # 2. Every answer.
            faults[name] = _faults_of_answers(model, of_trial, end)
            for layer, weight in kept.items():
                parameters[f"{layer}.weight"].copy_(weight)
    return faults


def _faults_of_answers(model: Any, answers: Sequence[Sequence[int]], end: int) -> list[str]:
    """Return how one model's answers to all prompts differ from greedy ones."""
    import torch

    # 1. Each ends at the end of the turn, or where it is cut.
    longest = config()["max_new_tokens"]
    faults = []
    for answer in answers:
        ends = answer[-1] == end and list(answer).count(end) == 1
        is_cut = len(answer) == longest and end not in answer
        if not ends and not is_cut:
            faults.append(f"{answer} neither ends the turn nor has {longest} tokens")

    # 2. Prompts with their answers, padded on the right: no token looks at what follows it.
    starts = [example["labels"].count(-100) for example in prompts()]
    rows = []
    for example, start, answer in zip(prompts(), starts, answers, strict=True):
        rows.append([*example["ids"][:start], *answer])
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])  # [prompts, T]
    hidden = model.model(input_ids=ids).last_hidden_state  # [prompts, T, d]

    # 3. Each token of an answer is the most likely one after those before it.
    for row, start, states in zip(rows, starts, hidden, strict=True):
        scores = model.lm_head(states[start - 1 : len(row) - 1]).float()  # [answer, V]
        gaps = scores.max(1).values - scores[range(len(row) - start), row[start:]]
        faults += [f"a token is {gap:.3f} below the best" for gap in gaps.tolist() if gap > TIE]
    return faults
