"""The extractor of activations: all of the stream, nothing but the stream, nothing left behind."""

import copy
import gc
import threading

import pytest
import torch

from lab.instruments import adapters, models, residual_stream, sequences
from lab.instruments.activations import ALIASES, SHAPES, ActivationExtractor
from lab.instruments.attention import CaptureError
from lab.instruments.capture import AttentionExtractor
from lab.instruments.families import CHANGES, VOCABULARY, build

TOKENS = 24
FAMILIES = tuple(CHANGES)
WITHOUT_MID = tuple(name for name in SHAPES if name != "resid_mid")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param, build(request.param, 0)


def text(count=2, seed=0):
    return sequences.random_tokens(VOCABULARY, count, TOKENS, seed=seed)


def padded(ids):
    mask = torch.ones_like(ids)
    mask[1, :6] = 0
    return mask


def record(model, ids, mask=None, **options):
    with torch.no_grad(), ActivationExtractor(model, **options) as extractor:
        logits = model(ids, attention_mask=mask, use_cache=False).logits
    extractor.require_all_recorded()
    return extractor, logits


def names_of(model):
    stream = residual_stream.residual_stream(residual_stream.unwrapped(model))
    return WITHOUT_MID if stream.resid_mid is None else tuple(SHAPES)


def sum_error(extractor, **replaced):
    """Return the largest |y − (x + a + m)|, with some of them replaced."""
    parts = {name: extractor.stacked(name).double() for name in WITHOUT_MID} | replaced
    missing = parts["resid_post"] - (parts["resid_pre"] + parts["attn_out"] + parts["mlp_out"])
    return float(missing.abs().max())


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


#### identities


@pytest.mark.parametrize("with_padding", [False, True])
def test_stream_is_what_entered_plus_both_writes(family, with_padding):
    _, model = family
    mask = padded(text()) if with_padding else None
    extractor, _ = record(model, text(), mask, record=names_of(model))
    assert sum_error(extractor) < 1e-5
    assert torch.equal(extractor["resid_post", 0], extractor["resid_pre", 1])
    # Controls: without a write, and with another layer's, the sum is another.
    for write in ("attn_out", "mlp_out"):
        tensors = extractor.stacked(write).double()
        assert sum_error(extractor, **{write: torch.zeros_like(tensors)}) > 0.1, write
        assert sum_error(extractor, **{write: tensors.flip(0)}) > 0.1, write


def test_in_float64_only_rounding_is_left(family):
    name, model = family
    wide = copy.deepcopy(model).double()
    extractor, _ = record(wide, text(), record=names_of(wide))
    assert sum_error(extractor) < 1e-12
    if name != "gpt_neox":
        mid = extractor.stacked("resid_pre") + extractor.stacked("attn_out")
        assert (extractor.stacked("resid_mid") - mid).abs().max() < 1e-12


def test_a_hook_in_the_wrong_place_is_seen(family):
    """The writes before their norms, and the stream behind the input norm, do not add up."""
    name, model = family
    extractor, _ = record(model, text(), record=names_of(model))
    layer = residual_stream.layers(model)[1]
    wrong = {"gemma2": "self_attn", "gemma3_text": "self_attn", "olmo2": "self_attn"}
    found = {}

    def keep(_module, _inputs, output):
        found["output"] = output[0] if isinstance(output, tuple) else output

    place = wrong.get(name, "ln_1" if name == "gpt2" else "input_layernorm")
    handle = layer.get_submodule(place).register_forward_hook(keep)
    with torch.no_grad():
        model(text(), use_cache=False)
    handle.remove()
    replaced = "attn_out" if name in wrong else "resid_pre"
    tensors = extractor.stacked(replaced).double().clone()
    tensors[1] = found["output"]
    assert sum_error(extractor) < 1e-5
    assert sum_error(extractor, **{replaced: tensors}) > 0.1


