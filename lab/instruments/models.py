"""Models: where each architecture keeps its parts, loading, and a tiny random one for tests.

`python -m lab.instruments.models fetch smollm2-135m` downloads the default
model to the cache. It loads no torch when the model is there already: torch and transformers are
imported where they are used.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lab.digests import digest_of, sha256
from lab.instruments import chat, pretrained

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from lab.contract import Inputs

Quantisation = Literal["nf4", "fp4"]

WEIGHTS = "model.safetensors"


class ModelError(ValueError):
    """A model cannot be loaded or is of an architecture that is not in ARCHITECTURES."""


@dataclass(frozen=True)
class Architecture:
    """Where one model family keeps its parts.

    Dotted paths below the causal language model; `linears` below a layer.
    """

    layers: str
    embedding: str
    final_norm: str
    attention: str
    mlp: str
    linears: tuple[str, ...]
    head: str = "lm_head"


_LLAMA = Architecture(
    layers="model.layers",
    embedding="model.embed_tokens",
    final_norm="model.norm",
    attention="self_attn",
    mlp="mlp",
    linears=(
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ),
)

ARCHITECTURES: Mapping[str, Architecture] = {  # by config.model_type
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    # GPT-2 stores its linear layers as Conv1D, transposed; bitsandbytes quantises them nevertheless
    "gpt2": Architecture(
        layers="transformer.h",
        embedding="transformer.wte",
        final_norm="transformer.ln_f",
        attention="attn",
        mlp="mlp",
        linears=("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
    ),
    "gpt_neox": Architecture(
        layers="gpt_neox.layers",
        embedding="gpt_neox.embed_in",
        final_norm="gpt_neox.final_layer_norm",
        attention="attention",
        mlp="mlp",
        linears=(
            "attention.query_key_value",
            "attention.dense",
            "mlp.dense_h_to_4h",
            "mlp.dense_4h_to_h",
        ),
    ),
}


def architecture(config: PretrainedConfig) -> Architecture:
    """Return where a model with this config keeps its parts.

    Raises:
        ModelError: the family is unknown; the message lists the known ones.
    """
    family = config.model_type
    if family not in ARCHITECTURES:
        names = ", ".join(sorted(ARCHITECTURES))
        msg = (
            f"architecture {family!r} is not known; known: {names}. Add it to "
            f"ARCHITECTURES in {__file__}"
        )
        raise ModelError(msg)
    return ARCHITECTURES[family]


@dataclass(frozen=True)
class Loaded:
    """A model with its tokenizer, in evaluation mode.

    `folder` is None for a model from the hub or from a seed.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    folder: Path | None = None

    @cached_property
    def digest(self) -> str:
        """Return the SHA-256 (hex) of the weights: of their files, else of all tensors."""
        if self.folder:
            return weights_digest(self.folder)
        return _digest_of_tensors(self.model)

    @property
    def calibrated(self) -> bool:
        """Return whether this lab's reference values were measured on exactly these weights."""
        return self.digest == pretrained.FILES[WEIGHTS]


def locate(name: str, inputs: Inputs) -> Path:
    """Return the folder of a config's model: an input of the run, or `owner/name` on the hub.

    A model of the hub is downloaded to the hub's own cache, unless it is there; HF_HUB_OFFLINE=1
    forbids the download.

    Raises:
        ContractError: neither an input nor a name on the hub.
        ModelError: the hub cannot be reached, or does not have the model.
    """
    if name in inputs.entries or "/" not in name:
        return inputs.path(name)
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(
                name, allow_patterns=["*.json", "*.safetensors", "*.jinja"]
            )
        )
    except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
        msg = (
            f"model {name!r} is no input of this run and cannot be downloaded from the hub: {error}"
        )
        raise ModelError(msg) from error


