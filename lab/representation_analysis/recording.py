"""One pass over the text, and what follows from it: stream, writes, lens, similarity of layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lab.instruments.activations import ActivationExtractor
from lab.instruments.logit_lens import lens_logits
from lab.instruments.models import architecture
from lab.instruments.similarity import (
    cka_matrix,
    cka_of_products,
    linear_cka,
    outlier_tokens,
    products,
)
from lab.representation_analysis.measured import (
    KINDS,
    RANDOM_WEIGHTS,
    RAW,
    SHUFFLED,
    WITHOUT_FIRST,
    WITHOUT_OUTLIERS,
    AnalysisPlan,
    Lens,
    Similarity,
    Stream,
    Writes,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The criterion of Sun et al. 2024, arXiv:2402.17762, section 2.
MASSIVE, TIMES_MEDIAN = 100.0, 1000.0


# products [N, N] of two layers, and the tokens that are kept, bool [N]
Case = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Recorded:
    """One pass: ids [B, T], the stream at each depth [L + 1, B, T, D], the writes [2, L, B, T, D].

    logits: [B, T, V].
    """

    ids: torch.Tensor
    stream: torch.Tensor
    writes: torch.Tensor
    logits: torch.Tensor


def record(model: PreTrainedModel, ids: torch.Tensor) -> Recorded:
    """Run the model on ids [B, T] and keep its stream and what each layer adds to it."""
    extractor = ActivationExtractor(
        model, record=("resid_pre", "attn_out", "mlp_out", "resid_post")
    )
    with extractor, torch.no_grad():
        logits = model(ids, use_cache=False).logits
    extractor.require_all_recorded()
    last = extractor["resid_post", extractor.layers[-1]]
    return Recorded(
        ids=ids,
        stream=torch.cat([extractor.stacked("resid_pre"), last[None]]).float(),
        writes=torch.stack([extractor.stacked("attn_out"), extractor.stacked("mlp_out")]).float(),
        logits=logits.float(),
    )


def untrained(model: PreTrainedModel, seed: int) -> Any:
    """Return a model of the same architecture with random weights."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        control = AutoModelForCausalLM.from_config(
            model.config, dtype=model.dtype, attn_implementation="sdpa"
        )
    return control.to(model.device).eval()


def kind_of(text: str) -> str:
    """Return the kind of a token that says `text`: one of KINDS."""
    core = text.strip()
    if not core:
        return "blank"
    if core.isdigit():
        return "digit"
    if not any(character.isalnum() for character in core):
        return "punctuation"
    return "word start" if text[0].isspace() else "inside a word"


def kinds_of(tokenizer: Any, ids: torch.Tensor) -> np.ndarray:
    """Return the place in KINDS of every token's kind, by its own text; shape of ids."""
    texts = [tokenizer.decode([token]) for token in ids.flatten().tolist()]
    codes = [KINDS.index(kind_of(text)) for text in texts]
    return np.array(codes, dtype=np.int64).reshape(ids.shape)


# The stream


