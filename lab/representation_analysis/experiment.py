"""Representation analysis: what the layers write, what of it matters, and what can be read.

run(ctx)
    measure(ctx)
        record            one pass of the text: stream and writes; the same with random weights
        stream_of, …      norms, massive activations, writes, lens, similarity (recording.py)
        interventions_of  on other text: one number changed, writes replaced (intervening.py)
    observe_probes    linear probes of functions whose parts are known (probes.py)
    store                 arrays under artifacts/
    measurements, tables, findings, figures    made from the observations
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.contract import Context, Experiment, Outcome, main
from lab.instruments.arrays import save_arrays
from lab.representation_analysis.measured import AnalysisPlan, Observations

if TYPE_CHECKING:
    from lab.instruments.models import Loaded

EXPERIMENT = Experiment(
    title="Representation analysis",
    question=(
        "What do the layers of a small language model write into its residual stream, and which "
        "of the numbers that one sees there does the model need?"
    ),
    hypothesis=(
        "The stream grows from layer to layer. A few of its numbers, at the first token, are "
        "thousands of times as large as the others; the model cannot do without them, but needs "
        "only their mean. The MLP writes more than attention, and the length of a write does not "
        "tell what it is worth. The logit lens comes near the output only in late layers. The few "
        "tokens of huge norm make layers look alike that are not. From the stream one can read "
        "more of a function's syntax than from its tokens alone, where the model was trained."
    ),
    method=(
        "Running text of Python's documentation passes the model once; kept are the residual "
        "stream before and behind every layer and what attention and MLP add to it. An activation "
        "is massive if it is above 100 and above 1000 times the median of its layer and sequence "
        "(Sun et al. 2024, arXiv:2402.17762). Causal test, on other text: the largest of them is "
        "set to 0, to its mean over the first text, and as a control other dimensions of the same "
        "token, without a massive number and drawn from the seed, are set to 0. Every write of a "
        "layer is replaced, behind the first token, by its mean over the first text and its "
        "positions, and the rise of the loss is set beside the write's length and its direct "
        "attribution (the final norm's scale as it was). The logit lens applies final norm and "
        "head to the stream of every layer. Linear "
        "CKA (Kornblith et al. 2019, arXiv:1905.00414) is given with all tokens, without the first "
        "ones, and without all tokens whose norm is above 10 times the median in some layer. "
        "Controls: the same model with random weights, and tokens of one layer in another order. "
        "Linear probes read the part of a signature and whether a token is inside a string, of "
        "functions of the standard library whose packages are in no other split; controls are a "
        "random class per token type (Hewitt and Liang 2019, arXiv:1909.03368), a table of token "
        "types, and random weights. Behind ± is a standard error: of texts left out one by one, of "
        "whole packages for the probes; all measurements below say how many (n)."
    ),
    headline=(
        "norm_growth",
        "massive_layers",
        "zeroed_ratio",
        "mean_ratio",
        "norm_ablation_correlation",
        "lens_agreement_depth",
        "cka_outlier_gap",
        "probe_part_over_identity",
    ),
    packages=("torch", "transformers"),
)


def run(ctx: Context) -> Outcome:
    """Measure, store the arrays, and return numbers, tables, findings and figures."""
    from lab.representation_analysis.figures import figures
    from lab.representation_analysis.numbers import measurements
    from lab.representation_analysis.probe_figures import probe_figures
    from lab.representation_analysis.probe_numbers import probe_measurements
    from lab.representation_analysis.probe_report import probe_findings, probe_tables
    from lab.representation_analysis.report import findings
    from lab.representation_analysis.tables import tables

    observations, environment = measure(ctx)
    store(ctx.out, observations)
    probes = observations.probes
    numbers = measurements(observations)
    probe_numbers = probe_measurements(probes)
    return Outcome(
        numbers | probe_numbers,
        tables=[*tables(observations, numbers), *probe_tables(probes)],
        findings=[*findings(observations, numbers), *probe_findings(probe_numbers)],
        figures=[*figures(observations, numbers), *probe_figures(probes, probe_numbers)],
        environment=environment,
    )


def measure(ctx: Context) -> tuple[Observations, dict[str, Any]]:
    """Do the whole experiment; return what was observed, and of which model."""
    from lab.instruments import sequences
    from lab.representation_analysis import intervening, recording
    from lab.representation_analysis.numbers import target_layer
    from lab.representation_analysis.probe_measured import ProbePlan
    from lab.representation_analysis.probes import observe_probes

    # 1. The model and the text: the last windows are there to intervene on.
    plan = AnalysisPlan.from_config(ctx.config)
    loaded = load_model(ctx)
    model = loaded.model
    windows = sequences.natural(loaded.tokenizer, plan.count + plan.test_count, plan.length)
    ids = windows[: plan.count].to(model.device)
    test_ids = windows[plan.count :, : plan.test_length].to(model.device)

    # 2. One pass of the text, and one with random weights.
    ctx.progress(0, 9, "the stream")
    recorded = recording.record(model, ids)
    stream = recording.stream_of(recorded.stream)
    ctx.progress(1, 9, "random weights")
    untrained = recording.untrained(model, ctx.seed)
    control = recording.record(untrained, ids).stream

    # 3. What follows from them.
    ctx.progress(2, 9, "writes and lens")
    writes = recording.writes_of(model, recorded)
    lens = recording.lens_of(model, recorded, plan)
    ctx.progress(3, 9, "similarity of layers")
    similarity = recording.similarity_of(recorded.stream, control, plan, ctx.seed)

    # 4. The causal tests.
    ctx.progress(4, 9, "interventions")
    target = intervening.target_of(target_layer(stream), stream, recorded.stream, plan, ctx.seed)
    interventions = intervening.interventions_of(model, test_ids, target, recorded.writes, plan)

    # 5. The probes.
    probes = observe_probes(
        loaded,
        untrained,
        ProbePlan.from_config(ctx.config["probes"]),
        ctx.seed,
        lambda done, _total, note: ctx.progress(5 + done, 9, note),
    )
    observations = Observations(
        plan=plan,
        ids=ids.cpu().numpy(),
        kinds=recording.kinds_of(loaded.tokenizer, ids),
        test_ids=test_ids.cpu().numpy(),
        stream=stream,
        random_stream=recording.stream_of(control),
        writes=writes,
        lens=lens,
        similarity=similarity,
        interventions=interventions,
        probes=probes,
    )
    environment = {
        "model": ctx.config["model"],
        "model_sha256": loaded.digest,
        "device": ctx.config["device"],
        "dtype": ctx.config["dtype"],
    }
    return observations, environment


def load_model(ctx: Context) -> Loaded:
    """Return the model of the config; "tiny" is a random one."""
    import torch

    from lab.instruments import models

    if ctx.config["model"] == "tiny":
        return models.tiny(ctx.seed)
    folder = models.locate(ctx.config["model"], ctx.inputs)
    dtype = getattr(torch, ctx.config["dtype"])
    return models.load(folder, dtype=dtype, device=ctx.config["device"])


def store(out: Path, observations: Observations) -> None:
    """Write the arrays below artifacts/."""
    import numpy as np

    from lab.representation_analysis.probes import store_probes

    folder = out / "artifacts"
    folder.mkdir(exist_ok=True)
    ids = {
        "ids": observations.ids,
        "kinds": observations.kinds,
        "test_ids": observations.test_ids,
    }
    similarity = observations.similarity
    cka = {f"matrix.{name}": matrix for name, matrix in similarity.matrices.items()}
    for name, value in similarity.pair.items():
        cka[f"pair.{name}"] = np.array([value, *similarity.left_out[name]])  # [1 + B]
    cka |= {"ends": similarity.ends, "outliers": similarity.outliers}
    interventions = observations.interventions
    losses = {f"losses.{name}": array for name, array in interventions.losses.items()}

    save_arrays(folder / "sequences.safetensors", ids)
    save_arrays(folder / "stream.safetensors", vars(observations.stream))
    save_arrays(folder / "stream_random_weights.safetensors", vars(observations.random_stream))
    save_arrays(folder / "writes.safetensors", vars(observations.writes))
    save_arrays(folder / "lens.safetensors", vars(observations.lens))
    save_arrays(folder / "similarity.safetensors", cka)
    save_arrays(folder / "interventions.safetensors", losses | {"ablated": interventions.ablated})
    target = vars(interventions.target) | {"others": list(interventions.target.others)}
    store_probes(folder, observations.probes)
    path = folder / "target.json"
    path.write_text(json.dumps(target, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(EXPERIMENT, run)