def test_stream_is_that_of_transformers_but_for_the_last_hidden_state(family):
    _, model = family
    with torch.no_grad():
        hidden = model(text(), use_cache=False, output_hidden_states=True).hidden_states
    extractor, _ = record(model, text(), record=["pre_attn", "post_ffn"])
    assert torch.equal(extractor["resid_pre", 0], hidden[0])
    assert torch.equal(extractor["resid_post", 0], hidden[1])
    last = extractor["resid_post", 1]
    assert not torch.allclose(last, hidden[2], atol=0.1), "the last one is behind the final norm"
    with torch.no_grad():
        assert torch.equal(residual_stream.final_norm(model)(last), hidden[2])


def test_a_layer_that_does_nothing_writes_zeros(family):
    name, model = family
    silent = copy.deepcopy(model)
    layer = residual_stream.layers(silent)[0]
    for part in ("attn_out", "mlp_out"):
        module = layer.get_submodule(getattr(residual_stream.FAMILIES[name], part))
        module.register_forward_hook(zeros)
    extractor, _ = record(silent, text(), record=names_of(silent))
    for part in ("attn_out", "mlp_out"):
        assert extractor[part, 0].abs().max() == 0
        assert extractor[part, 1].abs().max() > 0.1, "the other layer is not silent"
    assert torch.equal(extractor["resid_post", 0], extractor["resid_pre", 0])


def zeros(_module, _inputs, output):
    if isinstance(output, tuple):
        return torch.zeros_like(output[0]), *output[1:]
    return torch.zeros_like(output)


def test_logits_are_the_same_bits(family):
    _, model = family
    for mask in (None, padded(text())):
        with torch.no_grad():
            plain = model(text(), attention_mask=mask, use_cache=False).logits
        for statistics in (False, True):
            options = {"record": names_of(model), "statistics": statistics}
            assert torch.equal(plain, record(model, text(), mask, **options)[1])


def test_a_parallel_residual_has_no_middle():
    with pytest.raises(
        CaptureError, match=r"adds both writes at once.*record attn_out and mlp_out"
    ):
        ActivationExtractor(build("gpt_neox", 0), record=["resid_mid"])


def test_gpt_neox_without_parallel_residual_has_a_middle():
    model = build("gpt_neox", 0)
    for module in [model.config, *residual_stream.layers(model)]:
        module.use_parallel_residual = False
    extractor, _ = record(model.double(), text(), record=SHAPES)
    assert sum_error(extractor) < 1e-12
    mid = extractor.stacked("resid_pre") + extractor.stacked("attn_out")
    assert (extractor.stacked("resid_mid") - mid).abs().max() < 1e-12


@pytest.mark.parametrize("family", ["phi3", "gpt_neox"])
def test_dropout_of_training_is_part_of_what_is_written(family):
    model = build(family, 0).double().train()
    for layer in residual_stream.layers(model):
        for module in layer.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.5
    extractor, _ = record(model, text(), record=names_of(model))
    assert sum_error(extractor) < 1e-12
    for write in ("attn_out", "mlp_out"):
        assert (extractor[write, 0] == 0).float().mean() > 0.3, write


def test_gradients_flow_and_what_is_recorded_holds_no_graph(tiny):
    model = models.tiny(1).model
    model(text(), labels=text()).loss.backward()
    plain = model.model.embed_tokens.weight.grad.clone()
    model.zero_grad()
    with ActivationExtractor(model, record=SHAPES) as extractor:
        model(text(), labels=text()).loss.backward()
    assert torch.equal(plain, model.model.embed_tokens.weight.grad)
    assert not extractor["resid_post", 0].requires_grad


#### names, choices and files


def test_shapes_and_names(tiny):
    extractor, _ = record(tiny.model, text(), record=[*SHAPES, *ALIASES])
    for name in SHAPES:
        assert extractor[name, 1].shape == (2, TOKENS, 64)
        assert torch.equal(extractor[f"blocks.1.hook_{name}"], extractor[name, 1])
        assert extractor.stacked(name).shape == (2, 2, TOKENS, 64)
    for alias, name in ALIASES.items():
        assert torch.equal(extractor[alias, 1], extractor[name, 1])
        assert torch.equal(extractor.stacked(alias), extractor.stacked(name))
    assert extractor.recorded == {0, 1}


