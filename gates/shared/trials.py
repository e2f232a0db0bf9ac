"""What the gates of sweeps share: stored trials, and what each of them must satisfy.

A trial is in artifacts/trials/<name>/ of the judged outputs, or of an earlier feature among the
inputs. The checks here are cheap and made for every trial (`faults`); those that need the model
are in gates/shared/trials_model.py.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gates.shared import outputs
from gates.shared.stored import cached, header, read_arrays, supervised

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


#### where trials are


def artifacts(feature: str | None = None) -> Path:
    """Return the artifacts folder of the judged outputs, or of a feature among the inputs."""
    parent = outputs.inputs()[feature] if feature else outputs.out()
    return parent / "artifacts"


def folder(name: str, features: Iterable[str] = ()) -> Path:
    """Return the folder of a trial (or of "base").

    That of the judged outputs, else of the first feature that has it.
    """
    for parent in (artifacts(), *(artifacts(feature) for feature in features)):
        if (parent / "trials" / name).is_dir():
            return parent / "trials" / name
    msg = f"trial {name} is neither in the outputs nor in {', '.join(features) or 'an input'}"
    raise AssertionError(msg)


def own(features: Iterable[str] = ()) -> list[str]:
    """Return the names of the trials in the judged outputs, the base's evaluation left out."""
    parent = artifacts() / "trials"
    if not parent.is_dir():
        return []
    return sorted(path.name for path in parent.iterdir() if path.name != "base")


def files(names: Iterable[str], parts: Sequence[str] = FILES) -> list[str]:
    """Return the paths below the outputs that `cached` must know: those of `names` stored there."""
    stored = {*own(), "base"}
    paths = []
    for name in names:
        if name in stored:
            paths += [f"artifacts/trials/{name}/{part}" for part in parts]
    return paths


def frozen_files(*kinds: str) -> list[str]:
    """Return the paths below the outputs of the frozen sets `kinds` that are stored there."""
    return [
        f"artifacts/{kind}.jsonl" for kind in kinds if (artifacts() / f"{kind}.jsonl").is_file()
    ]


def frozen_path(kind: str, features: Sequence[str] = ()) -> Path:
    """Return the file of a frozen set (train, evaluation): of the outputs, else of a feature.

    Of several features it is that of the first.
    """
    path = artifacts() / f"{kind}.jsonl"
    if path.is_file() or not features:
        return path
    return artifacts(features[0]) / f"{kind}.jsonl"


def name_of(trial: dict[str, Any]) -> str:
    """Return the name that says what a trial is."""
    training = trial["training"]
    lora = trial["lora"]
    scale = "rsa" if lora["use_rslora"] else "a"
    parts = [
        f"r{lora['r']}",
        f"{scale}{lora['lora_alpha']:g}",
        f"lr{training['learning_rate']:g}",
        f"b{training['batch_size']}",
        f"s{training['steps']}",
        f"n{trial['examples']}",
    ]
    if trial["shuffled"]:
        parts.append("shuffled")
    return "-".join([*parts, f"seed{trial['seed']}"])


#### what was stored


def description(name: str, features: Iterable[str] = ()) -> dict[str, Any]:
    """Return the parsed trial.json."""
    path = folder(name, features) / "trial.json"
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return document


def trial(name: str, features: Iterable[str] = ()) -> dict[str, Any]:
    """Return the settings of a trial: seed, training, lora, examples, shuffled, curve_every."""
    settings: dict[str, Any] = description(name, features)["trial"]
    return settings


