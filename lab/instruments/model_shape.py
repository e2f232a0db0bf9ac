"""The sizes of a language model, read from its config: parameters by class without any weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


class ShapeError(ValueError):
    """A config is of a family that is not known, or lacks a size."""


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a decoder.

    gated: the MLP has a gate beside `up`; tied: the head is the embedding; fused_qkv, fused_gate:
    one matrix for queries, keys and values, one for gate and up; qkv_bias, output_bias, mlp_bias:
    of attention's three projections, of its output, of the MLP; positions: rows of a table of
    learned positions; layer_norms, final_norm: parameters of the norms of one layer and of the last
    one.
    """

    name: str
    layers: int
    width: int
    query_heads: int
    key_heads: int
    head_width: int
    mlp_width: int
    gated: bool
    vocabulary: int
    tied: bool
    layer_norms: int
    final_norm: int
    fused_qkv: bool = False
    fused_gate: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    positions: int = 0

    @classmethod
    def from_config(cls, config: Mapping[str, Any], name: str = "") -> ModelShape:
        """Return the shape of a hub's config.json; of a multimodal model, that of its text part.

        Raises:
            ShapeError: the family is not known, or a size is missing.
        """
        return _shape(_flat(config), name or str(config.get("_name_or_path") or "model"))

    @property
    def layer_linears(self) -> tuple[tuple[int, int], ...]:
        """Return (inputs, outputs) of each linear layer of one layer of the model."""
        queries = self.query_heads * self.head_width
        keys = self.key_heads * self.head_width
        inward = [(self.width, queries), (self.width, keys), (self.width, keys)]
        if self.fused_qkv:
            inward = [(self.width, queries + 2 * keys)]
        up = [(self.width, self.mlp_width)]
        if self.gated:
            up = 2 * up
        if self.fused_gate:
            up = [(self.width, 2 * self.mlp_width)]
        return (*inward, (queries, self.width), *up, (self.mlp_width, self.width))

    @property
    def linear_parameters(self) -> int:
        """Return the weights of all linear layers but the head: what QLoRA quantises and adapts."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.layer_linears)

    @property
    def adapter_parameters_per_rank(self) -> int:
        """Return the parameters of adapters of rank 1 on all linear layers but the head."""
        return self.layers * sum(inputs + outputs for inputs, outputs in self.layer_linears)

    @property
    def parameters(self) -> dict[str, int]:
        """Return parameters by class."""
        head = 0
        if not self.tied:
            head = self.vocabulary * self.width
        return {
            "embedding": (self.vocabulary + self.positions) * self.width,
            "head": head,
            "linear": self.linear_parameters,
            "bias": self.layers * self._layer_biases(),
            "norm": self.layers * self.layer_norms + self.final_norm,
        }

    @property
    def total(self) -> int:
        """Return all parameters."""
        return sum(self.parameters.values())

    def _layer_biases(self) -> int:
        heads = self.query_heads + 2 * self.key_heads
        biases = 0
        if self.qkv_bias:
            biases += heads * self.head_width
        if self.output_bias:
            biases += self.width
        if self.mlp_bias:
            biases += (1 + self.gated) * self.mlp_width + self.width
        return biases


@dataclass(frozen=True)
class _Family:
    """What the configs of a family leave unsaid.

    norms: of the width, per layer; head_norms: of queries and keys, none, of a head's width or over
    all heads; biases: of qkv, output, MLP: True, False, or the config's key that says it.
    """

    norms: int = 2
    norm_tensors: int = 1  # LayerNorm has a bias too
    head_norms: Literal["none", "head", "all"] = "none"
    gated: bool = True
    tied: bool = False
    fused_qkv: bool = False
    fused_gate: bool = False
    biases: tuple[bool | str, bool | str, bool | str] = (False, False, False)
    defaults: Mapping[str, Any] | None = None  # what a config may leave out


_ATTENTION = ("attention_bias", "attention_bias", False)
_FAMILIES: Mapping[str, _Family] = {  # by config.model_type
    "llama": _Family(biases=("attention_bias", "attention_bias", "mlp_bias")),
    "mistral": _Family(),
    "qwen2": _Family(biases=(True, False, False)),
    "qwen3": _Family(head_norms="head", biases=_ATTENTION, defaults={"head_dim": 128}),
    "gemma2": _Family(norms=4, tied=True, biases=_ATTENTION, defaults={"head_dim": 256}),
    "gemma3_text": _Family(
        norms=4,
        head_norms="head",
        tied=True,
        biases=_ATTENTION,
        defaults={
            "head_dim": 256,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "vocab_size": 262_208,
        },
    ),
    "olmo2": _Family(head_norms="all", biases=_ATTENTION),
    "phi3": _Family(fused_qkv=True, fused_gate=True),
    "gpt2": _Family(
        norm_tensors=2, gated=False, tied=True, fused_qkv=True, biases=(True, True, True)
    ),
    "gpt_neox": _Family(
        norm_tensors=2,
        gated=False,
        fused_qkv=True,
        biases=("attention_bias", "attention_bias", True),
        defaults={"attention_bias": True},
    ),
}
_GPT2_NAMES = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
}


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the text model with the usual names."""
    flat = dict(config)
    text = config.get("text_config")
    if isinstance(text, Mapping):
        flat = {"model_type": f"{config.get('model_type')}_text", **text}
    if flat.get("model_type") == "gpt2":
        flat |= {usual: flat[own] for own, usual in _GPT2_NAMES.items() if own in flat}
        flat["intermediate_size"] = flat.get("intermediate_size") or 4 * flat["hidden_size"]
    return flat


