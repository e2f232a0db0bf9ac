"""The extractor: it records what eager attention computes, changes nothing and leaves nothing."""

import copy

import pytest
import torch

from lab.attention_extraction.parity import eager_patterns, wide_softmax
from lab.instruments import adapters, attention, models, packing, sequences
from lab.instruments.attention import AttentionStatistics, CaptureError
from lab.instruments.capture import SHAPES, AttentionExtractor
from lab.instruments.families import CHANGES, VOCABULARY, build

TOKENS = 24
FAMILIES = tuple(CHANGES)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param, build(request.param, 0)


def text(count=2, seed=0):
    return sequences.random_tokens(VOCABULARY, count, TOKENS, seed=seed)


def padded(ids):
    mask = torch.ones_like(ids)
    mask[1, :6] = 0
    return mask


def largest_error(recorded, reference, mask=None):
    """Return the largest difference of a weight; rows of padding are nobody's."""
    difference = (recorded.double() - reference.double()).abs()
    if mask is not None:
        difference = difference * mask[None, :, None, :, None]
    return float(difference.max())


def record(model, ids, mask=None, **options):
    with torch.no_grad(), AttentionExtractor(model, **options) as extractor:
        logits = model(ids, attention_mask=mask, use_cache=False).logits
    extractor.require_all_recorded()
    return extractor, logits


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


#### parity


@pytest.mark.parametrize("with_padding", [False, True])
def test_patterns_are_those_of_eager_attention(family, with_padding):
    name, model = family
    ids = text()
    mask = padded(ids) if with_padding else None
    extractor, _ = record(model, ids, mask)
    reference = eager_patterns(model, ids, mask)
    assert largest_error(extractor.stacked("pattern"), reference, mask) < 1e-5, name
    # A control: other text has other patterns, so parity is no accident.
    assert largest_error(extractor.stacked("pattern"), eager_patterns(model, ids.flip(1))) > 0.1


def test_in_float64_the_difference_vanishes(family):
    _, model = family
    wide = copy.deepcopy(model).double()
    with wide_softmax():
        extractor, _ = record(wide, text())
        assert largest_error(extractor.stacked("pattern"), eager_patterns(wide, text())) < 1e-12


def test_logits_are_the_same_bits(family):
    _, model = family
    for mask in (None, padded(text())):
        with torch.no_grad():
            plain = model(text(), attention_mask=mask, use_cache=False).logits
        _, logits = record(model, text(), mask, record=SHAPES, statistics=True)
        assert torch.equal(plain, logits)


def test_windows_and_caps_matter_in_these_models():
    """Without this the parity of their families would say nothing about windows and caps."""
    for name, field, value in (
        ("mistral", "sliding_window", None),
        ("gemma2", "attn_logit_softcapping", None),
    ):
        model = build(name, 0)
        usual, _ = record(model, text())
        setattr(model.config, field, value)
        for module in model.modules():
            if hasattr(module, field):
                setattr(module, field, value)
        without, _ = record(model, text())
        assert largest_error(usual.stacked("pattern"), without.stacked("pattern")) > 0.05, name


def test_rows_of_padding_see_nothing_and_padding_is_not_seen(tiny):
    ids = text()
    extractor, _ = record(tiny.model, ids, padded(ids), statistics=True)
    pattern = extractor.stacked("pattern")[:, 1]  # [L, H, T, T]
    assert pattern[:, :, 6:, :6].abs().max() == 0
    assert pattern.triu(1).abs().max() == 0
    torch.testing.assert_close(pattern[:, :, 6:].sum(-1), torch.ones(2, 4, TOKENS - 6))


#### statistics


def reference_statistics(pattern, first, offset):
    """Statistics of patterns [B, H, T, T] by their definition, row by row."""
    batch, heads, total, _ = pattern.shape
    rows = torch.zeros(4, batch, heads, total, dtype=pattern.dtype)
    for query in range(total):
        row = pattern[:, :, query]
        for b in range(batch):
            rows[0, b, :, query] = row[b, :, first[b]]
        rows[1, :, :, query] = -(row * row.clamp(min=1e-30).log()).sum(-1)
        rows[2, :, :, query] = (row * (query - torch.arange(total))).sum(-1)
        if query >= offset:
            rows[3, :, :, query] = row[:, :, query - offset]
    return rows


