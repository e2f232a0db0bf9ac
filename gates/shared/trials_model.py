"""A sample of stored trials, drawn by the nonce, done again from the base model.

Code of its own: padded batches in place of packed ones, PEFT's own loading, torch's plain AdamW.
`again` evaluates trials from their adapters; `replayed` repeats the first optimizer steps of one
from the seed's initial adapter, which only a run that was really made can agree with. torch and
peft are imported inside, so a warm cache never loads them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from gates.shared import outputs, trials
from gates.shared.stored import cached

EXAMPLES = 24  # of the evaluation set, per trial that is evaluated again
REPLAYED = 3  # optimizer steps of a trial that are done again
BATCH = 24  # sequences of similar length at a time


def drawn(names: Sequence[str], count: int) -> list[str]:
    """Give `count` of the trials, drawn by the nonce, in order."""
    return sorted(outputs.rng().sample(sorted(names), min(count, len(names))))


def drawn_examples(features: Sequence[str] = ()) -> list[int]:
    """Give the evaluation examples that the nonce draws."""
    count = len(trials.rows("evaluation", features))
    return sorted(outputs.rng().sample(range(count), min(EXAMPLES, count)))


def stored(
    name: str, part: str, examples: Sequence[int], features: Sequence[str] = ()
) -> list[float]:
    """Give the stored losses, entropies or hits of some examples' tokens, in order.

    They are those of trial `name` (or "base").
    """

    def compute() -> dict[str, list[float]]:
        found = trials.load(name, "evaluation", features)
        split: dict[str, list[float]] = {}
        for owner, value in zip(found["example_ids"].tolist(), found[part].tolist(), strict=True):
            split.setdefault(str(owner), []).append(value)
        return split

    found = cached(
        f"trial tokens {name} {part}", trials.files([name], ["evaluation.safetensors"]), compute
    )
    return [value for i in examples for value in found[str(i)]]


def again(names: Sequence[str], features: Sequence[str] = ()) -> dict[str, dict[str, list[float]]]:
    """Give trial (or "base") -> losses, entropies, hits of the drawn examples.

    They come from the base model and the adapters.
    """
    read = (
        *trials.files(names),
        *[
            f"artifacts/{kind}.jsonl"
            for kind in ("evaluation",)
            if (trials.artifacts() / f"{kind}.jsonl").is_file()
        ],
    )
    return dict(
        cached(f"trials again {' '.join(names)}", read, lambda: _quietly(_again, names, features))
    )


def replayed(name: str, features: Sequence[str] = ()) -> dict[str, list[float]]:
    """Give loss and grad_norm of a trial's first steps, redone from the seed's initial adapter."""
    mine = [
        f"artifacts/{kind}.jsonl"
        for kind in ("train",)
        if (trials.artifacts() / f"{kind}.jsonl").is_file()
    ]
    return dict(
        cached(
            f"trial replayed {name}",
            (*trials.files([name]), *mine),
            lambda: _quietly(_replayed, name, features),
        )
    )


def _quietly(compute: Any, *given: Any) -> Any:
    """Compute without libraries' warnings: by hand, this repository's config makes them errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compute(*given)


def refuse_changed(paths: Iterable[str]) -> None:
    """Stop before a long computation on files that are not those the result names."""
    named = outputs.result()["files"]
    for path in paths:
        assert named.get(path) == outputs.digest_of(outputs.out() / path), (
            f"{path} is not the file of result.json"
        )


def base_model() -> Any:
    """Give the base model in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        outputs.inputs()[trials.model_name()], dtype=torch.float32, device_map="cpu"
    )


def _again(names: Sequence[str], features: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    refuse_changed(trials.files([name for name in names if name != "base"]))
    import torch
    from peft import PeftModel

    evaluation = trials.rows("evaluation", features)
    chosen = [evaluation[i] for i in drawn_examples(features)]
    found: dict[str, dict[str, list[float]]] = {}
    base = base_model().eval()
    for name in names:
        model = (
            base
            if name == "base"
            else PeftModel.from_pretrained(base, trials.folder(name, features)).eval()
        )
        with torch.no_grad():
            found[name] = token_values(model, chosen)
        if name != "base":
            base = model.unload()
    return found


def token_values(model: Any, examples: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Give loss, entropy and hit of every supervised token, in the order of the examples."""
    # little padding
    by_length = sorted(range(len(examples)), key=lambda i: len(examples[i]["ids"]))
    found: dict[int, Any] = {}
    for first in range(0, len(by_length), BATCH):
        group = by_length[first : first + BATCH]
        found |= dict(
            zip(group, log_probabilities(model, [examples[i] for i in group]), strict=True)
        )
    columns: dict[str, list[float]] = {"losses": [], "entropies": [], "hits": []}
    for i, example in enumerate(examples):
        log_p, targets = found[i], _targets(example)
        columns["losses"] += (-log_p.gather(1, targets[:, None])[:, 0]).tolist()
        columns["entropies"] += (-(log_p.exp() * log_p).sum(1)).tolist()
        columns["hits"] += (log_p.argmax(1) == targets).float().tolist()
    return columns


