"""The model that a command line names: of models.yaml, a folder or config.json, or of the hub."""

from __future__ import annotations

import json
import socket
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.hardware.catalogue import Catalogue, position_limit
from lab.instruments.model_shape import ModelShape, ShapeError

CONFIG = "config.json"
SIZES = (  # of a hub's config, each a count where it is there
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
    "n_embd",
    "n_layer",
    "n_head",
    "n_inner",
    "n_positions",
)
MOST = 100_000_000  # of any size: no model is near
PATIENCE = 5  # seconds for the hub to answer at all


class FitsError(Exception):
    """The question cannot be answered; the message says why, and `hint` what to type."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class NamedModel:
    """A model's sizes, the most positions that it was trained for (None: unsaid), its origin."""

    shape: ModelShape
    positions: int | None
    origin: str


def find_model(text: str, catalogue: Catalogue) -> NamedModel:
    """Return the model that a text names.

    Raises:
        FitsError: there is none, it cannot be read or downloaded, or its config lacks a size.
    """
    for model in catalogue.models:
        if text.lower() in (model.name.lower(), model.repository.lower()):
            return _named(model.config, model.name, "models.yaml")
    path = Path(text).expanduser()
    if path.exists() or text.startswith(("/", ".", "~")):
        return _of_file(path)
    parts = text.split("/")
    if len(parts) == 2 and all(parts):
        return _of_hub(text)
    names = ", ".join(model.name for model in catalogue.models)
    msg = f"got model {text!r}; expected one of {names}, a folder, a config.json, or OWNER/NAME"
    raise FitsError(msg, "python -m lab fits SmolLM2-135M")


def _of_file(path: Path, name: str = "", origin: str = "") -> NamedModel:
    """Return the model of a folder or a config.json, by default named after the folder."""
    file = path / CONFIG if path.is_dir() else path
    hint = "name a model's folder or its config.json"
    try:
        config = json.loads(file.read_text("utf-8"))
    except OSError as error:
        msg = f"{file} cannot be read: {error.strerror or error}"
        raise FitsError(msg, hint) from error
    except ValueError as error:  # no UTF-8, or no JSON
        msg = f"{file} is no JSON: {error}"
        raise FitsError(msg, hint) from error
    if not isinstance(config, dict):
        msg = f"{file} contains a {type(config).__name__}; expected the object of a {CONFIG}"
        raise FitsError(msg, hint)
    return _named(config, name or file.resolve().parent.name, origin or str(file))


def _of_hub(name: str) -> NamedModel:
    """Return a model of the hub; its config.json alone is downloaded, unless it is in the cache."""
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    hint = "name a config.json that you have, or set HF_TOKEN if the model asks for a login"
    try:
        cached = huggingface_hub.try_to_load_from_cache(name, CONFIG)
        if not isinstance(cached, str):
            if constants.HF_HUB_OFFLINE:
                msg = f"HF_HUB_OFFLINE is set, and {name!r} is not in the hub's cache"
                raise FitsError(msg, hint)
            _check_hub_answers(constants.ENDPOINT)
            cached = huggingface_hub.hf_hub_download(name, CONFIG, etag_timeout=PATIENCE)
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = " ".join(str(error).split())[:200]
        msg = f"the {CONFIG} of {name!r} cannot be had from the hub: {reason}"
        raise FitsError(msg, hint) from error
    return _of_file(Path(cached), name.rpartition("/")[2], f"the hub's {name}")


def _check_hub_answers(endpoint: str) -> None:
    """Fail at once where the hub cannot be reached: its client would try for half a minute.

    Raises:
        OSError: no connection.
    """
    url = urllib.parse.urlsplit(endpoint)
    if not urllib.request.getproxies():
        port = url.port or {"http": 80}.get(url.scheme, 443)
        socket.create_connection((url.hostname, port), timeout=PATIENCE).close()


def _named(config: Mapping[str, Any], name: str, origin: str) -> NamedModel:
    hint = "python -m lab fits --help"
    inner = config.get("text_config")
    for part in (config, inner if isinstance(inner, Mapping) else {}):
        for field in SIZES:
            value = part.get(field)
            is_count = isinstance(value, int) and not isinstance(value, bool)
            if value is not None and not (is_count and 0 < value <= MOST):
                got = f"{value!r:.40}"
                msg = f"{origin}, {field}: got {got}; expected a whole number from 1 to {MOST:,}"
                raise FitsError(msg, hint)
    try:
        shape = ModelShape.from_config(config, name)
    except (ShapeError, KeyError, TypeError) as error:
        reason = str(error)
        if isinstance(error, KeyError):
            reason = f"the config of {name} has no {error.args[0]}"
        raise FitsError(reason, hint) from error
    if shape.query_heads % shape.key_heads:
        msg = (
            f"{origin}, num_key_value_heads: got {shape.key_heads}; expected a divisor of the "
            f"{shape.query_heads} attention heads"
        )
        raise FitsError(msg, hint)
    return NamedModel(shape, position_limit(config), origin)
