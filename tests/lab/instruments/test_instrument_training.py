"""Training: it learns, splits batches exactly, resumes bit for bit, and never fails in silence."""

import contextlib
import math
import random
import signal
from dataclasses import replace

import pytest
import torch

from lab.instruments import adapters, models, training
from lab.instruments.adapters import LoraSettings
from lab.instruments.chat import IGNORE, Encoded
from lab.instruments.training import Settings
from tests.forks import FORKS

SETTINGS = Settings(steps=8, batch_size=4, learning_rate=5e-3, warmup_steps=2)


def example(seed):
    draw = random.Random(seed)
    ids = tuple(draw.randrange(3, 259) for _ in range(draw.randrange(6, 14)))
    return Encoded(ids, (*[IGNORE] * 3, *ids[3:]))


EXAMPLES = [example(seed) for seed in range(12)]


@pytest.fixture
def model(tiny_folder):
    return adapters.attach(
        models.load(tiny_folder, dtype=torch.float32, quantisation="nf4"),
        LoraSettings(4, 8, lora_dropout=0.1),
        seed=0,
    )


def without_time(steps):
    return [replace(step, seconds=0.0) for step in steps]


def test_it_learns_what_it_sees(model):
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    steps = training.train(model, EXAMPLES[:4], replace(SETTINGS, steps=40, learning_rate=2e-2))
    assert steps[-1].loss < 0.9 * steps[0].loss
    assert steps[-1].token_accuracy > 0.5 > steps[0].token_accuracy
    assert all(
        torch.equal(p, frozen[n]) for n, p in model.named_parameters() if not p.requires_grad
    )
    assert not model.training


def test_the_first_step_measures_the_base(model):
    first = training.train(model, EXAMPLES, replace(SETTINGS, steps=1))[0]
    with torch.no_grad(), model.disable_adapter():
        losses = [
            model(input_ids=torch.tensor([e.ids]), labels=torch.tensor([e.labels])).loss
            * e.supervised
            for e in EXAMPLES[:4]
        ]
    supervised = sum(e.supervised for e in EXAMPLES[:4])
    assert math.isclose(first.loss, float(sum(losses)) / supervised, rel_tol=1e-5)
    assert (first.supervised_tokens, first.total_tokens) == (
        supervised,
        sum(len(e.ids) for e in EXAMPLES[:4]),
    )
    assert 0 < first.entropy <= math.log(259)


def test_a_batch_may_be_split_without_changing_the_step(tiny_folder):
    def run(accumulation):
        model = adapters.attach(
            models.load(tiny_folder, dtype=torch.float32), LoraSettings(4, 8), seed=0
        )
        steps = training.train(model, EXAMPLES, replace(SETTINGS, accumulation=accumulation))
        return steps, adapters.state(model)

    (whole, one), (split, two) = run(1), run(4)
    for a, b in zip(whole, split, strict=True):
        assert math.isclose(a.loss, b.loss, rel_tol=1e-4)
        assert math.isclose(a.grad_norm, b.grad_norm, rel_tol=1e-3)
    assert all(torch.allclose(one[n], two[n], atol=1e-4) for n in one)


