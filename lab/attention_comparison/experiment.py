"""Base against fine-tuned: one model's attention with its adapter on and off.

run(ctx)
    measure(ctx)
        trials.run           the adapters of three seeds, reused from FEAT-005
        watching.tuned       base and adapters, seeds against one another
        watching.train       one of these trainings again, its adapter every two steps
        watching.random      random updates of equal norm: the null
        watching.snapshots   every snapshot, beside a random update of its norms
        watching.ablate      the heads that moved most switched off, and random others
    store                    arrays, prompts and sets of heads under artifacts/
    page.page                attention_over_time.html
    numbers.measurements     the numbers; tables, findings and figures are made from them
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.attention_comparison import figures, numbers, page, report, tables
from lab.attention_comparison.measured import (
    Ablation,
    ComparisonObservations,
    ComparisonPlan,
    Film,
    ModelAttention,
    Snapshots,
)
from lab.contract import Config, Context, Experiment, Outcome, main
from lab.instruments.arrays import save_arrays

if TYPE_CHECKING:
    from lab.attention_comparison.watching import Job, Snapshot, Tuned
    from lab.instruments.aside import Task
    from lab.instruments.trials import SweepContext, Trial

EXPERIMENT = Experiment(
    title="Base against fine-tuned",
    question=(
        "What does fine-tuning change in a model's attention, is it more than chance would change, "
        "do the heads that moved matter, and does attention move before or after the loss?"
    ),
    hypothesis=(
        "Three seeds move the same heads in the same way, further than random updates of the same "
        "size do, and further in later layers. The first token keeps its share. The heads that "
        "moved most matter more for the task than random ones. The loss falls first and attention "
        "follows, because the divergence is of second order in the update."
    ),
    method=(
        "One model, its adapter on and off, the same prompts: held-out examples of the task, and "
        "running text. A head's movement is the Jensen-Shannon divergence of its attention rows, "
        "in nats, in the mean over queries with at least 8 keys. Prompts are the independent units "
        "of standard errors, paired wherever two models are compared. Two nulls: the adapters of "
        "other seeds against one another, and random updates with the same norm in every weight "
        "matrix. A head moved if its divergence from the base is above both in one-sided paired t "
        "tests over prompts, adjusted by Holm for the number of heads. The ten heads that moved "
        "most are switched off, z = 0, in the tuned model and in the base, and so are random sets "
        "of as many others; losses are those of other held-out examples than the prompts. One of "
        "the trainings is repeated with a snapshot every two steps; each is compared with the base "
        "beside a random update of its norms, which keeps its direction and grows. The base "
        "compared with itself, through an adapter that is switched off, must give exactly 0. "
        "Ablation of a head shows that the model uses it, not that its movement helped."
    ),
    headline=(
        "js_tuned",
        "shared_share",
        "random_ratio",
        "heads_moved",
        "ablation_excess_tuned",
        "attention_lag",
    ),
    packages=("torch", "transformers", "peft"),
)
EARLIER = ("FEAT-005",)  # the feature that trained the adapters
SNAPSHOTS = "snapshots.safetensors"


def run(ctx: Context) -> Outcome:
    """Measure, store the arrays, and return numbers, tables, findings and figures."""
    observations = measure(ctx)
    store(ctx.out / "artifacts", observations)
    (ctx.out / page.NAME).write_text(page.page(observations), encoding="utf-8")
    measurements = numbers.measurements(observations)
    return Outcome(
        measurements,
        tables=tables.tables(observations),
        findings=report.findings(observations, measurements),
        figures=figures.figures(observations, measurements),
        environment=describe(ctx, observations),
    )


def measure(ctx: Context) -> ComparisonObservations:
    """Reuse or train the adapters and look at all models."""
    from lab.attention_comparison import watching
    from lab.instruments import aside, sweep, trials

    artifacts = ctx.out / "artifacts"
    artifacts.mkdir(exist_ok=True)
    workers = ctx.config["workers"]
    with sweep.open_context(ctx, EARLIER) as (sweep_context, earlier):
        # 1. The adapters, and what is common to all models.
        planned = planned_trials(ctx.config)
        runs = trials.run(planned, sweep_context, artifacts, workers=workers, earlier=earlier)
        folders = [runs[trial].folder for trial in planned]
        job, plan = job_of(ctx, sweep_context, planned[0])
        file = artifacts / SNAPSHOTS

        # 2. The stored adapters, while one of the trainings runs again.
        ctx.progress(0, 3, "base and adapters; one training again")
        first = aside.run(
            {
                "training": (watching.train, job, planned[0], plan.steps, file),
                "tuned": (watching.tuned, job, folders),
                "base": (watching.base_snapshot, job),
            },
            workers=workers,
            threads=sweep_context.threads,
        )
        moved, others = _sets(plan, first["tuned"], ctx.seed)

        # 3. Everything that rests on them.
        ctx.progress(1, 3, "random updates, snapshots, ablation")
        tasks = _tasks(job, plan, folders=folders, file=file, sets=(moved, *others))
        second = aside.run(tasks, workers=workers, threads=sweep_context.threads)
        ctx.progress(3, 3, "looked at")
        tokens = _tokens(sweep_context, job)
        sweep_settings = sweep_context.description()

    # 4. Put together.
    base_losses, base_pattern, token_examples = first["base"]
    looked = [snapshot for step in plan.steps for snapshot in second[f"snapshot {step}"]]
    patterns = {"base": base_pattern}
    for step, snapshot in zip(plan.steps, looked, strict=True):
        patterns[f"step {step}"] = snapshot.pattern
    return ComparisonObservations(
        plan=plan,
        prompts=job.prompts,
        base=first["tuned"].base,
        adapter_off=first["tuned"].adapter_off,
        tuned=first["tuned"].tuned,
        between_seeds=first["tuned"].between_seeds,
        random=[one for seed in plan.seeds for one in second[f"random {seed}"]],
        snapshots=_snapshots(looked, base_losses, first["training"], _gap(file, folders[0], plan)),
        ablation=Ablation(moved, others, second["ablation tuned"], second["ablation base"]),
        token_examples=token_examples,
        film=Film(tokens, patterns),
        trials=[folder.name for folder in folders],
        reused=sum(result.reused for result in runs.values()),
        sweep_settings=sweep_settings,
    )


def planned_trials(config: Config) -> list[Trial]:
    """Return the trial of each seed."""
    from lab.instruments.adapters import LoraSettings
    from lab.instruments.training import Settings
    from lab.instruments.trials import Trial

    training = Settings(**config["training"])
    lora = LoraSettings(**config["lora"])
    return [Trial(seed, training, lora, config["examples"]) for seed in config["seeds"]]


def job_of(ctx: Context, sweep_context: SweepContext, trial: Trial) -> tuple[Job, ComparisonPlan]:
    """Return what all models are looked at with, and the plan for a model of this size."""
    from transformers import AutoConfig, AutoTokenizer

    from lab.attention_comparison import prompts
    from lab.attention_comparison.watching import Job
    from lab.instruments import data

    settings = ctx.config["prompts"]
    model = AutoConfig.from_pretrained(sweep_context.model)
    built = prompts.build(
        settings,
        data.read_examples(sweep_context.evaluation),
        AutoTokenizer.from_pretrained(sweep_context.model),
        model.bos_token_id,
    )
    first = settings["task"]
    job = Job(
        sweep_context=sweep_context,
        lora=trial.lora,
        prompts=built,
        period=settings["period"],
        loss_examples=(first, first + ctx.config["loss_examples"]),
    )
    plan = ComparisonPlan.from_config(
        ctx.config, layers=model.num_hidden_layers, heads_per_layer=model.num_attention_heads
    )
    return job, plan


def _tokens(sweep_context: SweepContext, job: Job) -> tuple[str, ...]:
    """Return the first prompt's tokens as texts."""
    from transformers import AutoTokenizer

    from lab.instruments import sequences

    tokenizer = AutoTokenizer.from_pretrained(sweep_context.model)
    return tuple(sequences.token_texts(tokenizer, job.prompts[0].ids))


