"""What all trials of a sweep share: the profile's model, and the data of the first feature."""

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
    """Yield a run's sweep context, and the artifacts folders of `earlier` features (ids).

    Only those features count that are among the run's inputs. The data is that of the first of
    them, byte for byte, so that its trials can be reused. A run on its own draws the data anew and
    writes it to artifacts/. Config keys: model, dtype, device, data (source, max_tokens, train,
    evaluation, curve), threads.
    """
    names = [name for name in earlier if name in ctx.inputs.entries]
    artifacts = [ctx.inputs.path(name) / "artifacts" for name in names]
    with model_folder(ctx) as folder:
        if artifacts:
            data_folder = artifacts[0]
        else:
            data_folder = ctx.out / "artifacts"
            _draw_data(ctx, folder, data_folder)
        sweep_context = SweepContext(
            model=folder,
            train=data_folder / "train.jsonl",
            evaluation=data_folder / "evaluation.jsonl",
            dtype=ctx.config["dtype"],
            device=ctx.config["device"],
            curve=ctx.config["data"]["curve"],
            threads=ctx.config["threads"],
        )
        yield sweep_context, artifacts


@contextmanager
def model_folder(ctx: Context) -> Iterator[Path]:
    """Yield the folder of the profile's model; the tiny one is written to a temporary folder."""
    if ctx.config["model"] != "tiny":
        yield models.locate(ctx.config["model"], ctx.inputs)
        return
    with tempfile.TemporaryDirectory() as scratch:
        models.save(models.tiny(ctx.seed), Path(scratch) / "tiny")
        yield Path(scratch) / "tiny"


def _draw_data(ctx: Context, model_folder: Path, out: Path) -> None:
    """Draw the training and the evaluation examples and write them to `out`."""
    from transformers import AutoTokenizer

    settings = ctx.config["data"]
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    pool = data.load(settings["source"], tokenizer, max_tokens=settings["max_tokens"])
    drawn = data.split(pool, train=settings["train"], evaluation=settings["evaluation"])
    data.write_examples(out / "train.jsonl", drawn.train)
    data.write_examples(out / "evaluation.jsonl", drawn.evaluation)