@pytest.mark.parametrize("killed_at", [1, 5])
def test_a_killed_run_goes_on_as_if_it_had_never_stopped(tiny_folder, tmp_path, killed_at):
    def fresh():
        loaded = models.load(tiny_folder, dtype=torch.float32, quantisation="nf4")
        return adapters.attach(loaded, LoraSettings(4, 8, lora_dropout=0.1), seed=0)

    class KilledError(Exception):
        pass

    def kill(done, step, optimizer):
        if done == killed_at:
            raise KilledError

    whole, broken, resumed = fresh(), fresh(), fresh()
    torch.manual_seed(1)
    expected = training.train(whole, EXAMPLES, SETTINGS)
    torch.manual_seed(1)
    with pytest.raises(KilledError):
        training.train(
            broken,
            EXAMPLES,
            SETTINGS,
            resume=tmp_path / "c.safetensors",
            save_every=1,
            after_step=kill,
        )
    torch.manual_seed(2)  # dropout must go on from the checkpoint's random state, not from this one
    got = training.train(
        resumed, EXAMPLES, SETTINGS, resume=tmp_path / "c.safetensors", save_every=1
    )
    assert without_time(got) == without_time(expected)
    one, two = adapters.state(whole), adapters.state(resumed)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_resuming_without_the_optimizers_state_is_another_run(tiny_folder, tmp_path):
    """Control: the comparison above sees a resume that forgets AdamW's moments."""
    loaded = models.load(tiny_folder, dtype=torch.float32)
    model = adapters.attach(loaded, LoraSettings(4, 8), seed=0)
    expected = training.train(model, EXAMPLES, SETTINGS)
    start = adapters.attach(
        models.load(tiny_folder, dtype=torch.float32), LoraSettings(4, 8), seed=0
    )
    training.train(
        start, EXAMPLES, SETTINGS, after_step=lambda done, step, optimizer: optimizer.state.clear()
    )
    again = training.train(start, EXAMPLES, replace(SETTINGS, steps=1))
    assert without_time(again)[0] != without_time(expected)[0]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("cosine", [0.5, 1.0, 1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
    ],
)
def test_schedules(schedule, expected):
    settings = Settings(steps=6, batch_size=1, learning_rate=1.0, warmup_steps=2, schedule=schedule)
    assert [training.learning_rate(step, settings) for step in range(6)] == pytest.approx(expected)


def test_gradients_are_clipped_after_they_are_measured(tiny_folder):
    def moved(limit):
        model = adapters.attach(
            models.load(tiny_folder, dtype=torch.float32), LoraSettings(4, 8), seed=0
        )
        norms = []
        settings = replace(SETTINGS, steps=1, max_grad_norm=limit)
        training.train(
            model,
            EXAMPLES,
            settings,
            after_step=lambda done, step, optimizer: norms.append(
                (
                    step.grad_norm,
                    math.sqrt(
                        sum(
                            float(p.grad.square().sum())
                            for p in adapters.parameters(model).values()
                        )
                    ),
                )
            ),
        )
        return norms[0]

    measured, left = moved(1e-3)
    assert left == pytest.approx(1e-3, rel=1e-3)
    unclipped = moved(1e9)[1]
    assert measured == pytest.approx(unclipped, rel=1e-5)
    assert unclipped > 1e-3


def test_a_batch_without_supervised_tokens_stops_the_run(model):
    nothing = [Encoded((5, 6, 7), (IGNORE,) * 3)] * 4
    with pytest.raises(
        training.TrainingError, match="step 0: none of the batch's tokens is supervised"
    ):
        training.train(model, nothing, SETTINGS)


def test_a_loss_that_is_no_number_stops_the_run(model):
    with torch.no_grad():
        next(iter(adapters.parameters(model).values())).fill_(math.nan)
    with pytest.raises(training.TrainingError, match="step 0: loss nan"):
        training.train(model, EXAMPLES, SETTINGS)


def test_gradients_that_are_all_zero_stop_the_run(model):
    with torch.no_grad():
        for p in adapters.parameters(model).values():
            p.zero_()  # A = B = 0: neither can ever move
    with pytest.raises(training.TrainingError, match="all gradients are zero"):
        training.train(model, EXAMPLES, SETTINGS)


def test_a_model_without_an_adapter_is_refused(tiny_folder, model):
    bare = models.load(tiny_folder, dtype=torch.float32).model.requires_grad_(requires_grad=False)
    with pytest.raises(training.TrainingError, match="nothing is trained: no adapter is attached"):
        training.train(bare, EXAMPLES, SETTINGS)
    with (
        model.disable_adapter(),
        pytest.raises(training.TrainingError, match="or it is switched off"),
    ):
        training.train(model, EXAMPLES, SETTINGS)