def log_probabilities(model: Any, examples: Sequence[dict[str, Any]]) -> list[Any]:
    """Give per example [S, V]: log-probabilities at the positions before its supervised tokens.

    Padded on the right.
    """
    import torch

    longest = max(len(e["ids"]) for e in examples)
    ids = torch.tensor([e["ids"] + [0] * (longest - len(e["ids"])) for e in examples])
    mask = torch.tensor([[1] * len(e["ids"]) + [0] * (longest - len(e["ids"])) for e in examples])
    language_model = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = language_model.model(input_ids=ids, attention_mask=mask).last_hidden_state  # [B, T, d]
    kept = [[t for t, label in enumerate(e["labels"][1:]) if label != -100] for e in examples]
    return [
        language_model.lm_head(hidden[row, at]).float().log_softmax(-1)
        for row, at in enumerate(kept)
    ]


def _targets(example: dict[str, Any]) -> Any:
    import torch

    return torch.tensor([label for label in example["labels"][1:] if label != -100])


def _replayed(name: str, features: Sequence[str]) -> dict[str, list[float]]:
    refuse_changed(trials.files([name]))
    import torch
    from peft import LoraConfig, get_peft_model

    of = trials.trial(name, features)
    lora, training, examples = (
        of["lora"],
        of["training"],
        trials.used(of, trials.rows("train", features)),
    )
    torch.manual_seed(of["seed"])
    model = get_peft_model(
        base_model(),
        LoraConfig(**lora, target_modules=sorted(trials.LINEARS), task_type="CAUSAL_LM"),
    )
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, betas=tuple(training["betas"]), weight_decay=training["weight_decay"]
    )
    found: dict[str, list[float]] = {"loss": [], "grad_norm": []}
    for step in range(min(REPLAYED, training["steps"])):
        size = training["batch_size"]
        batch = [examples[i % len(examples)] for i in range(step * size, (step + 1) * size)]
        optimizer.param_groups[0]["lr"] = trials.rate(step, training)
        optimizer.zero_grad()
        pairs = zip(batch, log_probabilities(model, batch), strict=True)
        loss = -torch.cat(
            [log_p.gather(1, _targets(e)[:, None])[:, 0] for e, log_p in pairs]
        ).mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, training["max_grad_norm"])
        optimizer.step()
        found["loss"].append(float(loss))
        found["grad_norm"].append(float(norm))
    return found


def assert_agree(
    name: str, examples: Sequence[int], found: dict[str, list[float]], features: Sequence[str] = ()
) -> None:
    """Check that stored and recomputed values of a trial's drawn tokens differ by float noise only.

    A mean may be off by 0.01 (what float32 in another order, or bfloat16 on a GPU, does), a token
    by 0.05 in the mean.
    """
    for part, size in (("losses", 0.05), ("entropies", 0.05), ("hits", 0.02)):
        pairs = list(zip(stored(name, part, examples, features), found[part], strict=True))
        shift = sum(a - b for a, b in pairs) / len(pairs)
        spread = sum(abs(a - b) for a, b in pairs) / len(pairs)
        assert abs(shift) < 0.01, f"{name}, {part}: stored minus recomputed is {shift} in the mean"
        assert spread < size, f"{name}, {part}: stored and recomputed differ by {spread} per token"


def assert_replayed(name: str, found: dict[str, list[float]], features: Sequence[str] = ()) -> None:
    """Check that a trial's first steps, done again, had the stored losses and gradient norms."""
    steps = cached(
        f"trial first steps {name}",
        trials.files([name], ["steps.safetensors"]),
        lambda: {
            part: trials.load(name, "steps", features)[part].tolist()[:REPLAYED]
            for part in ("loss", "grad_norm")
        },
    )
    for part, wanted in found.items():
        for step, (met, right) in enumerate(zip(steps[part], wanted, strict=True)):
            assert math.isclose(met, right, rel_tol=0.01), (
                f"{name}, step {step}: {part} {met}, done again {right}"
            )