def test_chosen_layers_positions_and_type(tiny):
    everything, _ = record(tiny.model, text(), record=SHAPES)
    options = {"layers": [1], "positions": [20, 5], "dtype": torch.float16}
    some, _ = record(tiny.model, text(), record=SHAPES, **options)
    for name in SHAPES:
        expected = everything[name, 1][:, [20, 5]].half()
        assert torch.equal(some[name, 1], expected)
    with pytest.raises(CaptureError, match="resid_post of layer 0 was not recorded"):
        some["resid_post", 0]


def test_nothing_is_copied_that_need_not_be(tiny):
    extractor, _ = record(tiny.model, text(), record=["resid_pre", "resid_post"])
    assert extractor["resid_post", 0].data_ptr() == extractor["resid_pre", 1].data_ptr()
    narrow, _ = record(tiny.model, text(), record=["resid_pre", "resid_post"], positions=[3])
    assert narrow["resid_post", 0].data_ptr() == narrow["resid_pre", 1].data_ptr()
    assert narrow["resid_post", 0].untyped_storage().nbytes() == 2 * 64 * 4, "of one token alone"


def test_files_in_place_of_memory(tiny, tmp_path):
    from safetensors.torch import load_file

    kept, _ = record(tiny.model, text(), record=SHAPES, dtype=torch.bfloat16)
    folder = tmp_path / "stream"
    streamed, _ = record(tiny.model, text(), record=SHAPES, dtype=torch.bfloat16, folder=folder)
    assert not streamed._tensors
    for layer in (0, 1):
        stored = load_file(folder / f"layer_{layer:02d}.safetensors")
        assert set(stored) == set(SHAPES)
        for name in SHAPES:
            assert torch.equal(stored[name], kept[name, layer])
            assert torch.equal(streamed[name, layer], kept[name, layer])
    streamed.clear()
    with pytest.raises(CaptureError, match="not recorded"):
        streamed["resid_post", 0]


def test_a_silent_layer_can_be_written_to_a_file(tiny, tmp_path):
    """Its output is its input, and safetensors refuses one tensor under two names."""
    model = copy.deepcopy(tiny.model)
    model.model.layers[0].forward = lambda hidden_states, **_: hidden_states
    names = ["resid_pre", "resid_post"]
    extractor, _ = record(model, text(), record=names, layers=[0], folder=tmp_path)
    assert torch.equal(extractor["resid_pre", 0], extractor["resid_post", 0])


#### an early end


@pytest.mark.parametrize("name", SHAPES)
def test_nothing_is_computed_after_the_last_wanted(tiny, name):
    model = copy.deepcopy(tiny.model)
    ran = []
    for number, layer in enumerate(model.model.layers):
        for part in ("self_attn", "mlp"):
            layer.get_submodule(part).register_forward_hook(
                lambda *_, where=(number, part): ran.append(where)
            )
    full, _ = record(model, text(), record=[name])
    ran.clear()
    reached = False
    with (
        torch.no_grad(),
        ActivationExtractor(model, record=[name], layers=[0], stop=True) as extractor,
    ):
        model(text(), use_cache=False)
        reached = True
    assert not reached
    expected = {"resid_pre": 0, "attn_out": 1, "resid_mid": 1}.get(name, 2)
    assert ran == [(0, "self_attn"), (0, "mlp")][:expected]
    extractor.require_all_recorded()
    assert torch.equal(extractor[name, 0], full[name, 0])


def test_an_early_end_leaves_the_model_as_it_was(tiny):
    before = hooks(tiny.model)
    with torch.no_grad(), ActivationExtractor(tiny.model, layers=[0], stop=True):
        tiny.model(text(), use_cache=False)
    assert hooks(tiny.model) == before
    record(tiny.model, text())