@pytest.mark.parametrize("with_padding", [False, True])
def test_statistics_are_those_of_the_patterns(family, with_padding):
    name, model = family
    ids = text()
    mask = padded(ids) if with_padding else None
    extractor, _ = record(model, ids, mask, statistics=True, offsets=[3])
    for layer in extractor.layers:
        statistics = extractor.statistics[layer]
        assert isinstance(statistics, AttentionStatistics)
        first = [0, 6 if with_padding else 0]
        expected = reference_statistics(extractor["pattern", layer], first, 3)
        actual = (
            statistics.sink,
            statistics.entropy,
            statistics.distance,
            statistics.diagonals[3],
        )
        for one, other in zip(actual, expected, strict=True):
            torch.testing.assert_close(one, other, atol=2e-4, rtol=0, msg=lambda m: f"{name}: {m}")


def test_statistics_without_rows_and_with_rows_agree(tiny):
    """The same text once by the log-sum-exp and once, behind a mask of ones, in chunks."""
    ids = sequences.random_tokens(VOCABULARY, 1, 200, seed=0)
    fast, _ = record(tiny.model, ids, record=(), statistics=True, offsets=[1, 50])
    by_eager = copy.deepcopy(tiny.model)
    by_eager.set_attn_implementation("eager")
    slow, _ = record(by_eager, ids, record=(), statistics=True, offsets=[1, 50])
    for layer in fast.layers:
        a, b = fast.statistics[layer], slow.statistics[layer]
        torch.testing.assert_close(a.entropy, b.entropy, atol=1e-4, rtol=0)
        torch.testing.assert_close(a.distance, b.distance, atol=1e-3, rtol=0)
        torch.testing.assert_close(a.diagonals[50], b.diagonals[50], atol=1e-5, rtol=0)
        assert torch.equal(a.keys, torch.arange(1, 201)[None])


def test_gradients_flow_while_statistics_are_taken():
    model = models.tiny(1).model
    ids = text(1)
    model(ids, labels=ids).loss.backward()
    plain = model.model.embed_tokens.weight.grad.clone()
    model.zero_grad()
    with AttentionExtractor(model, record=(), statistics=True) as extractor:
        model(ids, labels=ids).loss.backward()
    assert torch.equal(plain, model.model.embed_tokens.weight.grad)
    assert set(extractor.statistics) == {0, 1}


#### shapes and names


def test_shapes_and_names(tiny):
    extractor, _ = record(tiny.model, text(), record=SHAPES)
    config = tiny.model.config
    sizes = {
        "B": 2,
        "T": TOKENS,
        "queries": TOKENS,
        "heads": config.num_attention_heads,
        "H'": config.num_key_value_heads,
        "D": config.hidden_size // config.num_attention_heads,
    }
    for name, shape in SHAPES.items():
        expected = tuple(sizes[part] for part in shape.strip("[]").split(", "))
        assert tuple(extractor[name, 1].shape) == expected, name
        assert torch.equal(extractor[f"blocks.1.attn.hook_{name}"], extractor[name, 1])


def test_whole_patterns_are_made_of_blocks_that_are_half_of_them():
    call = attention.AttentionCall(torch.randn(1, 4, 1024, 8), torch.randn(1, 2, 1024, 8), 0.4)
    for compute, unseen in ((attention.patterns, 0.0), (attention.scores, -torch.inf)):
        rows = compute(call, dtype=torch.float16)
        whole = rows.whole()
        assert whole.shape == (1, 4, 1024, 1024)
        assert whole.dtype == torch.float16
        assert (whole.masked_select(torch.ones(1024, 1024).triu(1).bool()) == unseen).all()
        assert sum(block.numel() for block in rows.blocks) < 0.6 * whole.numel()
        # What a reader changes is his own.
        whole.zero_()
        assert rows.whole().abs().max() > 0


