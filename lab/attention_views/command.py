"""`python -m lab attention "any text"`: the page of a text of one's own.

With `--adapter FOLDER` the model with that adapter is put beside the base. Nothing is measured
here beyond the page; the experiment has the controls.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.attention_views.page import STATISTICS, variant
from lab.present.attention_page import (
    FULL_TOKENS,
    KEPT,
    MAX_TOKENS,
    AttentionPage,
    PageText,
    Variant,
    render,
)
from lab.present.numbers import count
from lab.result import ContractError

if TYPE_CHECKING:
    from lab.instruments.models import Loaded

FETCH = "python -m lab.instruments.models fetch smollm2-135m"


class AttentionError(Exception):
    """The page cannot be made; the message says why, and `hint` what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def main(argv: Sequence[str]) -> int:
    """Write the page and return the exit code: 0, or 2 where it cannot be made."""
    parser = argparse.ArgumentParser(
        prog="python -m lab attention",
        description="Write a page that shows where each head of a model looks in a text.",
    )
    parser.add_argument("text", nargs="?", help="the text; or name a file by --file")
    parser.add_argument("--file", type=Path, help="a UTF-8 file with the text")
    parser.add_argument(
        "--out", type=Path, default=Path("attention.html"), help="the page (default: %(default)s)"
    )
    parser.add_argument(
        "--model", default="", help="a folder, or a name on the hub (default: smollm2-135m)"
    )
    parser.add_argument("--adapter", type=Path, help="a folder of PEFT's, shown beside the base")
    args = parser.parse_args(argv)

    try:
        text = read_text(args.text, args.file)
        check_place(args.out)
        html, summary = make_page(text, model=args.model, adapter=args.adapter)
        write_page(args.out, html)
    except (AttentionError, ContractError) as error:
        hint = getattr(error, "hint", "python -m lab attention --help")
        sys.stderr.write(f"error: {error}\nnext: {hint}\n")
        return 2
    sys.stdout.write(f"{summary}\nwrote {args.out}: open it in a browser\n")
    return 0


def read_text(text: str | None, file: Path | None) -> str:
    """Return the text that is given, by itself or by a file.

    Raises:
        AttentionError: both or none are given, the file cannot be read, or the text is empty.
    """
    if (text is None) == (file is None):
        given = "neither a text nor" if text is None else "both a text and"
        msg = f"got {given} a file; expected one of them"
        raise AttentionError(msg, 'python -m lab attention "any text"')
    if file is not None:
        try:
            text = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            msg = f"--file {file} cannot be read as UTF-8 text: {error}"
            raise AttentionError(msg, "name a text file") from error
    assert text is not None
    if not text.strip():
        msg = "the text is empty"
        raise AttentionError(msg, f"give 2 to {MAX_TOKENS} tokens of text")
    return text


def make_page(text: str, *, model: str, adapter: Path | None) -> tuple[str, str]:
    """Return the page's HTML, and a line that says what it shows.

    Raises:
        AttentionError: there is no such model or adapter, they do not fit, or the text is too long.
    """
    import torch

    from lab.instruments import sequences

    # 1. The adapter's folder before the model, which takes seconds to load.
    if adapter is not None and not (adapter / "adapter_config.json").is_file():
        msg = f"--adapter {adapter} has no adapter_config.json; expected a folder that PEFT saved"
        raise AttentionError(msg, "name the folder of a trained adapter")
    loaded = _load(model)

    # 2. The tokens.
    ids = loaded.tokenizer.encode(text, add_special_tokens=False, verbose=False)
    if not 2 <= len(ids) <= MAX_TOKENS:
        msg = f"the text has {count(len(ids), 'token')}; expected 2 to {MAX_TOKENS}"
        raise AttentionError(msg, "give a longer or shorter text, or a part of it")
    tokens = sequences.token_texts(loaded.tokenizer, ids)

    # 3. The patterns of the base, then with the adapter in it.
    sequence = torch.tensor(ids)
    variants = [_variant("base", loaded.model, sequence)]
    if adapter is not None:
        tuned = _with_adapter(loaded, adapter)
        variants.append(_variant("tuned", tuned, sequence))

    # 4. The page.
    page = AttentionPage(
        title=f"Attention of {loaded.name}",
        introduction=(
            f"Where the {variants[0].layers * variants[0].heads} heads of {loaded.name} look in a "
            "text. Choose a head in the grid, then point at a token to see what it reads."
        ),
        statistics=STATISTICS,
        texts=(PageText("your text", tokens, variants),),
    )
    shown = "every share"
    if len(ids) > FULL_TOKENS:
        shown = f"the {KEPT} strongest sources of each token"
    labels = " and ".join(one.label for one in variants)
    return render(page), f"{loaded.name} ({labels}), {len(ids)} tokens, {shown}"