def stream_of(stream: torch.Tensor) -> Stream:
    """Return norms, extremes and massive activations of a stream [L + 1, B, T, D]."""
    layers, batch, total, width = stream.shape
    sizes = stream[1:].abs()  # of each layer's output
    flat = sizes.reshape(layers - 1, batch, total * width)
    top, place = flat.max(-1)
    median = flat.median(-1).values  # [L, B]
    limit = (TIMES_MEDIAN * median).clamp(min=MASSIVE)
    layer, sequence, position, dimension = (sizes > limit[..., None, None]).nonzero(as_tuple=True)
    hits = torch.stack([sequence, layer, position, dimension], dim=1)
    order = np.lexsort(hits.T.flip(0).cpu().numpy())
    return Stream(
        norms=_by_sequence(stream.norm(dim=-1), 1),
        top=_by_sequence(top, 1),
        top_position=_by_sequence(place // width, 1),
        top_dimension=_by_sequence(place % width, 1),
        median=_by_sequence(median, 1),
        hits=hits.cpu().numpy()[order],
    )


def _by_sequence(tensor: torch.Tensor, axis: int) -> np.ndarray:
    """Return an array with the sequences in front, which were at `axis`."""
    return np.asarray(tensor.movedim(axis, 0).contiguous().cpu().numpy())


# The writes


def writes_of(model: PreTrainedModel, recorded: Recorded) -> Writes:
    """Return lengths and directions of what each layer adds, and its direct attribution.

    The attribution is of the logit of the next token over the mean logit of the vocabulary, because
    only differences of logits count. The final norm's scale is that of the whole stream, so that
    the contributions add up to the logit (Elhage et al. 2021, "A Mathematical Framework").
    """
    stream, writes = recorded.stream, recorded.writes
    cosine = torch.nn.functional.cosine_similarity
    targets = recorded.ids[:, 1:]

    # 1. The direction of the stream that raises that logit, per token [B, T - 1, D].
    head = model.get_output_embeddings().weight.detach().float()
    norm = model.get_submodule(architecture(model.config).final_norm)
    last = stream[-1]
    with torch.no_grad():
        # An RMS norm is x·γ/scale: of its output for 1s, γ/scale is left.
        scale = (last.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()
        direction = (head[targets] - head.mean(0)) * norm.weight.float() / scale[:, :-1]

    # 2. What each write adds along it.
    attribution = torch.einsum("plbtd,btd->bplt", writes[:, :, :, :-1], direction)
    embedding = (stream[0, :, :-1] * direction).sum(-1)
    logits = recorded.logits[:, :-1]
    target = logits.gather(-1, targets[..., None])[..., 0] - logits.mean(-1)
    return Writes(
        norms=_by_sequence(writes.norm(dim=-1), 2),
        cosine=_by_sequence(cosine(writes[0], writes[1], dim=-1), 1),
        stream_cosine=_by_sequence(cosine(stream[:-1], stream[1:], dim=-1), 1),
        attribution=attribution.cpu().numpy(),
        embedding=embedding.cpu().numpy(),
        target=target.cpu().numpy(),
    )


# The lens


def lens_positions(length: int, every: int) -> list[int]:
    """Return the tokens that the lens looks at: the last one of every `every`."""
    return list(range(every - 1, length, every))


def lens_of(model: PreTrainedModel, recorded: Recorded, plan: AnalysisPlan) -> Lens:
    """Return how near the lens at each depth is to what the model predicts in the end."""
    places = lens_positions(plan.length, plan.every)
    final = recorded.logits[:, places].log_softmax(-1)  # [B, P, V]
    choice, chance = final.argmax(-1), final.exp()
    agrees, divergence = [], []
    for residual in recorded.stream[:, :, places]:
        with torch.no_grad():
            logits = lens_logits(model, residual).float().log_softmax(-1)
        agrees.append(logits.argmax(-1) == choice)
        divergence.append((chance * (final - logits)).sum(-1))
    return Lens(
        agrees=_by_sequence(torch.stack(agrees).long(), 1),
        kl=_by_sequence(torch.stack(divergence), 1),
    )


# Similarity of layers


def similarity_of(
    stream: torch.Tensor, control: torch.Tensor, plan: AnalysisPlan, seed: int
) -> Similarity:
    """Return CKA of a stream [L + 1, B, T, D] with its controls; `control`: random weights."""
    _, batch, total, _ = stream.shape
    flat, control = stream.flatten(1, 2), control.flatten(1, 2)  # [L + 1, N, D]
    outliers = outlier_tokens(flat.norm(dim=-1))
    sequence = torch.arange(batch, device=flat.device).repeat_interleave(total)
    first = torch.arange(total, device=flat.device).repeat(batch) == 0

    # 1. The planned pair, also without each sequence.
    x, y = (products(flat[layer + 1]) for layer in plan.pair)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=generator).to(x.device)
    mixed = _mixed(order, outliers)
    kept = ~outliers
    every = torch.ones_like(first)
    random_x, random_y = (products(control[layer + 1]) for layer in plan.pair)
    cases: dict[str, Case] = {
        RAW: (x, y, every),
        WITHOUT_FIRST: (x, y, ~first),
        WITHOUT_OUTLIERS: (x, y, kept),
        RANDOM_WEIGHTS: (random_x, random_y, every),
        SHUFFLED: (x, y[mixed][:, mixed], kept),
    }
    pair = {name: _of_kept(*case) for name, case in cases.items()}
    left_out = {name: _without_each(*case, sequence) for name, case in cases.items()}

    # 2. Depth 0 and the last, and all pairs.
    ends = (products(flat[0]), products(flat[-1]), kept)
    matrices = {RAW: cka_matrix(flat), WITHOUT_OUTLIERS: cka_matrix(flat[:, kept])}
    return Similarity(
        matrices={name: matrix.cpu().numpy() for name, matrix in matrices.items()},
        pair=pair,
        left_out=left_out,
        ends=np.array([linear_cka(flat[0, kept], flat[-1, kept]), *_without_each(*ends, sequence)]),
        outliers=outliers.reshape(batch, total).long().cpu().numpy(),
    )


def _mixed(order: torch.Tensor, outliers: torch.Tensor) -> torch.Tensor:
    """Return [N] which token stands at each place: the tokens that are no outliers in `order`."""
    mixed = torch.arange(len(order), device=order.device)
    mixed[~outliers] = order[~outliers[order]]
    return mixed


def _of_kept(k: torch.Tensor, m: torch.Tensor, kept: torch.Tensor) -> float:
    """Return the CKA of the kept tokens, from the products [N, N] of all."""
    return cka_of_products(k[kept][:, kept], m[kept][:, kept])


def _without_each(
    k: torch.Tensor, m: torch.Tensor, kept: torch.Tensor, sequence: torch.Tensor
) -> np.ndarray:
    """Return the CKA of the kept tokens without those of each sequence, [B]."""
    values = []
    for left_out in range(int(sequence[-1]) + 1):
        values.append(_of_kept(k, m, kept & (sequence != left_out)))
    return np.array(values)