def _shape(config: Mapping[str, Any], name: str) -> ModelShape:
    kind = config.get("model_type")
    family = _FAMILIES.get(str(kind))
    if family is None:
        msg = f"config of {name}: family {kind!r}; expected one of {', '.join(sorted(_FAMILIES))}"
        raise ShapeError(msg)
    stated = {key: value for key, value in config.items() if value is not None}
    sizes = {**(family.defaults or {}), **stated}
    try:
        width = sizes["hidden_size"]
        heads = sizes["num_attention_heads"]
        layers = sizes["num_hidden_layers"]
        mlp_width = sizes["intermediate_size"]
        vocabulary = sizes["vocab_size"]
    except KeyError as missing:
        msg = f"config of {name} ({kind}) has no {missing.args[0]}; expected a size there"
        raise ShapeError(msg) from missing
    key_heads = sizes.get("num_key_value_heads", heads)
    if not family.gated:
        key_heads = heads  # GPT-2 and GPT-NeoX share no key heads, whatever a config says
    head_width = sizes.get("head_dim", width // heads)
    qkv_bias, output_bias, mlp_bias = (
        bias is True or bool(sizes.get(str(bias))) for bias in family.biases
    )
    head_norms = {
        "none": 0,
        "head": 2 * head_width,
        "all": (heads + key_heads) * head_width,
    }[family.head_norms]
    positions = 0
    if kind == "gpt2":
        positions = sizes.get("n_positions", 1024)
    return ModelShape(
        name=name,
        layers=layers,
        width=width,
        query_heads=heads,
        key_heads=key_heads,
        head_width=head_width,
        mlp_width=mlp_width,
        gated=family.gated,
        vocabulary=vocabulary,
        tied=bool(sizes.get("tie_word_embeddings", family.tied)),
        layer_norms=family.norms * family.norm_tensors * width + head_norms,
        final_norm=family.norm_tensors * width,
        fused_qkv=family.fused_qkv,
        fused_gate=family.fused_gate,
        qkv_bias=qkv_bias,
        output_bias=output_bias,
        mlp_bias=mlp_bias,
        positions=positions,
    )
