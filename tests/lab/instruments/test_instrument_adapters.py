"""Adapters: on every linear layer, alone trained, B = 0 at first, back from disk as they were."""

import pytest
import torch
from peft import PeftModel

from lab.instruments import adapters, models
from lab.instruments.adapters import LoraSettings


def logits(model):
    with torch.no_grad():
        return model(torch.arange(3, 30)[None]).logits


def disturb(model, seed=1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in adapters.parameters(model).values():
            p.add_(torch.randn(p.shape, generator=generator) * 0.1)


def test_every_family_gets_adapters_on_all_its_linear_layers(family_model, tiny):
    known = models.architecture(family_model.config)
    loaded = models.Loaded(family_model, tiny.tokenizer, "family")
    before = logits(family_model)
    model = adapters.attach(loaded, LoraSettings(r=2, lora_alpha=4), seed=0)
    names = {n.split(".lora_")[0] for n in adapters.parameters(model)}
    layer = f"base_model.model.{known.layers}"
    assert names == {f"{layer}.{i}.{linear}" for i in range(2) for linear in known.linears}
    assert torch.equal(logits(model), before), "B = 0 must leave the model as it was"
    disturb(model)
    assert not torch.allclose(logits(model), before, atol=1e-3)


def test_the_seed_draws_the_adapter_and_nothing_before_it_does(tiny):
    def drawn(seed, *, disturbance):
        torch.manual_seed(disturbance)
        return adapters.state(
            adapters.attach(models.tiny(0), LoraSettings(r=2, lora_alpha=4), seed)
        )

    one, same, other = drawn(1, disturbance=5), drawn(1, disturbance=6), drawn(2, disturbance=5)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_an_adapter_goes_back_to_its_start(tiny_folder):
    model = adapters.attach(
        models.load(tiny_folder, dtype=torch.float32, quantisation="nf4"), LoraSettings(4, 8), 0
    )
    start, before = adapters.state(model), logits(model)
    disturb(model)
    assert not torch.equal(logits(model), before)
    adapters.restore(model, start)
    assert torch.equal(logits(model), before)


# PEFT's own call
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_peft_loads_what_was_saved(tiny_folder, tmp_path):
    model = adapters.attach(
        models.load(tiny_folder, dtype=torch.float32), LoraSettings(r=4, lora_alpha=8), 0
    )
    disturb(model)
    adapters.save(model, tmp_path / "adapter")
    again = PeftModel.from_pretrained(
        models.load(tiny_folder, dtype=torch.float32).model, tmp_path / "adapter"
    )
    assert torch.equal(logits(again), logits(model))
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_a_layer_without_an_adapter_is_an_error(tiny, monkeypatch):
    known = models.ARCHITECTURES["llama"]
    absent = models.Architecture(
        **{**vars(known), "linears": (*known.linears, "mlp.no_such_layer")}
    )
    monkeypatch.setitem(models.ARCHITECTURES, "llama", absent)
    with pytest.raises(
        adapters.AdapterError,
        match="14 linear layers have an adapter, 28 tensors are trained; expected 16",
    ):
        adapters.attach(models.tiny(0), LoraSettings(r=2, lora_alpha=4), 0)


def test_tensors_of_another_adapter_are_refused():
    model = adapters.attach(models.tiny(0), LoraSettings(r=2, lora_alpha=4), 0)
    foreign = {"base_model.model.elsewhere.lora_A.weight": torch.zeros(2, 2)}
    with pytest.raises(adapters.AdapterError, match="1 tensors belong to no adapter here"):
        adapters.restore(model, foreign)