def test_z_is_what_the_weights_fetch_from_the_group_s_values(family):
    _, model = family
    extractor, _ = record(model, text(), record=["pattern", "v", "z"])
    pattern, values = extractor["pattern", 1], extractor["v", 1]
    heads, shared = pattern.shape[1], values.shape[2]
    for head in range(heads):
        fetched = pattern[:, head] @ values[:, :, head // (heads // shared)]
        torch.testing.assert_close(fetched, extractor["z", 1][:, :, head], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [f for f in FAMILIES if f not in {"gpt2", "gemma2"}])
def test_keys_in_tiled_order_are_caught(name):
    model = build(name, 0)
    extractor, _ = record(model, text(), record=["pattern", "rot_q", "rot_k"])
    queries = extractor["rot_q", 0].transpose(1, 2)
    keys = extractor["rot_k", 0].transpose(1, 2)
    repeats = queries.shape[1] // keys.shape[1]
    scale = queries.shape[-1] ** -0.5
    errors = []
    for ordered in (keys.repeat_interleave(repeats, 1), keys.repeat(1, repeats, 1, 1)):
        scores = (queries @ ordered.transpose(2, 3) * scale).masked_fill(
            extractor["pattern", 0] == 0, -torch.inf
        )
        errors.append((scores.softmax(-1) - extractor["pattern", 0]).abs().max())
    assert errors[0] < 1e-5
    if repeats > 1:
        assert errors[1] > 0.1


def test_q_and_k_become_rot_q_and_rot_k(family):
    """The rotation keeps the length of each pair of coordinates, and position 0 as it is."""
    name, model = family
    extractor, _ = record(model, text(), record=["q", "k", "rot_q", "rot_k"])
    for one in ("q", "k"):
        before, after = extractor[one, 1], extractor[f"rot_{one}", 1]
        torch.testing.assert_close(before.norm(dim=-1), after.norm(dim=-1), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(before[:, 0], after[:, 0], atol=1e-5, rtol=1e-5)
        is_rotated = (before[:, 5:] - after[:, 5:]).abs().max() > 0.1
        assert is_rotated == (name != "gpt2")


def test_chosen_layers_heads_and_positions(tiny):
    everything, _ = record(tiny.model, text(), record=["pattern", "z", "attn_scores"])
    some, _ = record(
        tiny.model,
        text(),
        record=["pattern", "z", "attn_scores"],
        layers=[1],
        heads=[3, 0],
        positions=[5, 20],
    )
    torch.testing.assert_close(
        some["pattern", 1], everything["pattern", 1][:, [3, 0]][:, :, [5, 20]]
    )
    torch.testing.assert_close(some["z", 1], everything["z", 1][:, [5, 20]][:, :, [3, 0]])
    scores = some["attn_scores", 1]
    assert torch.isinf(scores[:, :, 0, 6:]).all()
    torch.testing.assert_close(scores.softmax(-1), some["pattern", 1])
    with pytest.raises(CaptureError, match="pattern of layer 0 was not recorded"):
        some["pattern", 0]


def test_files_in_place_of_memory(tiny, tmp_path):
    from safetensors.torch import load_file

    kept, _ = record(tiny.model, text(), dtype=torch.float16)
    streamed, _ = record(tiny.model, text(), dtype=torch.float16, folder=tmp_path / "maps")
    for layer in (0, 1):
        stored = load_file(tmp_path / "maps" / f"layer_{layer:02d}.safetensors")
        assert torch.equal(stored["pattern"], kept["pattern", layer])
        assert stored["pattern"].dtype == torch.float16
    with pytest.raises(CaptureError, match="not recorded"):
        streamed["pattern", 0]


#### other forms of a model


def test_packed_examples_are_recorded_as_training_computes_them(tiny, chat_examples):
    encoded = [example.encoded for example in chat_examples[:3]]
    packed = packing.pack(encoded)
    with torch.no_grad():
        plain = packing.supervised_logits(tiny.model, packed)
        with AttentionExtractor(tiny.model, statistics=True) as extractor:
            recorded = packing.supervised_logits(tiny.model, packed)
    assert torch.equal(plain, recorded)
    pattern = extractor.stacked("pattern")[:, 0]  # [L, H, T, T]
    assert pattern[:, :, ~packed.mask[0, 0]].abs().max() == 0
    torch.testing.assert_close(pattern.sum(-1), torch.ones(pattern.shape[:-1]))


def test_adapters_and_quantised_layers(tiny_folder):
    for quantisation in (None, "nf4"):
        loaded = models.load(tiny_folder, dtype=torch.float32, quantisation=quantisation)
        adapted = adapters.attach(loaded, adapters.LoraSettings(r=4, lora_alpha=8), 0)
        for name, parameter in adapters.parameters(adapted).items():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        extractor, logits = record(adapted, text())
        assert largest_error(extractor.stacked("pattern"), eager_patterns(adapted, text())) < 1e-5
        with adapted.disable_adapter():
            base, base_logits = record(adapted, text())
        assert not torch.allclose(logits, base_logits)
        assert largest_error(extractor.stacked("pattern"), base.stacked("pattern")) > 1e-3


def test_bfloat16_keeps_its_logits(tiny_folder):
    model = models.load(tiny_folder, dtype=torch.bfloat16).model
    with torch.no_grad():
        plain = model(text(), use_cache=False).logits
    extractor, logits = record(model, text(), statistics=True)
    assert torch.equal(plain, logits)
    assert extractor["pattern", 0].dtype == torch.float32
    sink = extractor.statistics[0].sink
    torch.testing.assert_close(sink, extractor["pattern", 0][..., 0], atol=2e-2, rtol=0)


#### guards


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "qwen3", "gemma2"])
def test_autocast_changes_the_type_of_the_kernel_and_not_of_what_is_recorded(name):
    model = build(name, 0)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            plain = model(text(), use_cache=False).logits
        extractor, logits = record(model, text(), record=SHAPES, statistics=True)
    assert torch.equal(plain, logits)
    pattern = extractor["pattern", 1]
    assert pattern.dtype == extractor.statistics[1].sink.dtype == torch.float32
    torch.testing.assert_close(pattern.sum(-1), torch.ones_like(pattern[..., 0]))
    torch.testing.assert_close(extractor["attn_scores", 1].softmax(-1), pattern)
    torch.testing.assert_close(extractor.statistics[1].sink, pattern[..., 0])


