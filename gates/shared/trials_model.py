"""A sample of stored trials, drawn by the nonce and recomputed from the base model.

Code of its own: padded batches in place of packed ones, PEFT's own loading, torch's plain AdamW.
`evaluate` evaluates trials from their adapters; `replay` repeats the first optimizer steps of one
from the seed's initial adapter, which only a run that was really made can agree with. torch and
peft are imported inside, so a warm cache never loads them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from gates.shared import outputs, trials
from gates.shared.stored import cached

T = TypeVar("T")

EXAMPLES = 24  # of the evaluation set, per trial that is evaluated
REPLAYED = 3  # optimizer steps of a trial that are repeated
BATCH = 24  # sequences of similar length at a time


def draw_trials(names: Sequence[str], count: int) -> list[str]:
    """Return `count` of the trials, drawn by the nonce, in order."""
    return sorted(outputs.rng().sample(sorted(names), min(count, len(names))))


def draw_examples(features: Sequence[str] = ()) -> list[int]:
    """Return the evaluation examples that the nonce draws."""
    count = len(trials.rows("evaluation", features))
    return sorted(outputs.rng().sample(range(count), min(EXAMPLES, count)))


def stored(
    name: str, part: str, examples: Sequence[int], features: Sequence[str] = ()
) -> list[float]:
    """Return the stored losses, entropies or hits of some examples' tokens, in order.

    They are those of trial `name` (or "base").
    """

    def compute() -> dict[str, list[float]]:
        evaluation = trials.load(name, "evaluation", features)
        example_ids = evaluation["example_ids"].tolist()
        by_example: dict[str, list[float]] = {}  # JSON has no integer keys
        for example, value in zip(example_ids, evaluation[part].tolist(), strict=True):
            by_example.setdefault(str(example), []).append(value)
        return by_example

    read = trials.files([name], ["evaluation.safetensors"])
    by_example = cached(f"trial tokens {name} {part}", read, compute)
    values = []
    for example in examples:
        values += by_example[str(example)]
    return values


def evaluate(
    names: Sequence[str], features: Sequence[str] = ()
) -> dict[str, dict[str, list[float]]]:
    """Return trial (or "base") -> losses, entropies, hits of the drawn examples.

    They come from the base model and the adapters.
    """
    read = (*trials.files(names), *trials.frozen_files("evaluation"))

    def compute() -> dict[str, dict[str, list[float]]]:
        return without_warnings(_evaluate, names, features)

    return dict(cached(f"trials evaluated {' '.join(names)}", read, compute))


def replay(name: str, features: Sequence[str] = ()) -> dict[str, list[float]]:
    """Return loss and grad_norm of a trial's first steps, from the seed's initial adapter."""
    read = (*trials.files([name]), *trials.frozen_files("train"))

    def compute() -> dict[str, list[float]]:
        return without_warnings(_replay, name, features)

    return dict(cached(f"trial replayed {name}", read, compute))


def without_warnings(compute: Callable[..., T], *arguments: Any) -> T:
    """Return `compute(*arguments)`; a gate run from here by hand makes warnings errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compute(*arguments)


def base_model() -> Any:
    """Return the base model in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        outputs.inputs()[trials.model_name()], dtype=torch.float32, device_map="cpu"
    )


def _evaluate(names: Sequence[str], features: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    import torch
    from peft import PeftModel

    evaluation = trials.rows("evaluation", features)
    examples = [evaluation[i] for i in draw_examples(features)]
    values: dict[str, dict[str, list[float]]] = {}
    base = base_model().eval()
    for name in names:
        model = base
        if name != "base":
            model = PeftModel.from_pretrained(base, trials.folder(name, features)).eval()
        with torch.no_grad():
            values[name] = token_values(model, examples)
        if name != "base":
            base = model.unload()
    return values


def token_values(model: Any, examples: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Return loss, entropy and hit of every supervised token, in the order of the examples."""
    # 1. Log-probabilities, in batches of similar length, so that there is little padding.
    by_length = sorted(range(len(examples)), key=lambda i: len(examples[i]["ids"]))
    log_p_of: dict[int, Any] = {}  # example -> [S, V]
    for first in range(0, len(by_length), BATCH):
        group = by_length[first : first + BATCH]
        log_ps = log_probabilities(model, [examples[i] for i in group])
        log_p_of.update(zip(group, log_ps, strict=True))

    # 2. The values of each token, in the order of the examples.
    columns: dict[str, list[float]] = {"losses": [], "entropies": [], "hits": []}
    for i, example in enumerate(examples):
        log_p = log_p_of[i]  # [S, V]
        targets = _targets(example)  # [S]
        columns["losses"] += (-log_p.gather(1, targets[:, None])[:, 0]).tolist()
        columns["entropies"] += (-(log_p.exp() * log_p).sum(1)).tolist()
        columns["hits"] += (log_p.argmax(1) == targets).float().tolist()
    return columns


