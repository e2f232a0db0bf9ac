"""The lens: at the last layer it is the model; normed twice it is not."""

import copy

import pytest
import torch

from lab.instruments import adapters, models, sequences
from lab.instruments.activations import ActivationExtractor
from lab.instruments.attention import CaptureError
from lab.instruments.families import CHANGES, VOCABULARY, build
from lab.instruments.logit_lens import lens_logits


def text():
    return sequences.random_tokens(VOCABULARY, 2, 24, seed=0)


def streams_and_output(model):
    with torch.no_grad(), ActivationExtractor(model) as extractor:
        out = model(text(), use_cache=False, output_hidden_states=True)
    return extractor.stacked("resid_post"), out


@pytest.mark.parametrize("family", CHANGES)
def test_the_lens_of_the_last_layer_is_the_model(family):
    model = build(family, 0)
    for module in model.modules():  # norms that matter: of random models all weights are alike
        if "Norm" in type(module).__name__ and hasattr(module, "weight"):
            generator = torch.Generator().manual_seed(module.weight.numel())
            drawn = torch.rand(module.weight.shape, generator=generator)
            module.weight.data = drawn
    stream, out = streams_and_output(model.double())
    with torch.no_grad():
        assert (lens_logits(model, stream[-1]) - out.logits).abs().max() < 1e-12
        # Controls: an earlier layer, and the last hidden state, which is behind the final norm.
        assert (lens_logits(model, stream[0]) - out.logits).abs().max() > 0.1
        assert (lens_logits(model, out.hidden_states[-1]) - out.logits).abs().max() > 0.05


def test_final_soft_capping_is_part_of_the_lens():
    model = build("gemma2", 0)
    stream, out = streams_and_output(model)
    uncapped = copy.deepcopy(model)
    uncapped.config.final_logit_softcapping = None
    with torch.no_grad():
        assert (lens_logits(uncapped, stream[-1]) - out.logits).abs().max() > 0.01
        assert lens_logits(model, stream[-1]).abs().max() <= 30


def test_wrappers_have_the_lens_of_their_model(tiny_folder):
    for quantisation in (None, "nf4"):
        loaded = models.load(tiny_folder, dtype=torch.float32, quantisation=quantisation)
        adapted = adapters.attach(loaded, adapters.LoraSettings(r=4, lora_alpha=8), 0)
        stream, out = streams_and_output(adapted)
        with torch.no_grad():
            torch.testing.assert_close(lens_logits(adapted, stream[-1]), out.logits)


def test_a_stream_of_another_type_is_cast(tiny):
    stream, out = streams_and_output(tiny.model)
    with torch.no_grad():
        logits = lens_logits(tiny.model, stream[-1].half())
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, out.logits, atol=0.01, rtol=0.01)


def test_a_family_that_is_not_known_is_refused():
    from transformers import OPTConfig, OPTForCausalLM

    model = OPTForCausalLM(
        OPTConfig(num_hidden_layers=1, hidden_size=24, ffn_dim=16, word_embed_proj_dim=24)
    )
    with pytest.raises(CaptureError, match="'opt' is not known"):
        lens_logits(model, torch.zeros(1, 24))
