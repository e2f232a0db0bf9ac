"""A small world for the site: real trials of a tiny model, and results that mention them.

Trained here in seconds: two rates, two seeds and a control. The features' results and reports are
written by the lab's own code from a few measurements each.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from lab import present
from lab.contract import Measurement, Result, Table
from lab.instruments import data, models, trials
from lab.instruments.adapters import LoraSettings
from lab.instruments.training import Settings
from lab.instruments.trials import SweepContext, Trial
from lab.present.attention_page import SINK, AttentionPage, PageText, Variant, render
from tests.lab.conftest import write_chats
from tests.lab.present.pages import patterns, statistic, words

MISSED = "the gap is above 1 <b>nat</b>"  # its claim must be shown as it is written
CONCEPT = """# Gaps & "ranks"

## In short

A gap of {{FEAT-001.gap}} was measured, `{{FEAT-001.gap}}` in code was not, nor {{FEAT-009.gone}}.
See [the other](other.md#numbers), [below](#numbers) and [a source](https://example.org/paper).

| symbol | meaning |
|---|---|
| s | alpha / r |

## Numbers

1. One is `a|b`.
2. Two is *more*.

```python
x = 1 < 2
```
"""
OTHER = "# Other\n\n## Numbers\n\nNothing was measured here; back to [gaps](gaps.md).\n"
QUESTIONS = """# Questions

What is asked.

## Foundation

### Q-001 · Is there a gap?

- status: OPEN
- experiments: FEAT-001, FEAT-005
- why: A gap tells form from content.

## Later

### Q-002 · Does it last?

- status: EXPLORING
- experiments: FEAT-099
- why: Nobody knows.
"""


def write_world(folder: Path, *, sample: bool = False) -> Path:
    """Write model, trials, results, plan, questions and concepts; return the file of --inputs."""
    folder.mkdir(parents=True, exist_ok=True)
    models.save(models.tiny(0), folder / "model")
    receipts = {
        "FEAT-001": write_gap(folder / "FEAT-001"),
        "FEAT-005": _write_trials(folder / "FEAT-005", folder / "model"),
        "FEAT-008": _write_forgetting(folder / "FEAT-008"),
        "FEAT-011": _write_attention(folder / "FEAT-011"),
    }
    (folder / "concepts").mkdir()
    (folder / "concepts/gaps.md").write_text(CONCEPT, "utf-8")
    (folder / "concepts/other.md").write_text(OTHER, "utf-8")
    (folder / "concepts/TEMPLATE.md").write_text("# Name\n", "utf-8")
    (folder / "QUESTIONS.md").write_text(QUESTIONS, "utf-8")
    (folder / "plan.json").write_text(json.dumps(plan(sample=sample)))

    entries: dict[str, Any] = {
        "smollm2-135m": {"kind": "input", "path": str(folder / "model")},
        "plan": {"kind": "input", "path": str(folder / "plan.json")},
        "concepts": {"kind": "input", "path": str(folder / "concepts")},
        "questions": {"kind": "input", "path": str(folder / "QUESTIONS.md")},
    }
    for name, receipt in receipts.items():
        entries[name] = {"kind": "feature", "path": str(folder / name), "receipt": receipt}
    (folder / "inputs.json").write_text(json.dumps(entries))
    return folder / "inputs.json"


def plan(*, sample: bool) -> dict[str, Any]:
    """Return a plan with a prediction of each outcome, and a feature without a result."""
    gap = [
        _prediction("missed", MISSED, "gap", ">", 1),
        _prediction("held", "the gap is above 0", "gap", ">", 0) | {"source": "seen before"},
        _prediction("open", "something unknown", "unknown", "<", 1),
    ]
    features = [
        {"id": "FEAT-001", "title": "Gap", "predictions": gap},
        {"id": "FEAT-005", "title": "Curves"},
        {"id": "FEAT-008", "title": "Forgetting"},
        {"id": "FEAT-009", "title": "Waived"},
        {"id": "FEAT-011", "title": "Attention"},
    ]
    site = {"id": "FEAT-018", "title": "Site", "module": "lab.synthesis.site.experiment"}
    document: dict[str, Any] = {
        "project": "A small lab",
        "phases": [
            {"id": 1, "name": "One & only", "goal": "To see a gap.", "features": features},
            {"id": 2, "name": "Two", "features": [site]},
        ],
    }
    if sample:
        document["sample"] = True
    return document


def _prediction(name: str, claim: str, measurement: str, comparator: str, value: Any) -> Any:
    return {
        "id": name,
        "claim": claim,
        "measurement": measurement,
        "comparator": comparator,
        "value": value,
    }


def write_gap(folder: Path) -> str:
    """Write a feature with a figure, a table and awkward texts; return its receipt's digest."""
    points = present.Series("gap | width", (1, 2, 3), (0.2, 0.3, 0.1))
    figure = present.Figure("gap", "Gap", "The gap is 0.2000 at first.", "x", "y", (points,))
    return _write_result(
        folder,
        measurements={
            "gap": Measurement.of_sample((0.2, 0.3, 0.1), "nats/token"),
            "bytes_peak": Measurement.of_exact(3 * 2**20, "bytes"),
            "seconds": Measurement.of_estimate(150.0, "s"),
            "winner": Measurement.of_exact("a|b"),
            "is_there": Measurement.of_exact(value=True),
        },
        headline=("gap", "bytes_peak", "winner"),
        findings=("The gap is 0.2000 <script>alert(1)</script>.", "It has a | bar.", "A third."),
        tables=(Table("Cells", ("name", "size"), (("a|b", 3), ("-c", -0.5))),),
        figures=(figure,),
    )


def _write_result(folder: Path, *, figures: Any = (), **fields: Any) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    result = Result(
        experiment=f"lab.{folder.name}",
        title=f"Experiment {folder.name}",
        question="Why is it so?",
        hypothesis="Because of what was there before.",
        method="Measure it, and a control.",
        environment={"platform": "Linux-1-x86_64", "seed": 0},
        **fields,
    )
    present.write(folder, result, figures)
    metadata = {"finishedOn": "2026-01-02T03:04:05Z"}
    host = {"system": "Linux-1", "cpus": 2, "memoryBytes": 8 * 2**30}
    details = {"metadata": metadata, "byproducts": [{"name": "host", "content": host}]}
    receipt = json.dumps({"predicate": {"runDetails": details}}).encode()
    (folder / "receipt.json").write_bytes(receipt)
    return f"sha256:{hashlib.sha256(receipt).hexdigest()}"


def planned_trials() -> list[Trial]:
    """Return two rates with two seeds each, one at another rank, and a control."""
    chosen = [(1e-3, 4, 0, False), (1e-3, 4, 1, False), (2e-2, 4, 0, False), (2e-2, 4, 1, False)]
    chosen += [(1e-3, 2, 0, False), (1e-3, 4, 0, True)]
    planned = []
    for rate, rank, seed, shuffled in chosen:
        training = Settings(steps=4, batch_size=2, learning_rate=rate, warmup_steps=1)
        lora = LoraSettings(r=rank, lora_alpha=8)
        planned.append(Trial(seed, training, lora, 8, shuffled=shuffled, curve_every=2))
    return planned


def _write_trials(folder: Path, model: Path) -> str:
    """Train, and write a feature with the trials; return its receipt's digest."""
    artifacts = folder / "artifacts"
    artifacts.mkdir(parents=True)
    chats = write_chats(folder.parent / "chats.jsonl")
    pool = data.load(str(chats), models.tiny(0).tokenizer, max_tokens=200)
    drawn = data.split(pool, train=16, evaluation=12)
    data.write_examples(artifacts / "train.jsonl", drawn.train)
    data.write_examples(artifacts / "evaluation.jsonl", drawn.evaluation)
    context = SweepContext(
        model=model,
        train=artifacts / "train.jsonl",
        evaluation=artifacts / "evaluation.jsonl",
        dtype="float32",
        device="cpu",
        curve=4,
    )
    threads = torch.get_num_threads()
    trials.run(planned_trials(), context, artifacts, workers=1)
    trials.base(context, artifacts)
    torch.set_num_threads(threads)
    return _write_result(
        folder,
        measurements={"runs": Measurement.of_exact(6, "runs")},
        headline=("runs",),
        findings=("6 runs were made.",),
    )


def _write_forgetting(folder: Path) -> str:
    """Write the scores of one of the trials; return the receipt's digest."""
    (folder / "artifacts").mkdir(parents=True)
    scored = planned_trials()[0].name
    document = {"models": {"r4 1e-3": {"trial": scored}}}
    (folder / "artifacts/models.json").write_text(json.dumps(document))
    columns = ("adapter", "forgetting (nats/byte)", "stderr", "KL (nats/token)")
    table = Table("Adapters", columns, (("r4 1e-3", 0.0123, 0.0021, 0.31),))
    return _write_result(
        folder,
        measurements={"adapters": Measurement.of_exact(1, "adapters")},
        headline=("adapters",),
        findings=("1 adapter forgot.",),
        tables=(table,),
    )


def _write_attention(folder: Path) -> str:
    """Write a feature that stored a page of attention; return its receipt's digest."""
    folder.mkdir(parents=True)
    variant = Variant.of_layers("base", patterns(5), {"sink": statistic()})
    page = AttentionPage(
        "Heads", "Where they look.", (SINK,), (PageText("t", words(5), (variant,)),)
    )
    (folder / "attention.html").write_text(render(page), "utf-8")
    return _write_result(
        folder,
        measurements={"heads": Measurement.of_exact(6, "heads")},
        headline=("heads",),
        findings=("6 heads look somewhere.",),
    )


def write_config(folder: Path) -> Path:
    """Write the config of a run on the small world, in this process alone; return it."""
    config = Path("lab/synthesis/site/experiment.yaml").read_text("utf-8")
    path = folder / "config.yaml"
    small = config.replace("workers: 2 ", "workers: 1 ").replace("answers: 4 ", "answers: 3 ")
    path.write_text(small.replace("max_new_tokens: 12", "max_new_tokens: 6"), "utf-8")
    return path
