import json
from dataclasses import replace

import pytest

from lab.instruments import pretrained
from lab.instruments.model_shape import ModelShape, ShapeError

FAMILIES = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "qwen2": {},
    "qwen3": {"head_dim": 12},
    "mistral": {"tie_word_embeddings": True},
    "gemma2": {"head_dim": 12},
    "gemma3_text": {"head_dim": 12},
    "olmo2": {},
    "phi3": {"pad_token_id": 0},
    "gpt2": {"n_positions": 32},
    "gpt_neox": {},
}
SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
GPT2 = {"vocab_size": 97, "n_embd": 32, "n_layer": 3, "n_head": 4}


def random_model(family: str):
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = GPT2 if family == "gpt2" else SIZES
    config = AutoConfig.for_model(family, **sizes, **FAMILIES[family])
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_those_of_the_model(family: str) -> None:
    model = random_model(family)
    shape = ModelShape.from_config(model.config.to_dict(), family)
    assert shape.total == sum(p.numel() for p in model.parameters())
    assert shape.parameters["embedding"] >= model.get_input_embeddings().weight.numel()
    # control: another width is seen
    assert replace(shape, mlp_width=49).total != shape.total


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "gpt2", "gpt_neox"])
def test_linear_layers_are_those_that_lora_adapts(family: str) -> None:
    from lab.instruments.models import linear_weights

    model = random_model(family)
    shape = ModelShape.from_config(model.config.to_dict(), family)
    weights = [weight for _, weight in linear_weights(model)]
    assert shape.linear_parameters == sum(weight.numel() for weight in weights)
    assert shape.adapter_parameters_per_rank == sum(sum(weight.shape) for weight in weights)
    assert len(shape.layer_linears) * shape.layers == len(weights)


def test_text_part_of_a_multimodal_config() -> None:
    text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    shape = ModelShape.from_config({"model_type": "gemma3", "text_config": text})
    assert (shape.vocabulary, shape.head_width, shape.tied) == (262_208, 256, True)


def test_unknown_family_is_named() -> None:
    with pytest.raises(ShapeError, match="family 'mamba'; expected one of"):
        ModelShape.from_config({"model_type": "mamba"}, "m")


def test_missing_size_is_named() -> None:
    with pytest.raises(ShapeError, match="has no vocab_size"):
        ModelShape.from_config(
            {k: v for k, v in SIZES.items() if k != "vocab_size"} | {"model_type": "llama"}
        )


@pytest.mark.model
def test_smollm2_is_counted_exactly() -> None:
    config = json.loads((pretrained.cache_folder() / pretrained.NAME / "config.json").read_text())
    shape = ModelShape.from_config(config)
    assert shape.total == 134_515_008
    assert shape.linear_parameters == 106_168_320
    assert shape.adapter_parameters_per_rank == 305_280
