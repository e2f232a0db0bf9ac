"""Gradient noise: known signal and noise are found, no signal is said to be none.

Products are those of gradients.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from lab.instruments import adapters, data, gradient_noise, models
from lab.instruments.adapters import LoraSettings
from lab.instruments.packing import pack, supervised_logits
from lab.stats.jackknife import jackknife, spread


def gram(rows: np.ndarray) -> np.ndarray:
    return rows @ rows.T


def drawn(signal: float, noise: float, n: int, width: int = 400, seed: int = 0) -> np.ndarray:
    """n gradients around one of length `signal`, with tr(Σ) = noise²."""
    draw = np.random.default_rng(seed)
    true = draw.standard_normal(width)
    true *= signal / np.linalg.norm(true)
    return true + draw.standard_normal((n, width)) * noise / np.sqrt(width)


@pytest.mark.parametrize(("signal", "noise"), [(1.0, 2.0), (3.0, 1.0), (0.5, 2.0)])
def test_a_known_noise_scale_is_found(signal, noise):
    found = gradient_noise.noise(gram(drawn(signal, noise, 200)))
    assert found.variance == pytest.approx(noise**2, rel=0.05)
    assert found.signal == pytest.approx(signal**2, rel=0.2)
    assert found.scale == pytest.approx(noise**2 / signal**2, rel=0.2)
    assert abs(found.scale - noise**2 / signal**2) < 4 * found.stderr


def test_gradients_without_a_common_direction_have_no_noise_scale():
    rows = drawn(0.0, 1.0, 20)
    found = gradient_noise.noise(gram(np.concatenate([rows, -rows])))
    assert found.signal < 0
    assert found.scale is None
    assert found.stderr is None
    ratio = gradient_noise.growth(gram(drawn(1.0, 1.0, 40)), gram(np.concatenate([rows, -rows])))
    assert ratio == (None, None)


def test_equal_gradients_have_no_noise():
    found = gradient_noise.noise(gram(np.tile(drawn(1.0, 0.0, 1), (5, 1))))
    assert found.scale == pytest.approx(0, abs=1e-12)


@given(st.floats(0.01, 100))
def test_the_unit_of_the_loss_does_not_matter(factor):
    rows = drawn(1.0, 2.0, 20, width=30)
    assert gradient_noise.noise(gram(factor * rows)).scale == pytest.approx(
        gradient_noise.noise(gram(rows)).scale
    )


def test_growth_is_the_ratio_of_the_scales():
    one, two = gram(drawn(1.0, 1.0, 60)), gram(drawn(1.0, 3.0, 60, seed=1))
    value, stderr = gradient_noise.growth(one, two)
    assert value == pytest.approx(gradient_noise.noise(two).scale / gradient_noise.noise(one).scale)
    assert abs(value - 9) < 4 * stderr
    same, none = gradient_noise.growth(one, one)
    assert same == pytest.approx(1)
    assert none == pytest.approx(0, abs=1e-12)  # the same examples: what they share cancels


def test_one_gradient_is_too_few():
    with pytest.raises(ValueError, match="1 gradients do not show how gradients differ"):
        gradient_noise.noise(np.ones((1, 1)))


@given(st.lists(st.floats(-100, 100), min_size=3, max_size=20))
def test_the_jackknife_of_a_mean_is_its_standard_error(values):
    known = np.array(values)
    found = jackknife(len(known), lambda kept: float(known[kept].mean()))
    assert found == pytest.approx(known.std(ddof=1) / np.sqrt(len(known)), abs=1e-9)


def test_the_jackknife_needs_every_value():
    assert jackknife(3, lambda kept: None if 0 in kept else 1.0) is None
    assert spread([2.0, 2.0, 2.0]) == 0.0


# On a model


@pytest.fixture(scope="module")
def adapted():
    """A tiny model whose adapters have moved, so that A has gradients too, and five examples."""
    loaded = models.tiny(0)
    pool = data.load("python-docstrings", loaded.tokenizer, max_tokens=110)[:5]
    model = adapters.attach(loaded, LoraSettings(4, 8), 0)
    with torch.no_grad():
        for name, p in adapters.parameters(model).items():
            if "lora_B" in name:
                p.normal_(0, 0.05)
    return model, [example.encoded for example in pool]


def test_the_mean_product_is_the_square_of_the_batch_gradient(adapted):
    """Of the token-weighted loss of all examples, as one training step of theirs computes it."""
    model, examples = adapted
    found = gradient_noise.products(model, examples)
    packed = pack(examples)
    loss = functional.cross_entropy(supervised_logits(model, packed), packed.targets)
    gradients = torch.autograd.grad(loss, list(adapters.parameters(model).values()))
    whole = sum(float(g.double().square().sum()) for g in gradients)
    assert found.mean() == pytest.approx(whole, rel=1e-4)
    assert found == pytest.approx(found.T)


def test_products_leave_the_model_without_gradients_and_do_not_depend_on_the_order(adapted):
    model, examples = adapted
    found = gradient_noise.products(model, examples)
    assert all(p.grad is None for p in adapters.parameters(model).values())
    assert gradient_noise.products(model, examples[::-1]) == pytest.approx(
        found[::-1, ::-1], rel=1e-4
    )


def test_at_the_start_only_b_has_gradients():
    """B = 0: the product over A's parameters alone is 0, so rank and scale act through B."""
    loaded = models.tiny(0)
    model = adapters.attach(loaded, LoraSettings(4, 8), 0)
    pool = data.load("python-docstrings", loaded.tokenizer, max_tokens=110)[:3]
    packed = pack([example.encoded for example in pool])
    loss = functional.cross_entropy(supervised_logits(model, packed), packed.targets)
    named = adapters.parameters(model)
    sizes = {"lora_A": 0.0, "lora_B": 0.0}
    for name, g in zip(named, torch.autograd.grad(loss, list(named.values())), strict=True):
        sizes["lora_A" if "lora_A" in name else "lora_B"] += float(g.abs().sum())
    assert sizes["lora_A"] == 0.0
    assert sizes["lora_B"] > 0.0