def test_a_layer_that_is_chosen_twice_ends_a_pass_too(tiny):
    with torch.no_grad(), ActivationExtractor(tiny.model, layers=[0, 0], stop=True) as extractor:
        tiny.model(text(), use_cache=False)
        pytest.fail("the pass went on")
    assert extractor.recorded == {0}


def test_the_early_end_of_another_extractor_is_not_swallowed(tiny):
    """What comes after the model would run, as if all had been computed."""
    with torch.no_grad(), ActivationExtractor(tiny.model, layers=[0], stop=True) as outer:
        with ActivationExtractor(tiny.model, layers=[1]) as inner:
            tiny.model(text())
        pytest.fail("the outer block went on")
    assert outer.recorded == {0}
    assert not inner.recorded


def test_an_error_inside_the_block_is_not_swallowed(tiny):
    with (
        pytest.raises(ZeroDivisionError),
        ActivationExtractor(tiny.model, layers=[0], stop=True),
    ):
        raise ZeroDivisionError


#### other forms of a model


def test_adapters_and_quantised_layers(tiny_folder):
    for quantisation in (None, "nf4"):
        loaded = models.load(tiny_folder, dtype=torch.float32, quantisation=quantisation)
        plain, _ = record(loaded.model, text(), record=SHAPES)
        adapted = adapters.attach(loaded, adapters.LoraSettings(r=4, lora_alpha=8), 0)
        for name, parameter in adapters.parameters(adapted).items():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        extractor, logits = record(adapted, text(), record=SHAPES)
        assert sum_error(extractor) < 1e-5
        for name in ("attn_out", "mlp_out"):
            assert not torch.allclose(extractor[name, 0], plain[name, 0], atol=1e-3)
        with adapted.disable_adapter():
            base, base_logits = record(adapted, text(), record=SHAPES)
        assert torch.equal(base["mlp_out", 1], plain["mlp_out", 1])
        assert not torch.allclose(logits, base_logits)


def test_bfloat16_is_recorded_as_it_is(tiny_folder):
    model = models.load(tiny_folder, dtype=torch.bfloat16).model
    extractor, _ = record(model, text(), record=SHAPES)
    assert extractor["resid_post", 0].dtype == torch.bfloat16
    x, a, mid = (extractor[name, 0] for name in ("resid_pre", "attn_out", "resid_mid"))
    assert torch.equal(mid, x + a)


def test_both_extractors_at_once(tiny):
    with torch.no_grad(), AttentionExtractor(tiny.model) as attention:
        extractor, _ = record(tiny.model, text())
    assert attention.recorded == extractor.recorded == {0, 1}


#### statistics


def test_statistics_of_many_passes_are_those_of_all_tokens(family):
    """By Chan's merge, against the plain formulas; tests of padding are below."""
    _, model = family
    names = names_of(model)
    tensors, _ = record(model, text(6), record=names)
    counter = ActivationExtractor(model, record=names, statistics=True)
    with torch.no_grad():
        with counter:
            model(text(6)[:1], use_cache=False)
            model(text(6)[1:4], use_cache=False)
        with counter:  # statistics go on in another block
            model(text(6)[4:], use_cache=False)
    counter.require_all_recorded()
    for name in names:
        wide = tensors[name, 1].double()
        statistics = counter.statistics[name, 1]
        torch.testing.assert_close(statistics.mean, wide.mean((0, 1)), rtol=0, atol=1e-5)
        torch.testing.assert_close(
            statistics.variance, wide.var((0, 1), correction=0), rtol=1e-5, atol=1e-9
        )
        assert (statistics.tokens, statistics.sequences) == (6 * TOKENS, 6)
        assert statistics.mean_norm_without_first == pytest.approx(
            float(wide[:, 1:].norm(dim=-1).mean()), rel=1e-5
        )
    with pytest.raises(CaptureError, match="statistics alone, in `statistics`"):
        counter[names[0], 1]
    counter.clear()
    assert not counter.statistics