def load(
    path_or_hub_id: str | Path,
    *,
    dtype: torch.dtype,
    quantisation: Quantisation | None = None,
    double_quant: bool = True,
    attn: str = "sdpa",
    device: str = "cpu",
) -> Loaded:
    """Load a causal language model and its tokenizer.

    With `quantisation` its linear layers are in 4 bits (bitsandbytes).

    Args:
        path_or_hub_id: a folder with config.json, safetensors and tokenizer, or a name on the hub.
        dtype: of the weights that are not quantised (embedding, norms) and of the computation.
        quantisation: data type of the 4-bit weights, in blocks of 64; None: no weight is
            quantised.
        double_quant: quantise the blocks' scales too, to 8 bits in blocks of 256 (Dettmers et
            al. 2023, QLoRA).
        attn: name of transformers' attention implementation.
        device: where the model computes.

    Raises:
        ModelError: there is no model, or its architecture is not known.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    source = str(path_or_hub_id)
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        msg = (
            f"no model at {source!r}: {error}. The default: python -m lab.instruments.models fetch "
            f"{pretrained.NAME}"
        )
        raise ModelError(msg) from error
    architecture(config)
    quantiser = None
    if quantisation:
        quantiser = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quantisation,
            bnb_4bit_use_double_quant=double_quant,
            bnb_4bit_compute_dtype=dtype,
        )
    model = AutoModelForCausalLM.from_pretrained(
        source,
        config=config,
        dtype=dtype,
        quantization_config=quantiser,
        attn_implementation=attn,
        device_map=device,
    )
    _keep_precision(model)
    folder = Path(source) if Path(source).is_dir() else None
    return Loaded(model.eval(), AutoTokenizer.from_pretrained(source), Path(source).name, folder)


def _keep_precision(model: PreTrainedModel) -> None:
    """Let 4-bit layers compute in the requested dtype, also in evaluation, and keep gradients.

    On a CPU with AVX512-BF16, bitsandbytes 0.50 repacks a layer at its first forward pass in
    evaluation mode for a kernel that rounds to bfloat16 (0.008 nats here) and has no backward pass.
    The layer stays so: training that begins after an evaluation would silently lose every gradient
    that goes through a frozen layer.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def tiny(seed: int) -> Loaded:
    """Return a random Llama: 2 layers, width 64, 4 query and 2 key-value heads, byte tokenizer.

    It needs no network and computes as the real model does: instruments and gates are tested with
    it in seconds.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="sdpa",
    )
    with torch.random.fork_rng():  # leaves the caller's random state as it is
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    return Loaded(model.eval(), tokenizer, f"tiny-{seed}")


def linear_weights(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield name and weight of every linear layer but the head: what QLoRA quantises and adapts."""
    family = architecture(model.config)
    for number in range(model.config.num_hidden_layers):
        for linear in family.linears:
            name = f"{family.layers}.{number}.{linear}"
            yield name, model.get_submodule(name).weight.detach()


def save(loaded: Loaded, folder: Path) -> None:
    """Write model and tokenizer so that transformers loads them from `folder`."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)


def _byte_tokenizer() -> PreTrainedTokenizerBase:
    """Return a tokenizer of one token per byte, three special tokens of ChatML and no merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*special, *letters])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token=special[0],
        bos_token=special[1],
        eos_token=special[2],
        pad_token=special[2],
    )
    tokenizer.chat_template = chat.CHATML
    return tokenizer


def weights_digest(folder: Path) -> str:
    """Return the SHA-256 (hex) of the weights stored in a folder.

    Of their one file; of several, of their names and digests.
    """
    if (folder / WEIGHTS).is_file():
        return digest_of(folder / WEIGHTS)
    paths = sorted(folder.glob("*.safetensors"))
    lines = [f"{path.name} {digest_of(path)}\n" for path in paths]
    return sha256("".join(lines).encode())


def _digest_of_tensors(model: PreTrainedModel) -> str:
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def main() -> None:
    """Run the command line: `fetch smollm2-135m`."""
    parser = argparse.ArgumentParser(prog="python -m lab.instruments.models")
    commands = parser.add_subparsers(required=True)
    commands.add_parser("fetch", help="download a model to the cache").add_argument(
        "name", choices=[pretrained.NAME]
    )
    parser.parse_args()
    try:
        sys.stdout.write(pretrained.fetch(pretrained.cache_folder()) + "\n")
    except pretrained.FetchError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