def test_labels_that_are_all_equal_are_refused(model):
    same = [
        replace(e, ids=(*e.ids[:3], 9, 9), labels=(IGNORE, IGNORE, IGNORE, 9, 9)) for e in EXAMPLES
    ]
    with pytest.raises(training.TrainingError, match="every supervised token is the same, id 9"):
        training.train(model, same, SETTINGS)
    other = [
        *same[1:],
        replace(same[0], ids=(*same[0].ids[:3], 9, 8), labels=(IGNORE, IGNORE, IGNORE, 9, 8)),
    ]
    training.train(model, other, replace(SETTINGS, steps=1))


def test_a_held_out_answer_among_the_examples_is_refused(model):
    """Also behind another prompt: the answer is what is learned."""
    known = EXAMPLES[2]
    leak = Encoded((*known.ids[:3][::-1], *known.ids[3:]), known.labels)
    expected = (
        "1 of 2 held-out examples have the answer of a training example, the first is number 1"
    )
    with pytest.raises(training.TrainingError, match=expected):
        training.train(model, EXAMPLES, SETTINGS, held_out=[example(99), leak])
    training.train(model, EXAMPLES, replace(SETTINGS, steps=1), held_out=[example(99)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_base_weights_may_be_bfloat16_beside_float32_adapters(tiny_folder, dtype):
    model = adapters.attach(models.load(tiny_folder, dtype=dtype), LoraSettings(4, 8), seed=0)
    assert {p.dtype for p in adapters.parameters(model).values()} == {torch.float32}
    steps = training.train(model, EXAMPLES[:4], replace(SETTINGS, steps=30, learning_rate=2e-2))
    assert steps[-1].loss < 0.95 * steps[0].loss
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {dtype}


def train_in_child(folder, checkpoint, sender):
    """Train, and send the number of each step that is done, then the losses and the adapter."""
    torch.set_num_threads(1)
    loaded = models.load(folder, dtype=torch.float32)
    model = adapters.attach(loaded, LoraSettings(4, 8), seed=0)

    def after_step(done, *_):
        sender.send(done)

    steps = training.train(
        model, EXAMPLES, SETTINGS, resume=checkpoint, save_every=1, after_step=after_step
    )
    weights = {name: tensor.tolist() for name, tensor in adapters.state(model).items()}
    sender.send(([step.loss for step in steps], weights))


def run_child(folder, checkpoint, *, kill_at=None):
    """Return what a training process sends; it is killed as soon as step `kill_at` is done."""
    receiver, sender = FORKS.Pipe(duplex=False)
    child = FORKS.Process(target=train_in_child, args=(folder, checkpoint, sender))
    child.start()
    sender.close()
    received = []
    with contextlib.suppress(EOFError):
        while True:
            received.append(receiver.recv())
            if received[-1] == kill_at:
                # SIGKILL: somewhere in the next step, or in the writing of its checkpoint
                child.kill()
                break
    child.join()
    assert child.exitcode == (0 if kill_at is None else -signal.SIGKILL)
    return received


def test_processes_killed_on_the_way_end_where_an_undisturbed_one_does(tiny_folder, tmp_path):
    *steps, whole = run_child(tiny_folder, tmp_path / "whole.safetensors")
    assert steps == list(range(1, 9))
    broken = tmp_path / "broken.safetensors"
    for kill_at in (1, 4):
        run_child(tiny_folder, broken, kill_at=kill_at)
    *steps, rest = run_child(tiny_folder, broken)
    assert len(steps) <= 4, "it went on and did not begin anew"
    assert rest == whole
    losses, _ = whole
    assert len(set(losses)) == SETTINGS.steps, "the losses differ from step to step"


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tiny_folder):
    def losses(seed):
        model = adapters.attach(
            models.load(tiny_folder, dtype=torch.float32), LoraSettings(4, 8), seed=seed
        )
        return [step.loss for step in training.train(model, EXAMPLES, SETTINGS)]

    assert losses(0) == losses(0)
    assert losses(0)[2:] != losses(1)[2:]


def test_a_batch_that_cannot_be_split_evenly_is_refused():
    with pytest.raises(training.TrainingError, match="batch_size 4 cannot be split into 3"):
        replace(SETTINGS, accumulation=3)