def rows(kind: str, features: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the examples of the frozen set `kind` (train, evaluation); see `frozen_path`."""
    lines = frozen_path(kind, features).read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def load(name: str, part: str, features: Iterable[str] = ()) -> dict[str, Any]:
    """Return the arrays of PART.safetensors (steps, evaluation) of a trial.

    One that is not finite is refused.
    """
    return read_arrays(folder(name, features) / f"{part}.safetensors")


def order(size: int, of: dict[str, Any]) -> list[int]:
    """Return which examples of the training pool a trial uses, in order."""
    import torch

    generator = torch.Generator().manual_seed(of["seed"])
    permutation: list[int] = torch.randperm(size, generator=generator).tolist()
    return permutation[: of["examples"]]


def used(of: dict[str, Any], pool: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the examples of a trial, in order, as {"ids", "labels"}.

    With `shuffled`, each prompt gets the answer of another example, by Sattolo's random cycle.
    """
    import random

    chosen = [pool[i] for i in order(len(pool), of)]
    if not of["shuffled"]:
        return chosen

    # 1. The cycle: answers[i] is the example whose answer prompt i gets, never i itself.
    answers = list(range(len(chosen)))
    draw = random.Random(of["seed"])
    for i in range(len(answers) - 1, 0, -1):
        j = draw.randrange(i)
        answers[i], answers[j] = answers[j], answers[i]

    # 2. The examples. Labels of a prompt are -100.
    mixed = []
    for example, answer_of in zip(chosen, answers, strict=True):
        prompt = example["ids"][: example["labels"].count(-100)]
        answer = [label for label in chosen[answer_of]["labels"] if label != -100]
        mixed.append({"ids": prompt + answer, "labels": [-100] * len(prompt) + answer})
    return mixed


def rate(step: int, training: dict[str, Any]) -> float:
    """Return the learning rate of a step: a linear rise, then the schedule."""
    peak = training["learning_rate"]
    warmup = training["warmup_steps"]
    if step < warmup:
        return float(peak * (step + 1) / warmup)
    done = (step - warmup) / max(1, training["steps"] - warmup)
    factor = {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}
    return float(peak * factor[training["schedule"]])


#### what every trial must satisfy


def faults(names: Sequence[str], features: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return name -> what is wrong with its description, its adapter's shapes, its curves.

    For all trials at once.
    """
    key = hashlib.sha256(" ".join(names).encode()).hexdigest()[:16]
    read = (*files(names), *frozen_files("train", "evaluation"))

    def compute() -> dict[str, list[str]]:
        return {name: list(_faults(name, features)) for name in names}

    return dict(cached(f"trial faults {key}", read, compute))


def _faults(name: str, features: Sequence[str]) -> Iterable[str]:
    document = description(name, features)
    yield from _of_description(name, document, features)
    yield from _of_adapter(name, document["trial"], features)
    yield from _of_steps(name, document["trial"], features)
    yield from _of_evaluation(name, features)


def _of_description(name: str, document: dict[str, Any], features: Sequence[str]) -> Iterable[str]:
    if name_of(document["trial"]) != name:
        yield f"describes {name_of(document['trial'])}"
    fields = {key: value for key, value in document.items() if key != "identity"}
    identity = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    if identity != document["identity"]:
        yield "its identity is not the digest of its description"
    model = outputs.inputs()[model_name()] / "model.safetensors"
    digest = cached("trials' base model", (), lambda: outputs.digest_of(model))
    if document["model_sha256"] != digest:
        yield "was made with another model than the one given"
    for kind in ("train", "evaluation"):
        if document[f"{kind}_sha256"] != outputs.digest_of(frozen_path(kind, features)):
            yield f"was made with another set {kind}.jsonl"


def _of_adapter(name: str, of: dict[str, Any], features: Sequence[str]) -> Iterable[str]:
    trial_folder = folder(name, features)
    lora = of["lora"]

    # 1. Shapes: A is [r, in], B is [out, r].
    expected: dict[str, list[int]] = {}
    for linear, (width_out, width_in) in linear_shapes().items():
        module = "base_model.model." + linear.removesuffix(".weight")
        expected[f"{module}.lora_A.weight"] = [lora["r"], width_in]
        expected[f"{module}.lora_B.weight"] = [width_out, lora["r"]]
    entries = header(trial_folder / "adapter_model.safetensors")
    actual = {key: entry["shape"] for key, entry in entries.items()}
    if actual != expected:
        yield f"its adapter has other shapes than rank {lora['r']} on all linear layers gives"

    # 2. PEFT's config: the trial's settings and nothing beyond LoRA.
    config = json.loads((trial_folder / "adapter_config.json").read_text("utf-8"))
    for field in ("r", "lora_alpha", "use_rslora", "lora_dropout"):
        if config[field] != lora[field]:
            yield f"adapter_config.json says {field} {config[field]}, its description {lora[field]}"
    has_patterns = config["rank_pattern"] or config["alpha_pattern"]
    if has_patterns or config["use_dora"] or config["bias"] != "none":
        yield "adapter_config.json asks for more than LoRA"
    if set(config["target_modules"]) != set(LINEARS):
        yield f"adapter_config.json targets {config['target_modules']}"


def _of_steps(name: str, of: dict[str, Any], features: Sequence[str]) -> Iterable[str]:
    steps = {key: array.tolist() for key, array in load(name, "steps", features).items()}
    training = of["training"]
    count = training["steps"]
    if any(len(steps[field]) != count for field in (*FIELDS, "seconds")):
        yield f"its steps are not {count}"
        return
    examples = used(of, rows("train", features))
    size = training["batch_size"]
    for step in range(count):
        batch = [examples[i % len(examples)] for i in range(step * size, (step + 1) * size)]
        fields = {field: steps[field][step] for field in FIELDS}
        yield from _of_step(step, fields, batch, training)
    yield from _of_signs(steps)

    # The curve is evaluated after the first step and then every `curve_every` steps.
    every = of["curve_every"]
    expected = []
    if every:
        expected = [done for done in range(1, count) if done == 1 or done % every == 0]
    actual = [int(done) for done, _ in steps["curve"]]
    if actual != expected:
        yield f"its curve has points at {actual}; expected {expected}"


def _of_step(
    step: int, fields: dict[str, Any], batch: list[dict[str, Any]], training: dict[str, Any]
) -> Iterable[str]:
    # 1. The tokens are those of the step's examples.
    supervised_tokens = fields["supervised_tokens"]
    if supervised_tokens != sum(supervised(row) for row in batch):
        yield f"step {step} counts {supervised_tokens} supervised tokens, the data say otherwise"
    if fields["total_tokens"] != sum(len(row["ids"]) for row in batch):
        yield f"step {step} counts {fields['total_tokens']} tokens, the data say otherwise"

    # 2. The learning rate is that of the schedule.
    expected = rate(step, training)
    if not math.isclose(fields["learning_rate"], expected, rel_tol=1e-9, abs_tol=1e-15):
        yield f"step {step} had the rate {fields['learning_rate']}, the schedule says {expected}"

    # 3. The accuracy is a share of whole tokens.
    accuracy = fields["token_accuracy"]
    hits = accuracy * supervised_tokens
    if not (0 <= accuracy <= 1 and math.isclose(hits, round(hits), abs_tol=1e-6)):
        yield f"step {step}: accuracy {accuracy} is no share of whole tokens"


def _of_signs(steps: dict[str, list[Any]]) -> Iterable[str]:
    if not all(value > 0 for value in (*steps["loss"], *steps["grad_norm"])):
        yield "a loss or a gradient norm is not above 0"
    is_possible = all(entropy >= 0 for entropy in steps["entropy"])
    if not is_possible or not all(seconds > 0 for seconds in steps["seconds"]):
        yield "an entropy is negative or a step took no time"


def _of_evaluation(name: str, features: Sequence[str]) -> Iterable[str]:
    evaluation = load(name, "evaluation", features)
    example_ids: list[int] = []  # of each supervised token
    for i, row in enumerate(rows("evaluation", features)):
        example_ids += [i] * supervised(row)
    if evaluation["example_ids"].tolist() != example_ids:
        yield "its evaluation does not cover the supervised tokens of the frozen set"
    if any(len(evaluation[part]) != len(example_ids) for part in PARTS):
        yield "its evaluation's arrays differ in length"


def linear_shapes() -> dict[str, list[int]]:
    """Return name -> [out, in] of the base model's linear layers, in the order of the layers."""

    def layer_and_kind(name: str) -> tuple[int, int]:
        parts = name.split(".")  # model.layers.<layer>.<block>.<kind>.weight
        return int(parts[2]), LINEARS.index(parts[-2])

    entries = header(outputs.inputs()[model_name()] / "model.safetensors")
    names = [name for name in entries if name.split(".")[-2] in LINEARS]
    return {name: entries[name]["shape"] for name in sorted(names, key=layer_and_kind)}


def model_name() -> str:
    name: str = outputs.result()["environment"]["config"]["model"]
    return name


def assert_no_faults(names: Sequence[str], features: Sequence[str] = ()) -> None:
    """Check that every one of these trials is whole."""
    bad = {name: problems for name, problems in faults(names, features).items() if problems}
    assert not bad, f"{len(bad)} trials have faults, such as {next(iter(bad.items()))}"


def assert_one_sweep_context(
    names: Sequence[str], features: Sequence[str], config: Mapping[str, Any]
) -> None:
    """Check that trials differ in nothing but themselves, and ran as the config says."""
    contexts = []
    for name in names:
        context = description(name, features)
        del context["identity"], context["trial"]
        contexts.append(context)
    first = contexts[0]
    assert all(context == first for context in contexts), "trials have different sweep contexts"
    for key in ("dtype", "device", "threads"):
        assert first[key] == config[key], f"{key}: got {first[key]}; expected {config[key]}"
    assert outputs.result()["environment"]["sweep_context"] == first
