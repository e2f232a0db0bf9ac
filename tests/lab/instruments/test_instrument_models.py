"""Models: loading, the architecture of each family, the tiny one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from lab.instruments import models

LINEAR = (torch.nn.Linear, Conv1D)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(3, 40)[None]).logits


def test_the_architecture_of_a_family_names_its_modules(family_model):
    architecture = models.architecture(family_model.config)
    layers = family_model.get_submodule(architecture.layers)
    assert len(layers) == 2
    assert family_model.get_submodule(architecture.embedding) is family_model.get_input_embeddings()
    assert family_model.get_submodule(architecture.head) is family_model.get_output_embeddings()
    for part in (architecture.attention, architecture.mlp):
        layers[0].get_submodule(part)
    assert family_model.get_submodule(architecture.final_norm).weight.shape == (64,)
    linears = {name for name, module in layers[0].named_modules() if isinstance(module, LINEAR)}
    assert linears == set(architecture.linears), (
        "a linear layer that is not listed would get no adapter"
    )
    assert len(list(models.linear_weights(family_model))) == 2 * len(architecture.linears)


def test_tiny_is_the_same_for_a_seed_and_another_for_another(tiny):
    same = models.tiny(0)
    other = models.tiny(1)
    assert torch.equal(logits(tiny.model), logits(same.model))
    assert tiny.digest == same.digest != other.digest
    assert tiny.model.config.num_key_value_heads < tiny.model.config.num_attention_heads
    assert not tiny.calibrated


def test_tiny_leaves_the_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    models.tiny(0)
    assert torch.equal(torch.rand(3), expected)


def test_tiny_tokenizer_holds_any_text(tiny):
    text = "def naïve(x): → 'y'\n\t"
    assert tiny.tokenizer.decode(tiny.tokenizer.encode(text)) == text
    assert len(tiny.tokenizer.encode("<|im_end|>")) == 1


def test_loading_from_a_folder_changes_nothing(tiny, tiny_folder):
    loaded = models.load(tiny_folder, dtype=torch.float32)
    assert torch.equal(logits(loaded.model), logits(tiny.model))
    assert loaded.model.config._attn_implementation == "sdpa"
    assert not loaded.model.training
    assert loaded.tokenizer.chat_template == tiny.tokenizer.chat_template


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_quantised_loading_quantises_the_linear_layers_and_nothing_else(tiny, tiny_folder, kind):
    loaded = models.load(tiny_folder, dtype=torch.float32, quantisation=kind)
    quantised = {
        n for n, p in loaded.model.named_parameters() if getattr(p, "quant_state", None) is not None
    }
    assert quantised == {f"{name}.weight" for name, _ in models.linear_weights(loaded.model)}
    states = [p.quant_state for p in loaded.model.parameters() if hasattr(p, "quant_state")]
    assert all(
        state.nested and state.quant_type == kind and state.blocksize == 64 for state in states
    )
    off = (logits(loaded.model) - logits(tiny.model)).norm() / logits(tiny.model).norm()
    assert 0.001 < off < 0.3  # it is not the same model, and not another one


def test_quantised_layers_keep_precision_and_gradients_after_an_evaluation(tiny_folder):
    """By itself bitsandbytes would round in evaluation and then train wrongly.

    This is so where the processor has AVX512-BF16.
    """
    loaded = models.load(tiny_folder, dtype=torch.float32, quantisation="nf4")
    inputs = loaded.model.get_input_embeddings().weight[None, 3:40].detach().requires_grad_()

    def gradient() -> torch.Tensor:
        loaded.model.train()
        return torch.autograd.grad(
            loaded.model(inputs_embeds=inputs).logits.square().mean(), inputs
        )[0]

    before = gradient()
    loaded.model.eval()
    evaluated = logits(loaded.model)
    assert torch.equal(gradient(), before)
    in_training = loaded.model(torch.arange(3, 40)[None]).logits.detach()
    assert (evaluated - in_training).abs().max() < 1e-5 * in_training.abs().max()


def test_an_unknown_architecture_is_refused_with_the_known_ones(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "other")
    config = json.loads((tmp_path / "other/config.json").read_text())
    config |= {"model_type": "opt", "architectures": ["OPTForCausalLM"]}
    (tmp_path / "other/config.json").write_text(json.dumps(config))
    with pytest.raises(
        models.ModelError, match=r"'opt' is not known; known: gpt2, gpt_neox, llama, mistral, qwen2"
    ):
        models.load(tmp_path / "other", dtype=torch.float32)


def test_a_missing_model_names_the_command_that_fetches_it(tmp_path):
    with pytest.raises(
        models.ModelError, match=r"python -m lab\.instruments\.models fetch smollm2-135m"
    ):
        models.load(tmp_path / "nowhere", dtype=torch.float32)


def test_a_model_of_the_hub_is_found_in_its_cache_and_an_input_goes_first(
    tiny, tiny_folder, tmp_path
):
    """A cache as huggingface_hub lays it out, weights in several files as of large models."""
    repository = tmp_path / "hub/models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0" * 40)
    snapshot = repository / "snapshots" / ("0" * 40)
    tiny.model.save_pretrained(snapshot, max_shard_size="100KB")
    tiny.tokenizer.save_pretrained(snapshot)
    assert len(list(snapshot.glob("*.safetensors"))) > 1
    code = (
        "import sys, torch; from lab.contract import Inputs; from lab.instruments import models;"
        "inputs = Inputs({'other/one': {'kind': 'input', 'path': sys.argv[1]}});"
        "assert str(models.locate('other/one', inputs)) == sys.argv[1];"
        "loaded = models.load(models.locate('owner/name', inputs), dtype=torch.float32);"
        "print(loaded.digest, float(loaded.model(torch.arange(3, 40)[None]).logits.abs().sum()));"
        "models.locate('owner/unknown', inputs)"
    )
    env = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    process = subprocess.run(
        [sys.executable, "-c", code, str(tiny_folder)],
        capture_output=True,
        text=True,
        check=False,
        env=env,
    )
    digest, total = process.stdout.split()
    assert digest == models.weights_digest(snapshot) != models.weights_digest(tiny_folder)
    assert float(total) == pytest.approx(float(logits(tiny.model).abs().sum()), rel=1e-5)
    assert (
        "ModelError: model 'owner/unknown' is no input of this run and cannot be downloaded from "
        "the hub" in process.stderr
    )


@pytest.mark.model
def test_fetch_of_a_stored_model_loads_no_torch(smollm2: Path):
    code = (
        "import runpy, sys; sys.argv = ['models', 'fetch', 'smollm2-135m'];"
        "runpy.run_module('lab.instruments.models', run_name='__main__');"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert "already at" in process.stdout


@pytest.mark.model
def test_the_default_model_is_calibrated_and_knows_paris(smollm2: Path):
    loaded = models.load(smollm2, dtype=torch.float32)
    assert loaded.calibrated
    assert loaded.model.num_parameters() == 134_515_008
    prompt = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    answer = loaded.model.generate(**prompt, max_new_tokens=10, do_sample=False)
    assert "Paris" in loaded.tokenizer.decode(answer[0])
