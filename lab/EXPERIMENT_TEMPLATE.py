"""Loss of an untrained model: the template of an experiment, complete and runnable.

To start a new one, copy this file and its .yaml into a topic's folder (`lab/TOPIC/experiment.py`,
`experiment.yaml`) and change what is between the lines of `====`. Run it by hand:

    python -m lab.TOPIC.experiment --config lab/TOPIC/experiment.yaml --profile smoke --out /tmp/run

The order of work: write EXPERIMENT before the code; give every claim a control that could
contradict it; store the arrays behind the numbers, so that the gate can compute the numbers again
without you.
"""

# ruff: noqa: N999 - the name is in upper case to be seen; drop this line in your copy
from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lab import present
from lab.contract import Context, Experiment, Measurement, Outcome, main

# ==== 1. What is asked, what is expected and why, and how it is tried. Written first, and not
# changed after the run.
EXPERIMENT = Experiment(
    title="Loss of an untrained model",
    question="How large is the loss of a language model that has learned nothing?",
    hypothesis=(
        "Close to ln V for a vocabulary of V tokens, because the model is as unsure as a fair die "
        "with V faces; a little above it, because random logits make it sure of something, and on "
        "random tokens that can only cost."
    ),
    method=(
        "A tiny model with random weights reads sequences of tokens drawn uniformly with the run's "
        "seed. Loss is the mean negative log-likelihood of the next token in nats; one sequence is "
        "one repetition. Control: the same model with its output layer set to zero, whose loss "
        "must be ln V exactly."
    ),
    headline=("loss", "chance_loss", "control_loss"),
    packages=("torch", "transformers"),
)
# ====


def run(ctx: Context) -> Outcome:
    """Measure, store the arrays, and return numbers, findings and figures."""
    # ==== 2. Measure. Heavy imports are inside functions, so that listing the experiments is quick.
    arrays = measure(ctx)
    ctx.progress(1, 2, "measured")
    # ==== 3. Store what the numbers come from: arrays as .safetensors, data as .jsonl, no pickles.
    store(ctx.out / "artifacts", arrays)
    # ==== 4. Give the numbers a name, a unit and a kind: exact, or a sample with a standard error.
    vocabulary = int(arrays["logits"].shape[-1])
    measurements = {
        "vocabulary": Measurement.of_exact(vocabulary, "tokens"),
        "chance_loss": Measurement.of_exact(math.log(vocabulary), "nats/token"),
        "loss": Measurement.of_sample(arrays["losses"].mean(1), "nats/token"),
        "control_loss": Measurement.of_sample(arrays["control_losses"].mean(1), "nats/token"),
    }
    ctx.progress(2, 2, "computed")
    # ==== 5. Show. Captions and findings follow from the numbers: other numbers, other sentences.
    return Outcome(
        measurements,
        findings=findings(measurements),
        figures=[figure(measurements)],
        environment={"model": "tiny random Llama", "device": "cpu"},
    )


def measure(ctx: Context) -> dict[str, Any]:
    """Give tokens, logits and next-token losses of the model and its control.

    Tokens [n, T], logits [n, T, V], losses [n, T - 1] in nats.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from lab.instruments import models

    model = models.tiny(ctx.seed).model.eval()
    vocabulary, shape = model.config.vocab_size, (ctx.config["sequences"], ctx.config["tokens"])
    tokens = torch.randint(vocabulary, shape, generator=torch.Generator().manual_seed(ctx.seed))

    def losses(logits: torch.Tensor) -> torch.Tensor:
        # [n, T - 1]
        return cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")

    with torch.no_grad():
        logits = model(tokens).logits.float()
        model.get_output_embeddings().weight.zero_()
        control = model(tokens).logits.float()
    return {
        "tokens": tokens,
        "logits": logits,
        "losses": losses(logits),
        "control_losses": losses(control),
    }


def store(folder: Path, arrays: dict[str, Any]) -> None:
    """Write the arrays where the gate finds them."""
    from safetensors.torch import save_file

    folder.mkdir()
    save_file(
        {name: array.contiguous() for name, array in arrays.items()}, folder / "arrays.safetensors"
    )


def findings(measured: dict[str, Measurement]) -> tuple[str, ...]:
    """Give the sentences that the numbers support."""
    loss, chance, control = measured["loss"], measured["chance_loss"], measured["control_loss"]
    excess = float(loss.value) - float(chance.value)  # type: ignore[arg-type]
    errors = excess / loss.stderr if loss.stderr else math.inf
    verdict = "above" if errors > 2 else "below" if errors < -2 else "not distinguishable from"
    off = abs(float(control.value) - float(chance.value))  # type: ignore[arg-type]
    return (
        f"An untrained model's loss is {present.quantity(loss)}, {verdict} the ln V = "
        f"{present.quantity(chance)} of a fair guess (difference {present.number(excess, 3)}, two "
        "standard errors being the mark).",
        f"The control {'agrees' if off < 1e-4 else 'DISAGREES'}: without an output layer the loss "
        f"is {present.quantity(control)}, off ln V by {present.number(off, 2)}.",
    )


def figure(measured: dict[str, Measurement]) -> present.Figure:
    """Show every repetition, not only the mean."""
    loss, chance = measured["loss"], float(measured["chance_loss"].value)  # type: ignore[arg-type]
    values = loss.values or ()
    above = sum(value > chance for value in values)
    return present.Figure(
        name="loss_per_sequence",
        title="Loss of an untrained model, per sequence",
        caption=(
            f"{above} of {len(values)} sequences lie above ln V = "
            f"{present.number(chance)} nats/token."
        ),
        x_label="sequence",
        y_label="loss (nats/token)",
        series=(
            present.Series("untrained model", range(1, len(values) + 1), values, kind="points"),
            present.Series("ln V", (1, len(values)), (chance, chance), style="dashed"),
        ),
    )


if __name__ == "__main__":
    main(EXPERIMENT, run)
