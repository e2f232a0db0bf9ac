"""Gradient noise: known signal and noise are estimated, and the absence of a signal is reported.

Inner products are those of gradients.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from lab.instruments import adapters, gradient_noise, models
from lab.instruments.adapters import LoraSettings
from lab.instruments.packing import pack, supervised_logits
from lab.stats.jackknife import jackknife, jackknife_stderr


def gram(rows: np.ndarray) -> np.ndarray:
    return rows @ rows.T


def draw_gradients(
    signal: float, noise: float, n: int, width: int = 400, seed: int = 0
) -> np.ndarray:
    """Return n gradients around one of length `signal`, with tr(Σ) = noise²."""
    draw = np.random.default_rng(seed)
    true = draw.standard_normal(width)
    true *= signal / np.linalg.norm(true)
    return true + draw.standard_normal((n, width)) * noise / np.sqrt(width)


@pytest.mark.parametrize(("signal", "noise"), [(1.0, 2.0), (3.0, 1.0), (0.5, 2.0)])
def test_a_known_noise_scale_is_estimated(signal, noise):
    estimate = gradient_noise.estimate_noise(gram(draw_gradients(signal, noise, 200)))
    assert estimate.variance == pytest.approx(noise**2, rel=0.05)
    assert estimate.signal == pytest.approx(signal**2, rel=0.2)
    assert estimate.scale == pytest.approx(noise**2 / signal**2, rel=0.2)
    assert abs(estimate.scale - noise**2 / signal**2) < 4 * estimate.stderr


def test_gradients_without_a_common_direction_have_no_noise_scale():
    rows = draw_gradients(0.0, 1.0, 20)
    estimate = gradient_noise.estimate_noise(gram(np.concatenate([rows, -rows])))
    assert estimate.signal < 0
    assert estimate.scale is None
    assert estimate.stderr is None
    ratio = gradient_noise.noise_growth(
        gram(draw_gradients(1.0, 1.0, 40)), gram(np.concatenate([rows, -rows]))
    )
    assert ratio == (None, None)


def test_equal_gradients_have_no_noise():
    estimate = gradient_noise.estimate_noise(gram(np.tile(draw_gradients(1.0, 0.0, 1), (5, 1))))
    assert estimate.scale == pytest.approx(0, abs=1e-12)


@given(st.floats(0.01, 100))
def test_the_unit_of_the_loss_does_not_matter(factor):
    rows = draw_gradients(1.0, 2.0, 20, width=30)
    assert gradient_noise.estimate_noise(gram(factor * rows)).scale == pytest.approx(
        gradient_noise.estimate_noise(gram(rows)).scale
    )


def test_growth_is_the_ratio_of_the_scales():
    one, two = gram(draw_gradients(1.0, 1.0, 60)), gram(draw_gradients(1.0, 3.0, 60, seed=1))
    value, stderr = gradient_noise.noise_growth(one, two)
    assert value == pytest.approx(
        gradient_noise.estimate_noise(two).scale / gradient_noise.estimate_noise(one).scale
    )
    assert abs(value - 9) < 4 * stderr
    same, none = gradient_noise.noise_growth(one, one)
    assert same == pytest.approx(1)
    assert none == pytest.approx(0, abs=1e-12)  # the same examples: what they share cancels


def test_one_gradient_is_too_few():
    with pytest.raises(ValueError, match="got 1 gradients; expected at least 2"):
        gradient_noise.estimate_noise(np.ones((1, 1)))


@given(st.lists(st.floats(-100, 100), min_size=3, max_size=20))
def test_the_jackknife_of_a_mean_is_its_standard_error(values):
    array = np.array(values)
    stderr = jackknife(len(array), lambda units: float(array[units].mean()))
    assert stderr == pytest.approx(array.std(ddof=1) / np.sqrt(len(array)), abs=1e-9)


def test_the_jackknife_needs_every_value():
    assert jackknife(3, lambda units: None if 0 in units else 1.0) is None
    assert jackknife_stderr([2.0, 2.0, 2.0]) == 0.0


# On a model


@pytest.fixture(scope="module")
def adapted(chat_examples):
    """Return a tiny model and five examples; its adapters have moved, so A has gradients too."""
    loaded = models.tiny(0)
    model = adapters.attach(loaded, LoraSettings(4, 8), 0)
    with torch.no_grad():
        for name, p in adapters.parameters(model).items():
            if "lora_B" in name:
                p.normal_(0, 0.05)
    return model, [example.encoded for example in chat_examples[:5]]


def test_the_mean_product_is_the_square_of_the_batch_gradient(adapted):
    """Of the token-weighted loss of all examples, as one training step of theirs computes it."""
    model, examples = adapted
    products = gradient_noise.inner_products(model, examples)
    packed = pack(examples)
    loss = functional.cross_entropy(supervised_logits(model, packed), packed.targets)
    gradients = torch.autograd.grad(loss, list(adapters.parameters(model).values()))
    whole = sum(float(g.double().square().sum()) for g in gradients)
    assert products.mean() == pytest.approx(whole, rel=1e-4)
    assert products == pytest.approx(products.T)


def test_products_leave_the_model_without_gradients_and_do_not_depend_on_the_order(adapted):
    model, examples = adapted
    products = gradient_noise.inner_products(model, examples)
    assert all(p.grad is None for p in adapters.parameters(model).values())
    assert gradient_noise.inner_products(model, examples[::-1]) == pytest.approx(
        products[::-1, ::-1], rel=1e-4
    )


def test_at_the_start_only_b_has_gradients(chat_examples):
    """B = 0: the product over A's parameters alone is 0, so rank and scale act through B."""
    loaded = models.tiny(0)
    model = adapters.attach(loaded, LoraSettings(4, 8), 0)
    packed = pack([example.encoded for example in chat_examples[:3]])
    loss = functional.cross_entropy(supervised_logits(model, packed), packed.targets)
    named = adapters.parameters(model)
    sizes = {"lora_A": 0.0, "lora_B": 0.0}
    for name, g in zip(named, torch.autograd.grad(loss, list(named.values())), strict=True):
        sizes["lora_A" if "lora_A" in name else "lora_B"] += float(g.abs().sum())
    assert sizes["lora_A"] == 0.0
    assert sizes["lora_B"] > 0.0
