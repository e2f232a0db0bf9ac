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
from typing import TYPE_CHECKING

from lab import present
from lab.contract import Context, Experiment, Measurement, Outcome, main

if TYPE_CHECKING:
    import torch

# ==== 1. The question, the expected answer and its reason, and the method. Written first, and not
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


def measure(ctx: Context) -> dict[str, torch.Tensor]:
    """Return tokens, logits and next-token losses of the model and its control.

    Tokens [n, T], logits [n, T, V], losses [n, T - 1] in nats.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from lab.instruments import models

    model = models.tiny(ctx.seed).model.eval()
    shape = (ctx.config["sequences"], ctx.config["tokens"])
    generator = torch.Generator().manual_seed(ctx.seed)
    tokens = torch.randint(model.config.vocab_size, shape, generator=generator)

    def next_token_losses(logits: torch.Tensor) -> torch.Tensor:
        predictions = logits[:, :-1].transpose(1, 2)  # [n, V, T - 1], as cross_entropy wants them
        return cross_entropy(predictions, tokens[:, 1:], reduction="none")  # [n, T - 1]

    with torch.no_grad():
        logits = model(tokens).logits.float()
        model.get_output_embeddings().weight.zero_()
        control_logits = model(tokens).logits.float()
    return {
        "tokens": tokens,
        "logits": logits,
        "losses": next_token_losses(logits),
        "control_losses": next_token_losses(control_logits),
    }


def store(folder: Path, arrays: dict[str, torch.Tensor]) -> None:
    """Write the arrays where the gate reads them."""
    from safetensors.torch import save_file

    folder.mkdir()
    contiguous = {name: array.contiguous() for name, array in arrays.items()}
    save_file(contiguous, folder / "arrays.safetensors")


def findings(measurements: dict[str, Measurement]) -> tuple[str, ...]:
    """Return the sentences that the numbers support."""
    loss = measurements["loss"]
    chance = measurements["chance_loss"]
    control = measurements["control_loss"]

    # Above or below only beyond two standard errors.
    excess = loss.number - chance.number
    margin = 2 * (loss.stderr or 0)
    if excess > margin:
        verdict = "above"
    elif excess < -margin:
        verdict = "below"
    else:
        verdict = "not distinguishable from"

    error = abs(control.number - chance.number)
    agrees = "agrees" if error < 1e-4 else "DISAGREES"
    return (
        f"An untrained model's loss is {present.quantity(loss)}, {verdict} the ln V = "
        f"{present.quantity(chance)} of a fair guess (difference {present.number(excess, 3)}, "
        "judged by two standard errors).",
        f"The control {agrees}: without an output layer the loss is {present.quantity(control)}, "
        f"which differs from ln V by {present.number(error, 2)}.",
    )


def figure(measurements: dict[str, Measurement]) -> present.Figure:
    """Show every repetition, not only the mean."""
    losses = measurements["loss"].values or ()
    chance = measurements["chance_loss"].number
    above = sum(loss > chance for loss in losses)
    return present.Figure(
        name="loss_per_sequence",
        title="Loss of an untrained model, per sequence",
        caption=(
            f"{above} of {len(losses)} sequences are above ln V = "
            f"{present.number(chance)} nats/token."
        ),
        x_label="sequence",
        y_label="loss (nats/token)",
        series=(
            present.Series("untrained model", range(1, len(losses) + 1), losses, kind="points"),
            present.Series("ln V", (1, len(losses)), (chance, chance), style="dashed"),
        ),
    )


if __name__ == "__main__":
    main(EXPERIMENT, run)