def check_place(out: Path) -> None:
    """Refuse what cannot be a file, before a model is loaded.

    Raises:
        AttentionError: it is a folder, or its folder does not exist.
    """
    hint = "name a file in a folder that exists"
    try:
        if out.is_dir():
            msg = f"--out {out} is a folder; expected a file"
            raise AttentionError(msg, hint)
        if not out.parent.is_dir():
            msg = f"--out {out}: the folder {out.parent} does not exist"
            raise AttentionError(msg, hint)
    except OSError as error:
        msg = f"--out {out} cannot be written: {error}"
        raise AttentionError(msg, hint) from error


def write_page(path: Path, html: str) -> None:
    """Write the page; a page of the same name is replaced.

    Raises:
        AttentionError: it cannot be written there.
    """
    try:
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        msg = f"--out {path} cannot be written: {error}"
        raise AttentionError(msg, "name a file in a folder that exists") from error


def _load(model: str) -> Loaded:
    """Return a model in float32; without a name the default one, from the cache."""
    import torch

    from lab.instruments import models, pretrained

    # A path that is none would be looked up on the hub, with an error about names there.
    is_path = model.startswith(("/", ".", "~"))
    if is_path and not (Path(model).expanduser() / "config.json").is_file():
        msg = f"--model {model}: no folder with a config.json"
        raise AttentionError(msg, "name the folder of a model, or a name on the hub")
    source: str | Path = Path(model).expanduser() if is_path else model
    source = source or pretrained.cache_folder() / pretrained.NAME
    try:
        return models.load(source, dtype=torch.float32)
    except models.ModelError as error:
        raise AttentionError(str(error), FETCH) from error


def _variant(label: str, model: Any, ids: Any) -> Variant:
    """Return a model's attention on a text; a model that cannot be recorded is refused."""
    from lab.attention_views import observing
    from lab.instruments.attention import CaptureError

    try:
        return variant(label, observing.patterns_of(model, ids))
    except CaptureError as error:
        raise AttentionError(str(error), "choose another --model") from error


def _with_adapter(loaded: Loaded, folder: Path) -> Any:
    """Return the model with an adapter of PEFT's in it."""
    from peft import PeftModel
    from safetensors import SafetensorError

    try:
        with warnings.catch_warnings():
            # Without these the page would show the base under the name of the adapter.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            # PEFT 0.21 still asks transformers 5.23 for the old name of this property
            warnings.filterwarnings(
                "ignore", message="`is_gradient_checkpointing`", category=FutureWarning
            )
            return PeftModel.from_pretrained(loaded.model, str(folder)).eval()
    except (
        OSError,
        ValueError,
        RuntimeError,
        KeyError,
        TypeError,
        UserWarning,
        SafetensorError,
    ) as error:
        reason = " ".join(str(error).split())[:300]
        if isinstance(error, KeyError):
            reason = f"its adapter_config.json has no {reason}"
        msg = f"the adapter {folder} does not fit {loaded.name}: {reason}"
        raise AttentionError(msg, "name an adapter that was trained on this model") from error