def test_statistics_leave_padding_out(tiny):
    ids = text(1)
    alone = ActivationExtractor(tiny.model, record=["mlp_out"], statistics=True)
    behind = ActivationExtractor(tiny.model, record=["mlp_out"], statistics=True)
    blind = ActivationExtractor(tiny.model, record=["mlp_out"], statistics=True)
    longer = torch.cat([ids[:, :1].expand(1, 5), ids], dim=1)
    mask = (torch.arange(TOKENS + 5) >= 5).long()[None]
    with torch.no_grad():
        with alone:
            tiny.model(ids, use_cache=False)
        with behind:
            tiny.model(longer, attention_mask=mask, use_cache=False)
        with blind:
            tiny.model(longer, use_cache=False)
    one, other, control = (each.statistics["mlp_out", 1] for each in (alone, behind, blind))
    assert (one.tokens, other.tokens, control.tokens) == (TOKENS, TOKENS, TOKENS + 5)
    assert (one.first_tokens, other.first_tokens) == (1, 1)
    for name in ("mean_norm", "mean_norm_without_first", "mean_median"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-4), name
        assert getattr(one, name) != pytest.approx(getattr(control, name), rel=1e-4), name
    torch.testing.assert_close(one.variance, other.variance, rtol=1e-3, atol=1e-7)
    assert [each.position + 5 for each in one.largest] == [each.position for each in other.largest]


def test_statistics_of_chosen_positions(tiny):
    tensors, _ = record(tiny.model, text(), positions=[0, 7])
    counter, _ = record(tiny.model, text(), positions=[0, 7], statistics=True)
    statistics = counter.statistics["resid_post", 0]
    wide = tensors["resid_post", 0].double()
    assert statistics.tokens == 4
    assert {each.position for each in statistics.largest} <= {0, 7}
    assert statistics.mean_norm_without_first == pytest.approx(
        float(wide[:, 1].norm(dim=-1).mean())
    )


def test_statistics_keep_no_tensors(tiny):
    counter, _ = record(tiny.model, text(8), record=SHAPES, statistics=True)
    assert not counter._tensors
    kept = sum(each.nbytes for each in counter.statistics.values())
    assert kept < 0.2 * len(SHAPES) * 2 * 8 * TOKENS * 64 * 4


def test_statistics_of_half_a_text_are_refused(tiny):
    with torch.no_grad():
        past = tiny.model(text(1)[:, :20], use_cache=True).past_key_values
        with (
            pytest.raises(CaptureError, match="earlier tokens are in the cache"),
            ActivationExtractor(tiny.model, statistics=True),
        ):
            tiny.model(text(1)[:, 20:], past_key_values=past)


def test_statistics_of_a_pass_that_broke_off_are_noticed():
    model = models.tiny(0).model
    counter, _ = record(model, text(), statistics=True)

    def fail(*_):
        raise ZeroDivisionError

    handle = model.model.layers[1].mlp.register_forward_hook(fail)
    with pytest.raises(ZeroDivisionError), torch.no_grad(), counter:
        model(text())
    handle.remove()
    with pytest.raises(CaptureError, match="a pass broke off; call clear"):
        counter.require_all_recorded()


def test_a_mask_that_is_given_by_its_place_counts_too(tiny):
    counter = ActivationExtractor(tiny.model, statistics=True)
    with torch.no_grad(), counter:
        tiny.model.model(text(), padded(text()))
    assert counter.statistics["resid_post", 0].tokens == 2 * TOKENS - 6


