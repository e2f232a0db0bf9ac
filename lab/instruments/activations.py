"""Activations recorded while a model runs: the residual stream, and what each layer adds to it.

    with torch.no_grad(), ActivationExtractor(model, layers=[3, 4]) as extractor:
        logits = model(ids).logits
    extractor["resid_post", 3]  # [B, T, D]

Names are those of TransformerLens. Each is read where the model itself has it, none is computed:

    x  resid_pre   the input of layer l, before its norm
    a  attn_out    what attention adds, behind the norm that some families have there
       resid_mid   the input of the norm before the MLP: x + a
    m  mlp_out     what the MLP adds
    y  resid_post  the output of layer l: x + a + m, and the input of layer l + 1

The model keeps its logits bit for bit. What is recorded is the tensor that the model made, not a
copy: to record all of a stream costs no time, and no memory but what the model would free.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from lab.instruments import residual_stream
from lab.instruments.activation_statistics import ActivationStatistics
from lab.instruments.attention import CaptureError
from lab.instruments.capture import chosen

if TYPE_CHECKING:
    from peft import PeftModel
    from torch.utils.hooks import RemovableHandle
    from transformers import PreTrainedModel

SHAPES = dict.fromkeys(
    ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"), "[B, positions, D]"
)
ALIASES = {"pre_attn": "resid_pre", "post_ffn": "resid_post"}

Key = tuple[str, int]  # name and layer


class _StopPass(Exception):  # noqa: N818 (no error: it ends a forward pass)
    """Raised inside the model when all that one extractor wanted is recorded."""

    def __init__(self, extractor: ActivationExtractor) -> None:
        super().__init__()
        self.extractor = extractor


@dataclass(frozen=True)
class _Copy:
    """The copy of a tensor that had this version; the reference keeps no graph alive."""

    tensor: weakref.ref[torch.Tensor]
    version: int | None
    kept: torch.Tensor


class ActivationExtractor:
    """A context manager that records activations of one model's forward pass.

    Args:
        model: a causal language model of a family of `residual_stream.FAMILIES`; also quantised, or
            wrapped by PEFT.
        record: keys of SHAPES, or the aliases "pre_attn" (resid_pre) and "post_ffn" (resid_post).
        layers, positions: which layers and tokens; None: all.
        dtype: of the recorded tensors; None: the model's.
        folder: write each layer's tensors to layer_00.safetensors, … there and keep none in memory.
        statistics: keep `ActivationStatistics` in place of tensors. Only these may go on over
            several passes, and over several `with` blocks, until `clear()`. Padding is left out, by
            the attention mask [B, T] that the model is given.
        stop: end the forward pass, and the `with` block, as soon as all that is wanted is recorded.
            No later layer is computed, and what comes after the model in the block does not run.

    Tensors stay on the device that the model computes on. A tensor that is not copied (no dtype, no
    positions) is the model's own: one that was changed in place afterwards is refused when it is
    read.

    Hooks of others that change the stream run before those of the extractor, in whatever order they
    were put there: what is recorded is what the model goes on with.

    Raises:
        CaptureError: at the start, if the model cannot be recorded; in a forward pass, if something
            is recorded twice, or a position does not exist.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        *,
        record: Collection[str] = ("resid_post",),
        layers: Sequence[int] | None = None,
        positions: Sequence[int] | None = None,
        dtype: torch.dtype | None = None,
        folder: Path | None = None,
        statistics: bool = False,
        stop: bool = False,
    ) -> None:
        # 1. What is recorded.
        names = [ALIASES.get(name, name) for name in record]
        unknown = sorted(set(names) - set(SHAPES))
        if unknown:
            msg = f"record {unknown}: not known; known are {', '.join([*SHAPES, *ALIASES])}"
            raise CaptureError(msg)
        if not names:
            msg = f"record names nothing; known are {', '.join([*SHAPES, *ALIASES])}"
            raise CaptureError(msg)
        self.record = tuple(dict.fromkeys(names))

        # 2. Of which model, and where.
        self.model = residual_stream.unwrapped(model)
        self._stream = residual_stream.residual_stream(self.model)
        if "resid_mid" in self.record and self._stream.resid_mid is None:
            msg = "this model adds both writes at once (parallel residual), so there is no "
            msg += "resid_mid; record attn_out and mlp_out"
            raise CaptureError(msg)
        count = self.model.config.num_hidden_layers
        self.layers = tuple(range(count)) if layers is None else chosen("layer", layers, count)
        self.positions = None if positions is None else tuple(positions)

        # 3. How it is kept.
        if statistics and (folder is not None or dtype is not None):
            msg = "statistics keep no tensors; leave folder and dtype out"
            raise CaptureError(msg)
        self.dtype = dtype
        self.folder = folder
        self.with_statistics = statistics
        self.stop = stop
        self.statistics: dict[Key, ActivationStatistics] = {}
        self._tensors: dict[Key, tuple[torch.Tensor, int | None]] = {}  # with its version
        self._done: set[Key] = set()  # in this pass
        self._written: dict[int, tuple[int, ...]] = {}  # layer -> what its file was like
        self._mask: torch.Tensor | None = None  # [B, T], of this pass
        self._last: _Copy | None = None
        self._handles: list[RemovableHandle] = []
        self._thread = 0
        self._cleanup: ExitStack | None = None

    def __enter__(self) -> Self:
        """Put the hooks on the model.

        Raises:
            CaptureError: the model computes layers twice, or the extractor is in use.
        """
        # 1. Refuse what would be recorded wrongly.
        if self._cleanup is not None:
            msg = "this extractor is recording already; leave its block first"
            raise CaptureError(msg)
        if any(getattr(part, "gradient_checkpointing", False) for part in self.model.modules()):
            msg = "gradient checkpointing computes each layer twice; switch it off to record: "
            msg += "model.activation_checkpointing_disable()"
            raise CaptureError(msg)

        # 2. Hook. Whatever fails from here on, the stack takes all of it back.
        self._thread = threading.get_ident()
        if not self.with_statistics:
            self.clear()
        with ExitStack() as stack:
            backbone = self.model.get_submodule(self._stream.backbone)
            start = backbone.register_forward_pre_hook(self._start_pass, with_kwargs=True)
            stack.callback(start.remove)
            layers = residual_stream.layers(self.model)
            for layer in dict.fromkeys(self.layers):
                for name in self.record:
                    handle = self._hook(layers[layer], name, layer)
                    self._handles.append(handle)
                    stack.callback(handle.remove)
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, *_: object
    ) -> bool:
        """Take the hooks from the model; the end of a pass that was stopped is no error.

        That of another extractor, around this one, goes on to it.
        """
        if self._cleanup is not None:
            self._cleanup.close()
        self._cleanup = None
        self._handles.clear()
        self._mask = self._last = None
        return isinstance(error, _StopPass) and error.extractor is self

    def __deepcopy__(self, _memo: object) -> Self:
        """Refuse: a model that is copied inside the block would take its hooks along."""
        msg = "a model that is being recorded was copied; copy it before the block"
        raise CaptureError(msg)

    def clear(self) -> None:
        """Forget what was recorded, so that the model can run again."""
        self.statistics.clear()
        self._tensors.clear()
        self._done.clear()
        self._written.clear()

    def __getitem__(self, key: str | Key) -> torch.Tensor:
        """Return [B, positions, D]: `extractor["resid_post", 3]`, "blocks.3.hook_resid_post".

        From the file, where `folder` was given.

        Raises:
            CaptureError: it was not recorded, or was changed in place since, or its file was.
        """
        key = _parsed(key)
        if key in self._tensors:
            return self._unchanged(key)
        name, layer = key
        if key in self._done and self.folder is not None:
            from safetensors import safe_open

            path = _path(self.folder, layer)
            if not path.exists() or _stamp(path) != self._written[layer]:
                msg = f"{path} was written again or deleted since; give each extractor its folder"
                raise CaptureError(msg)
            with safe_open(path, framework="pt") as file:
                tensor: torch.Tensor = file.get_tensor(name)
            return tensor
        msg = f"{name} of layer {layer} was not recorded; recorded: {self._summary()}"
        raise CaptureError(msg)

    def stacked(self, name: str) -> torch.Tensor:
        """Return a name's tensors of all chosen layers, [layers, B, positions, D]."""
        return torch.stack([self[name, layer] for layer in self.layers])

    @property
    def recorded(self) -> frozenset[int]:
        """Return the layers of which all that was asked for was recorded."""
        return frozenset(layer for layer in self.layers if self._has_all(layer))

    def require_all_recorded(self) -> None:
        """Check that every chosen layer was recorded: the guard against a hook that never ran.

        Raises:
            CaptureError: the model did not run inside the block, skipped layers, or broke off.
        """
        missing = sorted(set(self.layers) - self.recorded)
        if missing:
            msg = f"layers {missing} were not recorded; run the model inside the `with` block"
            raise CaptureError(msg)
        counts = {each.sequences for each in self.statistics.values()}
        if len(counts) > 1:
            msg = f"statistics are of {sorted(counts)} sequences: a pass broke off; call clear() "
            msg += "and begin again"
            raise CaptureError(msg)

    def _has_all(self, layer: int) -> bool:
        seen = self.statistics if self.with_statistics else self._done
        return all((name, layer) in seen for name in self.record)

    def _summary(self) -> str:
        if self.with_statistics:
            return "statistics alone, in `statistics`"
        if not self._done:
            return "nothing; run the model inside the `with` block"
        layers = sorted({layer for _, layer in self._done})
        return f"{', '.join(self.record)} of layers {layers}"

    # What the hooks call

    def _hook(self, module: torch.nn.Module, name: str, layer: int) -> Any:
        """Put the hook for one name on a layer, or on a module inside it; return its handle."""
        note_input = partial(self._note_input, name=name, layer=layer)
        note_output = partial(self._note_output, name=name, layer=layer)
        if name == "resid_pre":
            return module.register_forward_pre_hook(note_input, with_kwargs=True)
        if name == "resid_post":
            return module.register_forward_hook(note_output)
        part = module.get_submodule(self._stream.part(name))
        if name == "resid_mid":
            return part.register_forward_pre_hook(note_input, with_kwargs=True)
        return part.register_forward_hook(note_output)

    def _start_pass(
        self, module: torch.nn.Module, inputs: tuple[Any, ...], given: dict[str, Any]
    ) -> None:
        """Begin a pass: read after all others; for statistics take the mask, refuse half a text."""
        if threading.get_ident() != self._thread:
            msg = "another thread runs the model that is being recorded; let one run at a time"
            raise CaptureError(msg)

        # 1. Hooks of others may change what a module takes or returns: theirs run first.
        for handle in self._handles:
            handle.hooks_dict_ref().move_to_end(handle.id)
        if not self.with_statistics:
            return

        # 2. The mask, by its name or by its place.
        self._done.clear()
        given = inspect.signature(module.forward).bind_partial(*inputs, **given).arguments
        given |= given.get("kwargs", {})
        self._mask = given.get("attention_mask")
        if self._mask is not None and (not torch.is_tensor(self._mask) or self._mask.dim() != 2):
            msg = "statistics leave padding out by an attention mask [B, T]; got another kind"
            raise CaptureError(msg)

        # 3. What is no whole text, or several in one row.
        cache = given.get("past_key_values")
        if cache is not None and cache.get_seq_length() > 0:
            msg = "earlier tokens are in the cache, so statistics would be of the rest of a text; "
            msg += "run the whole text at once"
            raise CaptureError(msg)
        if _restarts(given.get("position_ids"), self._mask):
            msg = "a row holds several texts (its position_ids begin again), and statistics know "
            msg += "one first token in a row; give each text a row of its own"
            raise CaptureError(msg)

    def _note_input(
        self, _module: Any, inputs: tuple[Any, ...], given: dict[str, Any], **key: Any
    ) -> None:
        self._note(inputs[0] if inputs else given["hidden_states"], **key)

    def _note_output(self, _module: Any, _inputs: Any, output: Any, **key: Any) -> None:
        self._note(output[0] if isinstance(output, tuple) else output, **key)

    def _note(self, tensor: torch.Tensor, *, name: str, layer: int) -> None:
        """Record one tensor [B, T, D]."""
        # 1. Once per forward pass.
        if (name, layer) in self._done:
            msg = f"{name} of layer {layer} ran twice; call clear() before the model runs again "
            msg += "(generate() runs it once per token: record a pass over the whole text)"
            raise CaptureError(msg)
        if self.positions is not None:
            chosen("position", self.positions, tensor.shape[1])

        # 2. Keep it, or what follows from it.
        with torch.no_grad():
            if self.with_statistics:
                self._count(tensor.detach(), (name, layer))
            else:
                self._keep(tensor, (name, layer))
        self._done.add((name, layer))
        if self.folder is not None and self._has_all(layer):
            self._write(self.folder, layer)

        # 3. Nothing more is wanted: the rest of the model need not run.
        if self.stop and len(self._done) == len(self.record) * len(set(self.layers)):
            raise _StopPass(self)

    def _keep(self, tensor: torch.Tensor, key: Key) -> None:
        """Keep what the model made, or one copy of it where it has to be changed.

        resid_post of a layer and resid_pre of the next are one tensor, and are copied once, unless
        it was changed in place between, or counts no changes.
        """
        version = None if tensor.is_inference() else tensor._version
        last = self._last
        if last is not None and last.tensor() is tensor and last.version == version is not None:
            kept = last.kept
        else:
            kept = tensor.detach()
            if self.positions is not None:
                kept = kept[:, list(self.positions)]
            kept = kept.to(self.dtype or kept.dtype)
            # An inference tensor counts no changes, so that a later one could not be seen.
            if kept.data_ptr() == tensor.data_ptr() and tensor.is_inference():
                kept = kept.clone()
            is_copy = kept.data_ptr() != tensor.data_ptr()
            self._last = _Copy(weakref.ref(tensor), version, kept) if is_copy else None
        self._tensors[key] = (kept, None if kept.is_inference() else kept._version)

    def _unchanged(self, key: Key) -> torch.Tensor:
        """Return a tensor in memory.

        Raises:
            CaptureError: it was changed in place after it was recorded.
        """
        tensor, version = self._tensors[key]
        if version is not None and tensor._version != version:
            msg = f"{key[0]} of layer {key[1]} was changed in place after it was recorded, by the "
            msg += "model or by its user; run the model under torch.inference_mode(), where the "
            msg += "extractor keeps copies"
            raise CaptureError(msg)
        return tensor

    def _write(self, folder: Path, layer: int) -> None:
        """Write a layer's tensors to its file, and forget them."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        # safetensors refuses two names for one tensor, so each is a copy.
        tensors = {name: self._unchanged((name, layer)).clone() for name in self.record}
        save_file(tensors, _path(folder, layer))
        self._written[layer] = _stamp(_path(folder, layer))
        for name in self.record:
            del self._tensors[name, layer]

    def _count(self, tensor: torch.Tensor, key: Key) -> None:
        """Count a tensor [B, T, D] in its statistics, without padding."""
        # 1. Which tokens count, and which of them is the first of its row.
        batch, total, _ = tensor.shape
        mask = torch.ones(batch, total, dtype=torch.bool, device=tensor.device)
        if self._mask is not None:
            mask = self._mask.to(device=tensor.device, dtype=torch.bool)
        first = torch.zeros_like(mask)
        first[torch.arange(batch, device=mask.device), mask.long().argmax(dim=1)] = True
        positions = torch.arange(total, device=tensor.device)

        # 2. The chosen ones.
        if self.positions is not None:
            wanted = list(dict.fromkeys(self.positions))
            tensor, mask, first = tensor[:, wanted], mask[:, wanted], first[:, wanted]
            positions = positions[wanted]
        statistics = self.statistics.setdefault(key, ActivationStatistics())
        statistics.update(tensor, keep=mask, first=first, positions=positions)


def _path(folder: Path, layer: int) -> Path:
    return folder / f"layer_{layer:02d}.safetensors"


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is written again."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _restarts(position_ids: torch.Tensor | None, mask: torch.Tensor | None) -> bool:
    """Return whether positions [1 or B, T] fall within a row's tokens, padding left out."""
    if position_ids is None:
        return False
    falls = position_ids.diff(dim=-1) < 0
    if mask is not None:
        tokens = mask.to(device=falls.device, dtype=torch.bool)
        falls = falls & tokens[:, 1:] & tokens[:, :-1]
    return bool(falls.any())


def _parsed(key: str | Key) -> Key:
    """Return (name, layer) of ("resid_post", 3) or "blocks.3.hook_resid_post"."""
    if not isinstance(key, str):
        name, layer = key
        return ALIASES.get(name, name), layer
    try:
        blocks, layer_text, hook = key.split(".")
        if blocks == "blocks" and hook.startswith("hook_"):
            return hook.removeprefix("hook_"), int(layer_text)
    except ValueError:
        pass
    msg = f'{key!r}; expected ("resid_post", 3) or "blocks.3.hook_resid_post"'
    raise CaptureError(msg)
