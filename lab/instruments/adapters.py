"""LoRA adapters: attaching, counting, saving and loading.

ΔW = (α/r)·B·A (Hu et al. 2021, arXiv:2106.09685).
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lab.instruments.models import Loaded, architecture

if TYPE_CHECKING:
    from peft import PeftModel

WEIGHTS = "adapter_model.safetensors"  # PEFT's name: PeftModel.from_pretrained finds it


class AdapterError(RuntimeError):
    """An adapter is missing, or does not fit the model."""


@dataclass(frozen=True)
class LoraSettings:
    """The settings of an adapter, under the names of PEFT's LoraConfig.

    r: rank; ΔW is scaled by lora_alpha / r, with use_rslora by α/√r.
    """

    r: int
    lora_alpha: float
    lora_dropout: float = 0.0
    use_rslora: bool = False  # rank-stabilised: Kalajdzievski 2023, arXiv:2312.03732

    @property
    def scale(self) -> float:
        """Return s of ΔW = s·B·A."""
        if self.use_rslora:
            return self.lora_alpha / math.sqrt(self.r)
        return self.lora_alpha / self.r


def attach(loaded: Loaded, settings: LoraSettings, seed: int) -> "PeftModel":
    """Freeze the model and give each linear layer but the head an adapter, with random A and B = 0.

    A is drawn here, so the seed is set first.

    Raises:
        AdapterError: some linear layer got no adapter, or anything but adapters would be trained.
    """
    from peft import LoraConfig, get_peft_model

    from lab.instruments import lora_linear  # loads PEFT

    family = architecture(loaded.model.config)
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        use_rslora=settings.use_rslora,
        target_modules=sorted({name.rpartition(".")[2] for name in family.linears}),
        # GPT-2's Conv1D keeps weights as [in, out]
        fan_in_fan_out=loaded.model.config.model_type == "gpt2",
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        # PEFT 0.21 still asks transformers 5.23 for the old name of this property
        warnings.filterwarnings(
            "ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning
        )
        model = get_peft_model(loaded.model, config)
    # a folder's path would differ by machine
    model.peft_config["default"].base_model_name_or_path = loaded.name
    _check_attached(model, len(family.linears) * loaded.model.config.num_hidden_layers)
    lora_linear.fuse(model)
    return model


def _check_attached(model: "PeftModel", expected: int) -> None:
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    pairs = sum("lora_B" in name for name in trained)
    if pairs != expected or len(trained) != 2 * expected:
        msg = (
            f"{pairs} linear layers have an adapter, {len(trained)} tensors are trained; expected "
            f"{expected} and twice it"
        )
        raise AdapterError(msg)


def parameters(model: "PeftModel") -> dict[str, torch.nn.Parameter]:
    """Return the trained tensors by name, in the model's order."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def state(model: "PeftModel") -> dict[str, torch.Tensor]:
    """Return a copy of the adapter's tensors under the names that PEFT's files have."""
    from peft import get_peft_model_state_dict

    # "auto" would look for the base on the hub
    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def restore(model: "PeftModel", tensors: Mapping[str, torch.Tensor]) -> None:
    """Load what `state` returned.

    Raises:
        AdapterError: a tensor belongs to no adapter of this model.
    """
    from peft import set_peft_model_state_dict

    outcome = set_peft_model_state_dict(model, dict(tensors))
    if outcome.unexpected_keys:
        msg = (
            f"{len(outcome.unexpected_keys)} tensors belong to no adapter here, such as "
            f"{outcome.unexpected_keys[0]}"
        )
        raise AdapterError(msg)


def save(model: "PeftModel", folder: Path) -> None:
    """Write the adapter so that PEFT loads it from `folder`: tensors and config, no model card."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(state(model), folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)
    model.peft_config["default"].save_pretrained(str(folder))