def test_statistics_of_several_texts_in_a_row_are_refused(tiny):
    half = torch.arange(TOKENS // 2)
    with (
        pytest.raises(CaptureError, match="a row holds several texts"),
        ActivationExtractor(tiny.model, statistics=True),
    ):
        tiny.model(text(1), position_ids=torch.cat([half, half])[None])
    # Positions of one text behind padding fall only in the padding.
    mask = padded(text())
    behind = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)
    counter = ActivationExtractor(tiny.model, statistics=True)
    with torch.no_grad(), counter:
        tiny.model(text(), attention_mask=mask, position_ids=behind)
    assert counter.statistics["resid_post", 0].first_tokens == 2


def test_a_position_that_is_chosen_twice_counts_once(tiny):
    once, twice = (
        record(tiny.model, text(), positions=positions, statistics=True)[0]
        for positions in ([7, 3], [7, 3, 7])
    )
    assert once.statistics["resid_post", 0].tokens == 4
    for name in ("tokens", "mean_norm", "largest"):
        one, other = (getattr(each.statistics["resid_post", 0], name) for each in (once, twice))
        assert one == other, name


def test_a_mask_that_does_not_name_padding_is_refused(tiny):
    square = torch.ones(1, 1, TOKENS, TOKENS, dtype=torch.bool).tril()
    with (
        pytest.raises(CaptureError, match=r"attention mask \[B, T\]; got another kind"),
        ActivationExtractor(tiny.model, statistics=True),
    ):
        tiny.model(text(1), attention_mask=square)


def test_statistics_beside_an_early_end(tiny):
    counter = ActivationExtractor(tiny.model, layers=[0], statistics=True, stop=True)
    for _ in range(3):
        with torch.no_grad(), counter:
            tiny.model(text())
    assert counter.statistics["resid_post", 0].sequences == 6


#### guards


def test_nothing_is_left_after_an_error(tiny):
    before = hooks(tiny.model)
    with (
        pytest.raises(CaptureError, match="resid_post of layer 0 ran twice; call clear"),
        ActivationExtractor(tiny.model),
    ):
        tiny.model(text())
        tiny.model(text())
    assert hooks(tiny.model) == before
    with ActivationExtractor(tiny.model) as extractor:
        tiny.model(text())
        extractor.clear()
        tiny.model(text())
    extractor.require_all_recorded()


def test_a_model_that_did_not_run_is_noticed(tiny):
    for statistics in (False, True):
        with ActivationExtractor(tiny.model, statistics=statistics) as extractor:
            pass
        with pytest.raises(CaptureError, match=r"layers \[0, 1\].*run the model inside the `with`"):
            extractor.require_all_recorded()
        assert not extractor.recorded
    with ActivationExtractor(tiny.model) as extractor:
        pass
    with pytest.raises(CaptureError, match="recorded: nothing; run the model"):
        extractor["resid_post", 0]


def add_one(_module, inputs):
    """Change the stream in place, as no model of these families does."""
    inputs[0].detach().add_(1.0)


@pytest.mark.parametrize("grad", [False, True])
def test_a_tensor_that_was_changed_in_place_is_refused(tiny, grad):
    model = copy.deepcopy(tiny.model)
    model.model.layers[1].register_forward_pre_hook(add_one)
    with torch.set_grad_enabled(grad), ActivationExtractor(model) as extractor:
        model(text(), use_cache=False)
    with pytest.raises(CaptureError, match="resid_post of layer 0 was changed in place"):
        extractor["resid_post", 0]
    extractor["resid_post", 1]


def test_copies_are_not_changed_in_place(tiny):
    plain, _ = record(tiny.model, text(), layers=[0])
    model = copy.deepcopy(tiny.model)
    model.model.layers[1].register_forward_pre_hook(add_one)
    for options in ({"positions": range(TOKENS)}, {"dtype": torch.float64}):
        copied, _ = record(model, text(), layers=[0], **options)
        assert torch.equal(copied["resid_post", 0].float(), plain["resid_post", 0])
    with torch.inference_mode(), ActivationExtractor(model, layers=[0]) as extractor:
        model(text(), use_cache=False)
    assert torch.equal(extractor["resid_post", 0], plain["resid_post", 0])