def test_nothing_is_left_after_an_error(tiny):
    before = hooks(tiny.model)
    extractor = AttentionExtractor(tiny.model, record=["q", "k", "pattern"])
    with pytest.raises(CaptureError, match="layer 0 ran twice; call clear"), extractor:
        tiny.model(text())
        tiny.model(text())
    assert hooks(tiny.model) == before
    assert tiny.model.config._attn_implementation == "sdpa"
    with AttentionExtractor(tiny.model) as extractor:
        tiny.model(text())
        extractor.clear()
        tiny.model(text())
    extractor.require_all_recorded()


def test_a_model_that_did_not_run_is_noticed(tiny):
    with AttentionExtractor(tiny.model) as extractor:
        pass
    with pytest.raises(CaptureError, match="run the model inside the `with` block"):
        extractor.require_all_recorded()
    with pytest.raises(CaptureError, match="nothing; run the model"):
        extractor["pattern", 0]


def test_gradient_checkpointing_is_refused():
    model = models.tiny(0).model
    model.activation_checkpointing_enable()
    with pytest.raises(CaptureError, match="gradient checkpointing computes each layer twice"):
        AttentionExtractor(model).__enter__()
    assert model.config._attn_implementation == "sdpa"
    model.activation_checkpointing_disable()
    record(model, text())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"record": ["attention_map"]}, "attention_map.*known are pattern"),
        ({"layers": [2]}, "layer 2 does not exist; there are layers 0 to 1"),
        ({"heads": [4]}, "head 4 does not exist"),
        ({"layers": []}, "no layer is chosen; leave layers out to record all"),
        ({"heads": []}, "no head is chosen"),
        ({"offsets": [1, -1]}, "no query attends to a later key; expected 0 or more"),
    ],
)
def test_what_does_not_exist_is_refused(tiny, options, message):
    with pytest.raises(CaptureError, match=message):
        AttentionExtractor(tiny.model, **options)


