"""What the gates of sweeps share: stored trials, and what each of them must satisfy.

A trial lies in artifacts/trials/<name>/ of the judged outputs, or of an earlier feature among
the inputs. The checks here are cheap and made for every trial (`faults`); what needs the model
is in gates/shared/trials_model.py.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gates.shared import outputs
from gates.shared.stored import cached, header, supervised

FIELDS = (
    "loss",
    "token_accuracy",
    "entropy",
    "grad_norm",
    "learning_rate",
    "supervised_tokens",
    "total_tokens",
)
FILES = (
    "trial.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "steps.safetensors",
    "evaluation.safetensors",
)
PARTS = ("losses", "entropies", "hits", "example_ids")
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


# Where trials are


def artifacts(feature: str | None = None) -> Path:
    """Give the artifacts folder of the judged outputs, or of a feature among the inputs."""
    return (outputs.inputs()[feature] if feature else outputs.out()) / "artifacts"


def folder(name: str, features: Iterable[str] = ()) -> Path:
    """Give the folder of a trial (or of "base").

    That of the judged outputs, else of the first feature that has it.
    """
    for place in (artifacts(), *(artifacts(feature) for feature in features)):
        if (place / "trials" / name).is_dir():
            return place / "trials" / name
    msg = f"trial {name} is neither in the outputs nor in {', '.join(features) or 'an input'}"
    raise AssertionError(msg)


def own(features: Iterable[str] = ()) -> list[str]:
    """Give the names of the trials in the judged outputs, the base's evaluation left out."""
    place = artifacts() / "trials"
    return (
        sorted(path.name for path in place.iterdir() if path.name != "base")
        if place.is_dir()
        else []
    )


def files(names: Iterable[str], parts: Sequence[str] = FILES) -> list[str]:
    """Give the paths below the outputs that `cached` must know: those of `names` stored there."""
    mine = {*own(), "base"}
    return [f"artifacts/trials/{name}/{part}" for name in names if name in mine for part in parts]


def name_of(trial: dict[str, Any]) -> str:
    """Give the name that says what a trial is."""
    t, lora = trial["training"], trial["lora"]
    scale = "rsa" if lora["use_rslora"] else "a"
    parts = [
        f"r{lora['r']}",
        f"{scale}{lora['lora_alpha']:g}",
        f"lr{t['learning_rate']:g}",
        f"b{t['batch_size']}",
    ]
    parts += [
        f"s{t['steps']}",
        f"n{trial['examples']}",
        *(["shuffled"] if trial["shuffled"] else []),
    ]
    return "-".join([*parts, f"seed{trial['seed']}"])


# What was stored


def description(name: str, features: Iterable[str] = ()) -> dict[str, Any]:
    """Give the parsed trial.json."""
    found: dict[str, Any] = json.loads((folder(name, features) / "trial.json").read_text("utf-8"))
    return found


def trial(name: str, features: Iterable[str] = ()) -> dict[str, Any]:
    """Give the description of a trial: seed, training, lora, examples, shuffled, curve_every."""
    found: dict[str, Any] = description(name, features)["trial"]
    return found