@pytest.mark.parametrize("inference", [False, True])
def test_a_copy_is_not_that_of_a_tensor_before_its_change(tiny, inference):
    """resid_post of layer 0 and resid_pre of layer 1 are one tensor, with two contents."""
    model = copy.deepcopy(tiny.model)
    model.model.layers[1].register_forward_pre_hook(add_one)
    for options in ({"positions": range(TOKENS)}, {"dtype": torch.float64}):
        names = ["resid_pre", "resid_post"]
        with (
            torch.inference_mode(inference),
            torch.no_grad(),
            ActivationExtractor(model, record=names, **options) as extractor,
        ):
            model(text(), use_cache=False)
        change = extractor["resid_pre", 1] - extractor["resid_post", 0]
        torch.testing.assert_close(change, torch.ones_like(change))


def test_no_graph_is_kept_beside_a_copy(tiny):
    model = models.tiny(0).model
    with ActivationExtractor(model, dtype=torch.float64) as extractor:
        model(text(), labels=text()).loss.backward()
        gc.collect()
        assert extractor._last.tensor() is None


@pytest.mark.parametrize("name", SHAPES)
def test_what_another_s_hook_changed_is_recorded(tiny, name):
    """Whichever was put first: the model goes on with what was changed."""
    model = copy.deepcopy(tiny.model)
    place = {"resid_pre": "", "resid_mid": "post_attention_layernorm", "resid_post": ""}
    part = {"attn_out": "self_attn", "mlp_out": "mlp"}
    module = model.model.layers[0].get_submodule((place | part)[name])

    def change_input(_module, inputs):
        return inputs[0] * 3 + 1, *inputs[1:]

    def change_output(_module, _inputs, output):
        if isinstance(output, tuple):
            return output[0] * 3 + 1, *output[1:]
        return output * 3 + 1

    def hook():
        if name in ("resid_pre", "resid_mid"):
            return module.register_forward_pre_hook(change_input)
        return module.register_forward_hook(change_output)

    plain, _ = record(model, text(), record=[name], layers=[0])
    expected = plain[name, 0] * 3 + 1
    handle = hook()
    before, _ = record(model, text(), record=[name], layers=[0])
    handle.remove()
    with torch.no_grad(), ActivationExtractor(model, record=[name], layers=[0]) as inside:
        hook()
        model(text(), use_cache=False)
    assert torch.equal(before[name, 0], expected)
    assert torch.equal(inside[name, 0], expected)


def test_a_layer_that_is_used_twice_is_not_another_one():
    model = build("llama", 0)
    first, second = model.model.layers
    model.model.layers = torch.nn.ModuleList([first, first, second])
    model.config.num_hidden_layers = 3
    assert residual_stream.layers(model) == [first, first, second]
    with (
        pytest.raises(CaptureError, match="resid_post of layer 1 ran twice"),
        ActivationExtractor(model, layers=[1]),
    ):
        model(text(), use_cache=False)


def test_a_file_that_was_written_again_is_refused(tiny, tmp_path):
    one, _ = record(tiny.model, text(), folder=tmp_path)
    one["resid_post", 0]
    other, _ = record(tiny.model, text().flip(1), folder=tmp_path)
    with pytest.raises(CaptureError, match="was written again or deleted since"):
        one["resid_post", 0]
    other["resid_post", 0]


def test_another_thread_is_refused(tiny):
    failures = []

    def run():
        try:
            tiny.model(text())
        except CaptureError as error:
            failures.append(str(error))

    with ActivationExtractor(tiny.model) as extractor:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert "another thread runs the model" in failures[0]
    assert not extractor.recorded


