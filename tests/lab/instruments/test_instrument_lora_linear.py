"""A LoRA layer's one product against PEFT's chain: output, gradients, all ways PEFT uses layers."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear as PeftLinear
from torch import nn

from lab.instruments import adapters, lora_linear, models
from lab.instruments.adapters import LoraSettings
from lab.instruments.lora_linear import LoraLinear, LoraProduct

pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)


def twins(dtype=torch.float32, **config):
    """One small model twice, with the same random adapters: as PEFT makes it, and fused."""

    def build():
        torch.manual_seed(0)
        base = nn.Sequential(nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 8, bias=False)).to(dtype)
        model = get_peft_model(
            base, LoraConfig(r=4, lora_alpha=6, target_modules=["0", "2"], **config)
        )
        for p in model.parameters():
            if p.requires_grad:
                p.data = torch.randn(p.shape) * 0.3
        return model

    theirs, ours = build(), build()
    lora_linear.fuse(ours)
    return theirs, ours


def pass_through(model, dtype=torch.float32):
    torch.manual_seed(1)
    x = torch.randn(2, 5, 12).to(dtype).requires_grad_(requires_grad=True)
    y = model(x)
    y.float().square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"y": y.detach(), "x": x.grad, **gradients}


@pytest.mark.parametrize("rslora", [False, True])
def test_output_and_gradients_are_pefts(rslora):
    theirs, ours = (pass_through(model) for model in twins(use_rslora=rslora))
    assert set(theirs) == set(ours)
    assert len(ours) == 6  # y, x, and A and B of two layers
    for name, expected in theirs.items():
        assert torch.allclose(ours[name], expected, rtol=1e-4, atol=1e-5), name


def test_a_bfloat16_base_keeps_float32_adapters():
    theirs, ours = (pass_through(model, torch.bfloat16) for model in twins(torch.bfloat16))
    assert ours["y"].dtype == ours["x"].dtype == torch.bfloat16
    for name, expected in theirs.items():
        assert ours[name].dtype == expected.dtype
        assert (ours[name].float() - expected.float()).norm() < 0.02 * expected.float().norm(), name


@pytest.mark.parametrize(
    "bias", [None, torch.arange(5.0, dtype=torch.float64)], ids=["no bias", "bias"]
)
def test_gradients_are_those_of_differences(bias):
    """Against numerical differentiation in float64, for an odd scale."""
    torch.manual_seed(0)
    x, a, b = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((3, 7), (2, 7), (5, 2))
    )
    weight = torch.randn(5, 7, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x, a, b: LoraProduct.apply(x, weight, bias, a, b, 0.7), (x, a, b)
    )


def test_the_scale_and_the_adapter_count():
    """Control: the comparisons above see a forgotten scale and a forgotten adapter."""
    theirs, ours = twins()
    expected = pass_through(theirs)
    for layer in ours.modules():
        if isinstance(layer, LoraLinear):
            layer.scaling["default"] = 1.0
    actual = pass_through(ours)
    assert not torch.allclose(actual["y"], expected["y"], atol=1e-2)
    with ours.disable_adapter():
        assert not torch.allclose(ours(torch.ones(1, 12)), theirs(torch.ones(1, 12)), atol=1e-2)


def test_switched_off_merged_and_taken_out_as_in_peft():
    theirs, ours = twins()
    x = torch.randn(3, 12)
    with torch.no_grad():
        with theirs.disable_adapter(), ours.disable_adapter():
            assert torch.equal(theirs(x), ours(x))
        whole = ours(x)
        theirs.merge_adapter()
        ours.merge_adapter()
        assert torch.equal(theirs(x), ours(x))
        assert torch.allclose(ours(x), whole, atol=1e-5)
        theirs.unmerge_adapter()
        ours.unmerge_adapter()
        assert torch.equal(theirs.unload()(x), ours.unload()(x))


def test_the_gradient_of_what_needs_none_is_not_computed():
    _, ours = twins()
    y = ours(torch.randn(4, 12))  # as behind a frozen embedding
    y.sum().backward()
    assert all(p.grad is not None for p in adapters.parameters(ours).values())


@pytest.mark.parametrize(
    ("config", "why"), [({"lora_dropout": 0.1}, "dropout"), ({"use_dora": True}, "DoRA")]
)
def test_what_is_no_plain_product_stays_pefts(config, why):
    theirs, ours = twins(**config)
    assert not any(isinstance(layer, LoraLinear) for layer in ours.modules()), why
    theirs.eval()
    ours.eval()
    assert torch.equal(theirs(torch.ones(1, 12)), ours(torch.ones(1, 12)))


def test_attached_adapters_are_fused_on_whole_weights_and_pefts_on_4_bits(tiny_folder):
    def kinds(quantisation):
        loaded = models.load(tiny_folder, dtype=torch.float32, quantisation=quantisation)
        model = adapters.attach(loaded, LoraSettings(4, 8), seed=0)
        return {
            type(layer).__name__ for layer in model.modules() if "lora" in type(layer).__module__
        }

    assert LoraLinear.__name__ in kinds(None)
    assert PeftLinear.__name__ not in kinds(None)
    assert LoraLinear.__name__ not in kinds("nf4")