def rows(kind: str, features: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Give the examples of the frozen set `kind` (train, evaluation).

    Those of the outputs, else of the first feature.
    """
    mine = artifacts() / f"{kind}.jsonl"
    path = mine if mine.is_file() or not features else artifacts(features[0]) / f"{kind}.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def load(name: str, part: str, features: Iterable[str] = ()) -> dict[str, Any]:
    """Give the arrays of PART.safetensors (steps, evaluation) of a trial.

    One that is not finite is refused.
    """
    import numpy as np
    from safetensors.numpy import load_file

    found: dict[str, Any] = load_file(folder(name, features) / f"{part}.safetensors")
    for key, array in found.items():
        assert np.isfinite(array).all(), f"{name}/{part}: {key} holds a value that is not finite"
    return found


def order(size: int, of: dict[str, Any]) -> list[int]:
    """Give which examples of the training pool a trial uses, in order."""
    import torch

    drawn: list[int] = torch.randperm(
        size, generator=torch.Generator().manual_seed(of["seed"])
    ).tolist()
    return drawn[: of["examples"]]


def used(of: dict[str, Any], pool: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the examples of a trial, in order, as {"ids", "labels"}.

    With `shuffled` after Sattolo's random cycle.
    """
    import random

    chosen = [pool[i] for i in order(len(pool), of)]
    if not of["shuffled"]:
        return chosen
    places, draw = list(range(len(chosen))), random.Random(of["seed"])
    for i in range(len(places) - 1, 0, -1):
        j = draw.randrange(i)
        places[i], places[j] = places[j], places[i]
    mixed = []
    for example, place in zip(chosen, places, strict=True):
        prompt = example["ids"][: example["labels"].count(-100)]
        answer = [label for label in chosen[place]["labels"] if label != -100]
        mixed.append({"ids": prompt + answer, "labels": [-100] * len(prompt) + answer})
    return mixed


def rate(step: int, training: dict[str, Any]) -> float:
    """Give the learning rate of a step: a linear rise, then the schedule."""
    peak, warm, steps = training["learning_rate"], training["warmup_steps"], training["steps"]
    if step < warm:
        return float(peak * (step + 1) / warm)
    done = (step - warm) / max(1, steps - warm)
    factor = {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}
    return float(peak * factor[training["schedule"]])


# What every trial must satisfy


def faults(names: Sequence[str], features: Sequence[str] = ()) -> dict[str, list[str]]:
    """Give name -> what is wrong with its description, its adapter's shapes, its curves.

    For all trials at once.
    """
    frozen = [
        f"artifacts/{kind}.jsonl"
        for kind in ("train", "evaluation")
        if (artifacts() / f"{kind}.jsonl").is_file()
    ]
    key = hashlib.sha256(" ".join(names).encode()).hexdigest()[:16]
    read = (*files(names), *frozen)

    def compute() -> dict[str, list[str]]:
        return {name: list(_faults(name, features)) for name in names}

    return dict(cached(f"trial faults {key}", read, compute))


def _faults(name: str, features: Sequence[str]) -> Iterable[str]:
    told = description(name, features)
    yield from _of_description(name, told, features)
    yield from _of_adapter(name, told["trial"], features)
    yield from _of_steps(name, told["trial"], features)
    yield from _of_evaluation(name, features)


def _of_description(name: str, told: dict[str, Any], features: Sequence[str]) -> Iterable[str]:
    if name_of(told["trial"]) != name:
        yield f"describes {name_of(told['trial'])}"
    stated = {key: value for key, value in told.items() if key != "identity"}
    if hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest() != told["identity"]:
        yield "its identity is not the digest of its description"
    model = outputs.inputs()[model_name()] / "model.safetensors"
    if told["model_sha256"] != cached("trials' base model", (), lambda: outputs.digest_of(model)):
        yield "was made with another model than the one given"
    for kind in ("train", "evaluation"):
        mine = artifacts() / f"{kind}.jsonl"
        path = mine if mine.is_file() or not features else artifacts(features[0]) / f"{kind}.jsonl"
        if told[f"{kind}_sha256"] != outputs.digest_of(path):
            yield f"was made with another set {kind}.jsonl"


def _of_adapter(name: str, of: dict[str, Any], features: Sequence[str]) -> Iterable[str]:
    place, lora = folder(name, features), of["lora"]
    wanted: dict[str, list[int]] = {}
    for linear, (width_out, width_in) in linear_shapes().items():
        module = "base_model.model." + linear.removesuffix(".weight")
        wanted[f"{module}.lora_A.weight"] = [lora["r"], width_in]
        wanted[f"{module}.lora_B.weight"] = [width_out, lora["r"]]
    found = {
        key: entry["shape"] for key, entry in header(place / "adapter_model.safetensors").items()
    }
    if found != wanted:
        yield f"its adapter has other shapes than rank {lora['r']} on all linear layers gives"
    config = json.loads((place / "adapter_config.json").read_text("utf-8"))
    for field in ("r", "lora_alpha", "use_rslora", "lora_dropout"):
        if config[field] != lora[field]:
            yield f"adapter_config.json says {field} {config[field]}, its description {lora[field]}"
    if (
        config["rank_pattern"]
        or config["alpha_pattern"]
        or config["use_dora"]
        or config["bias"] != "none"
    ):
        yield "adapter_config.json asks for more than LoRA"
    if set(config["target_modules"]) != set(LINEARS):
        yield f"adapter_config.json targets {config['target_modules']}"


def _of_steps(name: str, of: dict[str, Any], features: Sequence[str]) -> Iterable[str]:
    found = {key: array.tolist() for key, array in load(name, "steps", features).items()}
    training, examples = of["training"], used(of, rows("train", features))
    count, size = training["steps"], training["batch_size"]
    if any(len(found[field]) != count for field in (*FIELDS, "seconds")):
        yield f"its steps are not {count}"
        return
    for step in range(count):
        batch = [examples[i % len(examples)] for i in range(step * size, (step + 1) * size)]
        if found["supervised_tokens"][step] != sum(supervised(row) for row in batch):
            yield (
                f"step {step} counts {found['supervised_tokens'][step]} supervised tokens, the "
                "data say otherwise"
            )
        if found["total_tokens"][step] != sum(len(row["ids"]) for row in batch):
            yield f"step {step} counts {found['total_tokens'][step]} tokens, the data say otherwise"
        if not math.isclose(
            found["learning_rate"][step], rate(step, training), rel_tol=1e-9, abs_tol=1e-15
        ):
            yield (
                f"step {step} had the rate {found['learning_rate'][step]}, the schedule says "
                f"{rate(step, training)}"
            )
        hits = found["token_accuracy"][step] * found["supervised_tokens"][step]
        if not (
            0 <= found["token_accuracy"][step] <= 1
            and math.isclose(hits, round(hits), abs_tol=1e-6)
        ):
            yield (
                f"step {step}: accuracy {found['token_accuracy'][step]} is no share of whole tokens"
            )
    if not all(loss > 0 for loss in found["loss"]) or not all(
        norm > 0 for norm in found["grad_norm"]
    ):
        yield "a loss or a gradient norm is not above 0"
    if not all(entropy >= 0 for entropy in found["entropy"]) or not all(
        seconds > 0 for seconds in found["seconds"]
    ):
        yield "an entropy is negative or a step took no time"
    every = of["curve_every"]
    wanted = [d for d in range(1, count) if d == 1 or d % every == 0] if every else []
    if [int(done) for done, _ in found["curve"]] != wanted:
        yield (
            f"its curve has points at {[int(done) for done, _ in found['curve']]}, wanted {wanted}"
        )


def _of_evaluation(name: str, features: Sequence[str]) -> Iterable[str]:
    found, evaluation = load(name, "evaluation", features), rows("evaluation", features)
    example_ids = [i for i, row in enumerate(evaluation) for _ in range(supervised(row))]
    if found["example_ids"].tolist() != example_ids:
        yield "its evaluation does not cover the supervised tokens of the frozen set"
    if any(len(found[part]) != len(example_ids) for part in PARTS):
        yield "its evaluation's arrays differ in length"


def linear_shapes() -> dict[str, list[int]]:
    """Give name -> [out, in] of the base model's linear layers, in the order of the layers."""
    found = header(outputs.inputs()[model_name()] / "model.safetensors")
    names = [name for name in found if name.split(".")[-2] in LINEARS]
    names.sort(key=lambda name: (int(name.split(".")[2]), LINEARS.index(name.split(".")[-2])))
    return {name: found[name]["shape"] for name in names}


def model_name() -> str:
    name: str = outputs.result()["environment"]["config"]["model"]
    return name