def test_gradient_checkpointing_is_refused():
    model = models.tiny(0).model
    model.activation_checkpointing_enable()
    before = hooks(model)
    with pytest.raises(CaptureError, match="gradient checkpointing computes each layer twice"):
        ActivationExtractor(model).__enter__()
    assert hooks(model) == before
    model.activation_checkpointing_disable()
    record(model, text())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"record": ["hidden"]}, "hidden.*known are resid_pre.*post_ffn"),
        ({"record": []}, "record names nothing"),
        ({"layers": [2]}, "layer 2 does not exist; there are layers 0 to 1"),
        ({"layers": []}, "no layer is chosen; leave layers out to record all"),
        ({"statistics": True, "dtype": torch.float16}, "statistics keep no tensors"),
    ],
)
def test_what_does_not_exist_is_refused(tiny, options, message):
    with pytest.raises(CaptureError, match=message):
        ActivationExtractor(tiny.model, **options)


@pytest.mark.parametrize("statistics", [False, True])
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([0, TOKENS], r"position 24 does not exist; .* 0 to 23"),
        ([-1], r"position -1 does not exist; .* 0 to 23"),
        ([], "no position is chosen"),
    ],
)
def test_a_position_that_does_not_exist_is_refused(tiny, name, statistics, positions, message):
    options = {"record": [name], "positions": positions, "statistics": statistics}
    with (
        pytest.raises(CaptureError, match=message),
        ActivationExtractor(tiny.model, **options),
    ):
        tiny.model(text())
    record(tiny.model, text())


def test_a_family_that_is_not_known_is_refused():
    from transformers import OPTConfig, OPTForCausalLM

    model = OPTForCausalLM(
        OPTConfig(num_hidden_layers=1, hidden_size=24, ffn_dim=16, word_embed_proj_dim=24)
    )
    with pytest.raises(CaptureError, match=r"'opt' is not known; known: llama.*Add it to FAMILIES"):
        ActivationExtractor(model)


def test_an_extractor_that_is_recording_is_refused_a_second_block(tiny):
    extractor = ActivationExtractor(tiny.model)
    before = hooks(tiny.model)
    with extractor, pytest.raises(CaptureError, match="is recording already"):
        extractor.__enter__()
    assert hooks(tiny.model) == before


def test_two_extractors_on_one_model_both_record(tiny):
    with torch.no_grad(), ActivationExtractor(tiny.model) as one:
        other, _ = record(tiny.model, text(), record=["mlp_out"], layers=[1])
    assert one.recorded == {0, 1}
    assert other.recorded == {1}


def test_a_copy_made_inside_the_block_is_refused(tiny):
    with (
        pytest.raises(CaptureError, match="copy it before the block"),
        ActivationExtractor(tiny.model),
    ):
        copy.deepcopy(tiny.model)


def test_a_model_that_shares_the_config_object_runs_unrecorded(family):
    _, model = family
    other = type(model)(model.config).eval()
    alone, _ = record(model, text())
    with torch.no_grad(), ActivationExtractor(model) as extractor:
        other(text(), use_cache=False)
        assert not extractor.recorded
        model(text(), use_cache=False)
        other(text(), use_cache=False)
    assert torch.equal(extractor.stacked("resid_post"), alone.stacked("resid_post"))


def test_a_cache_of_earlier_tokens_changes_nothing_that_is_recorded(tiny):
    ids = text(1)
    full, _ = record(tiny.model, ids, record=SHAPES)
    with torch.no_grad():
        past = tiny.model(ids[:, :20], use_cache=True).past_key_values
        with ActivationExtractor(tiny.model, record=SHAPES) as later:
            tiny.model(ids[:, 20:], past_key_values=past, use_cache=True)
    for name in SHAPES:
        torch.testing.assert_close(later[name, 1], full[name, 1][:, 20:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "key", ["layers.0.resid_post", "blocks.x.hook_resid_post", "blocks.0.resid_post"]
)
def test_unknown_key_is_refused(tiny, key):
    extractor, _ = record(tiny.model, text())
    with pytest.raises(CaptureError, match=r"blocks\.3\.hook_resid_post"):
        extractor[key]