def _sets(
    plan: ComparisonPlan, tuned: Tuned, seed: int
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Return the heads that the first seed's adapter moved most, and random sets of others."""
    movement = tuned.tuned[0].divergence.mean(1)  # [H]
    order = np.argsort(-movement, kind="stable")
    moved, rest = order[: plan.moved], np.sort(order[plan.moved :])
    generator = np.random.default_rng(seed)
    others = []
    for _ in range(plan.ablation_draws):
        drawn = generator.choice(rest, plan.moved, replace=False)
        others.append(tuple(sorted(drawn.tolist())))
    return tuple(moved.tolist()), tuple(others)


def _tasks(
    job: Job,
    plan: ComparisonPlan,
    *,
    folders: list[Path],
    file: Path,
    sets: tuple[tuple[int, ...], ...],
) -> dict[str, Task]:
    """Return what is left to do once the adapters were looked at, the long tasks first."""
    from lab.attention_comparison import watching

    # 1. Losses of the tuned model and of the base, with all heads first.
    heads = [(), *([plan.place(head) for head in chosen] for chosen in sets)]
    tasks: dict[str, Task] = {
        "ablation tuned": (watching.ablate, job, folders[0], heads),
        "ablation base": (watching.ablate, job, None, heads),
    }
    # 2. The null of each seed.
    for seed, folder in zip(plan.seeds, folders, strict=True):
        draws = [(seed, draw) for draw in range(plan.draws)]
        tasks[f"random {seed}"] = (watching.random, job, folder, draws)
    # 3. The snapshots; their random update is the first seed's first draw.
    for step in plan.steps:
        draw = (plan.seeds[0], 0)
        tasks[f"snapshot {step}"] = (watching.snapshots, job, file, [step], draw)
    return tasks


def _snapshots(
    looked: list[Snapshot],
    base_losses: np.ndarray,
    training_losses: np.ndarray,
    gap: float,
) -> Snapshots:
    return Snapshots(
        losses=np.stack([base_losses, *(snapshot.losses for snapshot in looked)]),
        trained=[snapshot.trained for snapshot in looked],
        random=[snapshot.random for snapshot in looked],
        training_losses=training_losses,
        replay_gap=gap,
    )


def _gap(file: Path, folder: Path, plan: ComparisonPlan) -> float:
    """Return the largest absolute difference of the last snapshot from the stored adapter."""
    from safetensors.torch import load_file

    from lab.attention_comparison.watching import read_snapshot
    from lab.instruments.adapters import WEIGHTS

    last = read_snapshot(file, plan.steps[-1])
    stored = load_file(folder / WEIGHTS)
    return max(float((last[name] - stored[name]).abs().max()) for name in stored)


def store(artifacts: Path, observations: ComparisonObservations) -> None:
    """Write prompts, sets of heads, and all arrays."""
    # 1. Prompts, one JSON object per line.
    lines = [json.dumps(asdict(prompt)) + "\n" for prompt in observations.prompts]
    (artifacts / "prompts.jsonl").write_text("".join(lines), encoding="utf-8")

    # 2. Which heads were switched off, and which trials the adapters are.
    ablation = observations.ablation
    document = {
        "moved": ablation.moved,
        "random": ablation.random,
        "trials": list(observations.trials),
    }
    text = json.dumps(document, indent=1) + "\n"
    (artifacts / "heads.json").write_text(text, encoding="utf-8")

    # 3. The arrays as GROUP.FIELD, models stacked.
    snapshots = observations.snapshots
    arrays = {f"base.{name}": values for name, values in observations.base.items()}
    for group, models in (
        ("tuned", observations.tuned),
        ("random", observations.random),
        ("snapshots", snapshots.trained),
        ("snapshots_random", snapshots.random),
    ):
        arrays |= _stacked(group, models)
    arrays |= {
        "adapter_off.divergence": observations.adapter_off,
        "between_seeds.divergence": observations.between_seeds,
        "snapshots.losses": snapshots.losses,
        "snapshots.training_losses": snapshots.training_losses,
        "ablation.tuned": ablation.tuned,
        "ablation.base": ablation.base,
        "token_examples": observations.token_examples,
    }
    save_arrays(artifacts / "arrays.safetensors", arrays)


def _stacked(group: str, models: Any) -> dict[str, np.ndarray]:
    """Return the models' arrays stacked along a new first axis."""
    first: ModelAttention = models[0]
    arrays = {
        f"{group}.divergence": np.stack([model.divergence for model in models]),
        f"{group}.norms": np.stack([model.norms for model in models]),
    }
    for name in first.statistics:
        arrays[f"{group}.{name}"] = np.stack([model.statistics[name] for model in models])
    return arrays


def describe(ctx: Context, observations: ComparisonObservations) -> Mapping[str, Any]:
    """Return what it takes to repeat the run, beyond what `conduct` records of every run."""
    return {
        "model": ctx.config["model"],
        "sweep_context": dict(observations.sweep_settings),
        "taken_over": observations.reused,
    }


if __name__ == "__main__":
    main(EXPERIMENT, run)
