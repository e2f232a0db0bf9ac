"""What a sweep of trials stands on: the profile's model, and data frozen by the first feature."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab.contract import Context
from lab.instruments import data, models
from lab.instruments.trials import SweepContext


@contextmanager
def open_context(
    ctx: Context, earlier: Sequence[str] = ()
) -> Iterator[tuple[SweepContext, list[Path]]]:
    """Give a run's sweep_context, and the artifacts folders of `earlier` features (ids) among its inputs.

    The data is that of the first of them, byte for byte, so that its trials can be taken over. A
    run on its own draws the data anew and writes it to artifacts/. Config keys: model, dtype,
    device, data (source, max_tokens, train, evaluation, curve), threads.
    """
    known = [ctx.inputs.path(name) / "artifacts" for name in earlier if name in ctx.inputs.entries]
    with tempfile.TemporaryDirectory() as scratch:
        folder = _model(ctx, Path(scratch))
        place = known[0] if known else _freeze(ctx, folder)
        settings = ctx.config
        yield (
            SweepContext(
                model=folder,
                train=place / "train.jsonl",
                evaluation=place / "evaluation.jsonl",
                dtype=settings["dtype"],
                device=settings["device"],
                curve=settings["data"]["curve"],
                threads=settings["threads"],
            ),
            known,
        )


def _model(ctx: Context, scratch: Path) -> Path:
    """The folder of the profile's model; the tiny one is written to `scratch`."""
    if ctx.config["model"] != "tiny":
        return models.locate(ctx.config["model"], ctx.inputs)
    models.save(models.tiny(ctx.seed), scratch / "tiny")
    return scratch / "tiny"


def _freeze(ctx: Context, folder: Path) -> Path:
    from transformers import AutoTokenizer

    settings, place = ctx.config["data"], ctx.out / "artifacts"
    pool = data.load(
        settings["source"], AutoTokenizer.from_pretrained(folder), max_tokens=settings["max_tokens"]
    )
    drawn = data.split(pool, train=settings["train"], evaluation=settings["evaluation"])
    for name, examples in (("train", drawn.train), ("evaluation", drawn.evaluation)):
        data.freeze(place / f"{name}.jsonl", examples)
    return place