def log_probabilities(model: Any, examples: Sequence[dict[str, Any]]) -> list[Any]:
    """Return per example [S, V]: log-probabilities at the positions before its supervised tokens.

    Padded on the right.
    """
    import torch

    longest = max(len(example["ids"]) for example in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)  # [B, T]
    mask = torch.zeros(len(examples), longest, dtype=torch.long)  # [B, T]
    for row, example in enumerate(examples):
        ids[row, : len(example["ids"])] = torch.tensor(example["ids"])
        mask[row, : len(example["ids"])] = 1
    language_model = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = language_model.model(input_ids=ids, attention_mask=mask).last_hidden_state  # [B, T, d]

    log_ps = []
    for row, example in enumerate(examples):
        # The output at position t predicts token t + 1.
        positions = [t for t, label in enumerate(example["labels"][1:]) if label != -100]
        logits = language_model.lm_head(hidden[row, positions]).float()  # [S, V]
        log_ps.append(logits.log_softmax(-1))
    return log_ps


def _targets(example: dict[str, Any]) -> Any:
    import torch

    return torch.tensor([label for label in example["labels"][1:] if label != -100])


def _replay(name: str, features: Sequence[str]) -> dict[str, list[float]]:
    import torch
    from peft import LoraConfig, get_peft_model

    # 1. The model as the trial began: the seed decides the adapter.
    of = trials.trial(name, features)
    training = of["training"]
    lora = LoraConfig(**of["lora"], target_modules=sorted(trials.LINEARS), task_type="CAUSAL_LM")
    torch.manual_seed(of["seed"])
    model = get_peft_model(base_model(), lora)
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, betas=tuple(training["betas"]), weight_decay=training["weight_decay"]
    )

    # 2. Its first steps.
    examples = trials.used(of, trials.rows("train", features))
    size = training["batch_size"]
    curves: dict[str, list[float]] = {"loss": [], "grad_norm": []}
    for step in range(min(REPLAYED, training["steps"])):
        batch = [examples[i % len(examples)] for i in range(step * size, (step + 1) * size)]
        optimizer.param_groups[0]["lr"] = trials.rate(step, training)
        optimizer.zero_grad()
        log_ps = []
        for example, log_p in zip(batch, log_probabilities(model, batch), strict=True):
            log_ps.append(log_p.gather(1, _targets(example)[:, None])[:, 0])  # [S]
        loss = -torch.cat(log_ps).mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, training["max_grad_norm"])
        optimizer.step()
        curves["loss"].append(float(loss))
        curves["grad_norm"].append(float(norm))
    return curves


def assert_agree(
    name: str,
    examples: Sequence[int],
    recomputed: dict[str, list[float]],
    features: Sequence[str] = (),
) -> None:
    """Check that stored and recomputed values of a trial's drawn tokens differ by float noise only.

    A mean may be off by 0.01 (what float32 in another order, or bfloat16 on a GPU, does), a token
    by 0.05 in the mean, a hit by 0.02.
    """
    for part, limit in (("losses", 0.05), ("entropies", 0.05), ("hits", 0.02)):
        values = stored(name, part, examples, features)
        changes = [a - b for a, b in zip(values, recomputed[part], strict=True)]
        mean = sum(changes) / len(changes)
        size = sum(map(abs, changes)) / len(changes)
        assert abs(mean) < 0.01, f"{name}, {part}: stored minus recomputed is {mean} in the mean"
        assert size < limit, f"{name}, {part}: stored and recomputed differ by {size} per token"


def assert_replayed(
    name: str, recomputed: dict[str, list[float]], features: Sequence[str] = ()
) -> None:
    """Check that a trial's replayed first steps had the stored losses and gradient norms."""

    def compute() -> dict[str, list[float]]:
        arrays = trials.load(name, "steps", features)
        return {part: arrays[part].tolist()[:REPLAYED] for part in ("loss", "grad_norm")}

    read = trials.files([name], ["steps.safetensors"])
    steps = cached(f"trial first steps {name}", read, compute)
    for part, values in recomputed.items():
        for step, (actual, expected) in enumerate(zip(steps[part], values, strict=True)):
            assert math.isclose(actual, expected, rel_tol=0.01), (
                f"{name}, step {step}: {part} {actual}, replayed {expected}"
            )