def test_two_extractors_on_one_model_are_refused(tiny):
    with AttentionExtractor(tiny.model), pytest.raises(CaptureError, match="another extractor"):
        AttentionExtractor(tiny.model).__enter__()
    record(tiny.model, text())


def test_a_copy_made_inside_the_block_is_refused(tiny):
    with AttentionExtractor(tiny.model):
        twin = copy.deepcopy(tiny.model)
        with pytest.raises(CaptureError, match="copied inside a block that records"):
            twin(text())


def test_attention_that_is_changed_inside_the_block_is_noticed(tiny):
    with (
        pytest.raises(CaptureError, match="set to 'eager' inside the block"),
        AttentionExtractor(tiny.model),
    ):
        tiny.model.set_attn_implementation("eager")
        tiny.model(text())
    record(tiny.model, text())  # it has its own attention again


def test_a_model_that_shares_the_config_object_runs_unrecorded(family):
    _, model = family
    other = type(model)(model.config).eval()
    assert other.config is model.config
    with torch.no_grad():
        plain = other(text(), use_cache=False).logits
        alone, _ = record(model, text())
        with AttentionExtractor(model) as extractor:
            assert torch.equal(other(text(), use_cache=False).logits, plain)
            assert not extractor.recorded
            model(text(), use_cache=False)
            other(text(), use_cache=False)
    assert torch.equal(extractor.stacked("pattern"), alone.stacked("pattern"))


@pytest.mark.parametrize("name", sorted(SHAPES))
@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([0, TOKENS], r"position 24 does not exist; .* 0 to 23"),
        ([-1], r"position -1 does not exist; .* 0 to 23"),
        ([], "no position is chosen"),
    ],
)
def test_a_position_that_does_not_exist_is_refused(tiny, name, positions, message):
    with (
        pytest.raises(CaptureError, match=message),
        AttentionExtractor(tiny.model, record=[name], positions=positions),
    ):
        tiny.model(text())
    record(tiny.model, text())


def test_a_cache_of_earlier_tokens_changes_nothing_that_is_recorded(tiny):
    ids = text(1)
    full, _ = record(tiny.model, ids, statistics=True, offsets=[1])
    with torch.no_grad():
        past = tiny.model(ids[:, :20], use_cache=True).past_key_values
        with AttentionExtractor(tiny.model, statistics=True, offsets=[1]) as later:
            tiny.model(ids[:, 20:], past_key_values=past, use_cache=True)
    torch.testing.assert_close(later["pattern", 1], full["pattern", 1][:, :, 20:])
    for name in ("sink", "entropy", "distance"):
        a, b = (getattr(e.statistics[1], name) for e in (later, full))
        torch.testing.assert_close(a, b[..., 20:], atol=1e-4, rtol=0)


def test_q_and_k_of_cached_tokens_are_refused(tiny):
    ids = text(1)
    with torch.no_grad():
        past = tiny.model(ids[:, :20], use_cache=True).past_key_values
        with (
            pytest.raises(CaptureError, match="k of earlier tokens is not in their cache"),
            AttentionExtractor(tiny.model, record=["k"]),
        ):
            tiny.model(ids[:, 20:], past_key_values=past, use_cache=True)


def test_unknown_key_is_refused(tiny):
    extractor, _ = record(tiny.model, text())
    with pytest.raises(CaptureError, match=r"blocks\.3\.attn\.hook_pattern"):
        extractor["layers.0.pattern"]
