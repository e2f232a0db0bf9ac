"""The suites scored here and by lm-evaluation-harness, item by item, for the base and one adapter.

The harness gets the same items as tasks of its own, written to a temporary folder, and the same
weights; it tokenises, batches and pads by itself. Compared are the log-likelihoods of all choices,
acc and acc_norm of every item, and the time. Needs `pip install lm-eval==0.4.13` and the pretrained
model; takes some minutes on two cores.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# nats: largest difference of a log-likelihood; float32 in another order leaves about 1e-4
LIMIT = 0.01
ITEMS = 100  # of each suite


@dataclass(frozen=True)
class SuiteComparison:
    """One model on one suite.

    worst: largest difference of a log-likelihood (nats); other_acc, other_acc_norm: items that the
    two score differently; ours, theirs: mean acc and acc_norm.
    """

    model: str
    suite: str
    worst: float
    other_acc: int
    other_acc_norm: int
    ours: tuple[float, float]
    theirs: tuple[float, float]

    @property
    def agrees(self) -> bool:
        """Return whether nothing but float noise differs."""
        return self.worst < LIMIT and self.other_acc == self.other_acc_norm == 0

    def __str__(self) -> str:
        ours, theirs = (
            " ".join(f"{value:.4f}" for value in pair) for pair in (self.ours, self.theirs)
        )
        other = f"{self.other_acc} and {self.other_acc_norm}"
        return f"{self.model:<8} {self.suite:<14} {self.worst:9.1e}   {other:<10} {ours}   {theirs}"


def write_tasks(folder: Path) -> list[str]:
    """Write each suite as JSONL and as a task of the harness."""
    from lab.forgetting import suites

    for name in suites.SUITES:
        lines = (json.dumps(asdict(item)) + "\n" for item in suites.build(name, ITEMS))
        (folder / f"{name}.jsonl").write_text("".join(lines))
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{prompt}}",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "{{gold}}",
            "metric_list": [
                {"metric": m, "aggregation": "mean", "higher_is_better": True}
                for m in ("acc", "acc_norm")
            ],
            "metadata": {"version": suites.VERSION},
        }
        (folder / f"{name}.yaml").write_text(json.dumps(task, indent=1))  # JSON is YAML
    return list(suites.SUITES)


def train_one(model: Path, folder: Path) -> Path:
    """Train an adapter to compare with: four optimizer steps at 1e-3 on docstrings."""
    from transformers import AutoTokenizer

    from lab.instruments import data, trials
    from lab.instruments.adapters import LoraSettings
    from lab.instruments.training import Settings

    pool = data.load("python-docstrings", AutoTokenizer.from_pretrained(model), max_tokens=26)
    drawn = data.split(pool, train=32, evaluation=8)
    for name, examples in (("train", drawn.train), ("evaluation", drawn.evaluation)):
        data.write_examples(folder / f"{name}.jsonl", examples)
    sweep_context = trials.SweepContext(
        model=model,
        train=folder / "train.jsonl",
        evaluation=folder / "evaluation.jsonl",
        dtype="float32",
        device="cpu",
        curve=4,
    )
    settings = Settings(steps=4, batch_size=8, learning_rate=1e-3, warmup_steps=1)
    trial = trials.Trial(0, settings, LoraSettings(16, 32), examples=32)
    results = trials.run([trial], sweep_context, folder, workers=1)
    return results[trial].folder


def ours(model: Path, adapter: Path | None) -> tuple[dict[str, Any], float]:
    """Return suite → log-likelihoods [items, choices], and the seconds without loading."""
    import torch
    from safetensors.torch import load_file

    from lab.forgetting import suites
    from lab.instruments import adapters, models, multiple_choice
    from lab.instruments.adapters import LoraSettings

    loaded = models.load(model, dtype=torch.float32)
    network: Any = loaded.model
    if adapter is not None:
        network = adapters.attach(loaded, LoraSettings(16, 32), 0)
        adapters.restore(network, load_file(adapter / adapters.WEIGHTS))
    begin = time.perf_counter()
    likelihoods = {}
    for name in suites.SUITES:
        tokens = [
            multiple_choice.encode(loaded.tokenizer, item) for item in suites.build(name, ITEMS)
        ]
        likelihoods[name] = multiple_choice.log_likelihoods(network, tokens)
    return likelihoods, time.perf_counter() - begin


def theirs(
    model: Path, adapter: Path | None, folder: Path, names: Sequence[str]
) -> tuple[dict[str, Any], float]:
    """Return suite → the harness's samples in the order of the items, and the seconds.

    The seconds are without loading.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    network = HFLM(
        pretrained=str(model),
        peft=adapter and str(adapter),
        dtype="float32",
        device="cpu",
        batch_size=32,
    )
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    begin = time.perf_counter()
    results: Mapping[str, Any] = simple_evaluate(
        model=network, tasks=list(names), task_manager=manager, log_samples=True, bootstrap_iters=0
    )
    seconds = time.perf_counter() - begin
    samples = {}
    for name in names:
        samples[name] = sorted(results["samples"][name], key=lambda sample: sample["doc_id"])
    return samples, seconds


def compare(
    model: str, likelihoods: Mapping[str, Any], samples: Mapping[str, Any]
) -> Iterator[SuiteComparison]:
    """Yield one row per suite: our log-likelihoods against the harness's samples."""
    from lab.forgetting import suites
    from lab.instruments.multiple_choice import score

    for name, our_likelihoods in likelihoods.items():
        scores = score(suites.build(name, ITEMS), our_likelihoods)
        their_likelihoods = []  # [items, choices]
        for sample in samples[name]:
            their_likelihoods.append([float(response[0]) for response in sample["filtered_resps"]])
        acc = [float(sample["acc"]) for sample in samples[name]]
        acc_norm = [float(sample["acc_norm"]) for sample in samples[name]]
        yield SuiteComparison(
            model=model,
            suite=name,
            worst=float(abs(our_likelihoods - their_likelihoods).max()),
            other_acc=int((scores.acc != acc).sum()),
            other_acc_norm=int((scores.acc_norm != acc_norm).sum()),
            ours=(float(scores.acc.mean()), float(scores.acc_norm.mean())),
            theirs=(sum(acc) / len(acc), sum(acc_norm) / len(acc_norm)),
        )


def main() -> bool:
    """Print the rows; return whether every item was scored alike."""
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
    }
    try:
        import lm_eval
    except ImportError:
        print(
            "lm-evaluation-harness is not installed; pip install lm-eval==0.4.13", file=sys.stderr
        )
        return False
    from lab.instruments import pretrained

    pretrained.fetch(pretrained.cache_folder())
    model = pretrained.cache_folder() / pretrained.NAME
    rows: list[SuiteComparison] = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["HF_DATASETS_CACHE"] = f"{scratch}/datasets"
        folder = Path(scratch)
        names = write_tasks(folder)
        trained = train_one(model, folder)
        print(
            f"lm-eval {lm_eval.__version__}; {len(names) * ITEMS} items; limit {LIMIT} nats, and "
            "each item scored alike"
        )
        print(
            "model    suite          worst ll    other acc,  "
            "ours             lm-eval      (acc acc_norm)"
        )
        for name, adapter in (("base", None), ("adapter", trained)):
            likelihoods, seconds = ours(model, adapter)
            samples, their_seconds = theirs(model, adapter, folder, names)
            rows += compare(name, likelihoods, samples)
            print(*rows[-len(names) :], sep="\n")
            print(
                f"{name:<8} {seconds:.1f} s here, {their_seconds:.1f} s in the harness", flush=True
            )
    return all(row.agrees for row in rows)
