"""What fits where: held against published trainings, with cases that must and must not fit."""

import math
from dataclasses import replace

import pytest

from lab.hardware.catalogue import read_catalogue
from lab.hardware.feasibility import (
    GIB,
    Machine,
    Workload,
    cheapest_owned,
    cheapest_rented,
    combinations,
    estimate,
    machines_of,
    not_feasible,
    owned_hour,
)
from lab.instruments.memory_model import TrainingSetup, memory
from lab.instruments.throughput_model import MachineRates, step_seconds, work
from tests.lab.hardware.machine import small_machine

# torchtune's README: Llama 3.2 3B on one A100 80GB, batch 2, rows of 4,096 tokens, packed,
# bfloat16 (peak memory in GiB, tokens a second). AdamW's moments are in bfloat16 there.
LADDER = {
    "packed": ("full", False, "full", 60.0, 7075),
    "packed, compiled": ("full", False, "full", 51.0, 8998),
    "chunked loss": ("full", False, "fused", 42.9, 9174),
    "checkpointed": ("full", True, "fused", 24.9, 7210),
    "LoRA": ("lora", True, "fused", 8.5, 8210),
    "QLoRA": ("qlora", True, "fused", 4.6, 8035),
}


def ladder_setup(method, checkpointing, logits):
    return TrainingSetup(
        method=method,
        batch=2,
        sequence=4096,
        rank=64,
        weight_bytes=2,
        adapter_bytes=2,
        optimizer_bytes=4,
        logits=logits,
        checkpointing=checkpointing,
        all_parameters=True,
    )


@pytest.fixture(scope="module")
def catalogue():
    return read_catalogue()


@pytest.mark.parametrize("name", LADDER)
def test_memory_is_near_what_torchtune_published(catalogue, name):
    method, checkpointing, logits, gib, _ = LADDER[name]
    shape = catalogue.model("Llama-3.2-3B").shape
    needed = memory(shape, ladder_setup(method, checkpointing, logits)).total / GIB
    # off by -11 to +10 %; compiling saves what no formula here knows
    assert needed == pytest.approx(gib, rel=0.12)


def test_utilisation_is_what_torchtune_reaches_without_compiling(catalogue):
    shape = catalogue.model("Llama-3.2-3B").shape
    reached = {}
    for name, (method, checkpointing, logits, _, speed) in LADDER.items():
        setup = ladder_setup(method, checkpointing, logits)
        todo = work(shape, setup)
        flops = todo.layer + todo.adapter + todo.head + todo.attention
        reached[name] = flops / setup.tokens * speed / 312e12
    stated = catalogue.assumptions.utilisation
    assert reached["packed"] == pytest.approx(stated, abs=0.02)
    # the others are compiled: the stated share is less than all of them, and not by half
    compiled = [share for name, share in reached.items() if name != "packed"]
    assert min(compiled) > stated
    assert max(compiled) < 1.4 * stated


@pytest.mark.parametrize("name", ["LoRA", "QLoRA"])
def test_adapters_train_somewhat_slower_than_torchtune_published(catalogue, name):
    method, checkpointing, logits, _, speed = LADDER[name]
    setup = ladder_setup(method, checkpointing, logits)
    stated = catalogue.assumptions.utilisation
    rates = MachineRates.of_datasheet(312e12, 2039e9, utilisation=stated)
    seconds = step_seconds(catalogue.model("Llama-3.2-3B").shape, setup, rates)
    assert setup.tokens / seconds == pytest.approx(0.8 * speed, rel=0.08)


def test_known_cases(catalogue):
    """An 8B model by QLoRA fits on 12 GB and its full fine-tuning not on 80 GB; 70B not on 24."""
    machines = {one.name: one for one in machines_of(catalogue, None)}

    def fits(model, method, device):
        workload = Workload(catalogue.model(model).shape, method, 2048, 1, 16)
        return estimate(machines[device], workload, 0.1).fits

    assert fits("Llama-3.1-8B", "qlora", "RTX 3060 12GB")
    assert not fits("Llama-3.1-8B", "lora", "RTX 3060 12GB")
    assert fits("Llama-3.1-8B", "lora", "RTX 3090")
    assert not fits("Llama-3.1-8B", "full", "H100 80GB")
    assert not fits("Llama-3.1-70B", "qlora", "RTX 4090")
    assert fits("Llama-3.1-70B", "qlora", "A100 80GB")


def test_more_of_anything_needs_more(catalogue):
    shape = catalogue.model("SmolLM2-360M").shape
    machine = machines_of(catalogue, None)[0]
    base = Workload(shape, "qlora", 512, 1, 16)

    def needed(**changes):
        return estimate(machine, replace(base, **changes), 0.1).bytes

    assert needed(sequence=1024) > needed()
    assert needed(batch=2) > needed()
    assert needed(rank=64) > needed()
    assert needed(method="lora") > needed()
    assert needed(method="full") > needed(method="lora")


def test_the_reserve_is_kept_free(catalogue):
    workload = Workload(catalogue.model("SmolLM2-135M").shape, "qlora", 512, 1, 16)
    machine = small_machine()
    needed = estimate(machine, workload, 0.0).bytes
    exact = replace(machine, memory_bytes=needed)
    assert estimate(exact, workload, 0.0).fits
    assert not estimate(exact, workload, 0.01).fits


def test_combinations_and_what_is_not_feasible(catalogue):
    cells = combinations(catalogue, machines_of(catalogue, small_machine()))
    assert len(cells) == len(catalogue.models) * 3 * 3
    nowhere = {(cell.model, cell.method, cell.sequence) for cell in not_feasible(cells)}
    assert ("Llama-3.1-70B", "full", 512) in nowhere
    assert ("SmolLM2-135M", "full", 512) not in nowhere
    for cell in cells:
        largest = max(one.usable_bytes for one in cell.estimates)
        is_nowhere = (cell.model, cell.method, cell.sequence) in nowhere
        assert is_nowhere == (cell.estimates[-1].bytes > largest)


def test_prices_of_a_million_tokens(catalogue):
    cells = combinations(catalogue, machines_of(catalogue, small_machine()))
    (cell,) = [
        one
        for one in cells
        if (one.model, one.method, one.sequence) == ("Llama-3.1-8B", "qlora", 2048)
    ]
    rented, price = cheapest_rented(cell, catalogue, 1e6)
    rents = {}
    for one in cell.fitting:
        hour = catalogue.prices[one.machine].rent_hour
        if hour is not None:
            rents[one.machine] = hour * one.hours(1e6)
    assert rents[rented.machine] == min(rents.values()) == price
    owned, price = cheapest_owned(cell, catalogue, 1e6)
    card = next(device for device in catalogue.devices if device.name == owned.machine)
    purchase = catalogue.prices[card.name].purchase + catalogue.thresholds.host_price
    hour = purchase / (24 * 300) + card.watts / 1000 * catalogue.electricity.price_kwh
    assert math.isclose(price, owned.hours(1e6) * hour)
    t4 = next(device for device in catalogue.devices if device.name == "T4")
    assert owned_hour(t4, catalogue) is None


def test_this_machine_survives_json():
    machine = small_machine()
    assert Machine.from_json(machine.to_json()) == machine
