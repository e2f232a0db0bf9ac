"""A replay of FEAT-008: the sampled texts, and a drawn adapter on drawn items and texts."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lab.contract import Context, ContractError
from lab.forgetting.experiment import EARLIER, job_of, suite_text, texts_text
from lab.replay import Row, main

if TYPE_CHECKING:
    from lab.forgetting.scoring import Job

SCORES = "artifacts/scores.safetensors"


def replay(ctx: Context, stored: Path, draw: random.Random) -> list[Row]:
    """Return the rows of a stored run."""
    from lab.instruments import aside, sweep

    with sweep.open_context(ctx, EARLIER) as (sweep_context, earlier):
        job = job_of(ctx, sweep_context)
        folders = [*earlier, stored / "artifacts"]
        task = (_replay, job, stored, folders, draw)
        rows: list[Row] = aside.run({"": task}, workers=1, threads=sweep_context.threads)[""]
    return rows


def _replay(job: Job, stored: Path, folders: list[Path], draw: random.Random) -> list[Row]:
    from transformers import AutoTokenizer

    from lab.forgetting import base_text, scoring
    from lab.instruments import multiple_choice, packing

    # 1. The items of a suite, and what the base writes.
    texts = scoring.write(job)
    suite = draw.choice(sorted({item.suite for item in job.items}))
    of_suite = [item for item in job.items if item.suite == suite]
    rows = [
        _row_of_text(f"items of {suite}", f"artifacts/suites/{suite}.jsonl", suite_text(of_suite)),
        _row_of_text("texts sampled from the base", "artifacts/text.jsonl", texts_text(texts)),
    ]

    # 2. A pack of items, one of texts, and a matrix, for a drawn adapter.
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    tokens = [multiple_choice.encode(tokenizer, item) for item in job.items]
    items = _draw_pack([len(pack) for pack in multiple_choice.fill(tokens)], draw)
    packs = packing.fill(texts, base_text.TOKENS_PER_PACK)
    read = _draw_pack([len(pack) for pack in packs], draw)
    matrix = draw.randrange(len(job.matrices))
    part_of_job = dataclasses.replace(
        job, items=tuple(job.items[i] for i in items), matrices=(job.matrices[matrix],)
    )
    models = json.loads((stored / "artifacts/models.json").read_text("utf-8"))["models"]
    name = draw.choice(sorted(models))
    folder = _trial_folder(models[name]["trial"], folders)
    scores = scoring.score(part_of_job, folder, [texts[i] for i in read])

    # 3. Its scores.
    return [*rows, *_rows_of_scores(stored, name, scores, items=items, texts=read, matrix=matrix)]


def _rows_of_scores(
    stored: Path, name: str, scores: object, *, items: range, texts: range, matrix: int
) -> list[Row]:
    from safetensors.numpy import load_file

    ids = load_file(stored / SCORES)[f"{name}.example_ids"]
    of_tokens = np.flatnonzero((ids >= texts.start) & (ids < texts.stop))
    indices = {
        "log_likelihoods": tuple(items),
        "losses": tuple(of_tokens.tolist()),
        "divergences": tuple(of_tokens.tolist()),
        "norms": None,
        "similarities": (matrix,),
    }
    words = {
        "log_likelihoods": f"items {items.start} to {items.stop - 1}",
        "losses": f"texts {texts.start} to {texts.stop - 1}",
        "divergences": f"texts {texts.start} to {texts.stop - 1}",
        "norms": "all linear layers",
        "similarities": f"matrix {matrix}",
    }
    rows = []
    for part, places in indices.items():
        row = Row(
            quantity=f"{part} of {name}, {words[part]}",
            file=SCORES,
            part=(f"{name}.{part}",),
            indices=places,
            recomputed=getattr(scores, part),
        )
        rows.append(row)
    return rows


def _row_of_text(quantity: str, file: str, text: str) -> Row:
    return Row(
        quantity=quantity,
        file=file,
        part=(),
        recomputed=np.frombuffer(text.encode(), dtype=np.uint8),
        tolerance=1.0,
        reason="one token drawn otherwise changes all that follow",
    )


def _draw_pack(sizes: list[int], draw: random.Random) -> range:
    """Return the places of the members of a drawn pack, from the sizes of all packs in order.

    A whole one, because the bits of a product depend on how many rows it has.
    """
    number = draw.randrange(len(sizes))
    first = sum(sizes[:number])
    return range(first, first + sizes[number])


def _trial_folder(trial: str, artifacts: list[Path]) -> Path:
    """Return where a trial is stored.

    Raises:
        ContractError: none of the features has it.
    """
    for folder in artifacts:
        path = folder / "trials" / trial
        if path.is_dir():
            return path
    msg = f"no feature has the trial {trial}; give those that trained the adapters"
    raise ContractError(msg)


if __name__ == "__main__":
    main(replay)
