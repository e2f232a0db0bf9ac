from dataclasses import replace

import pytest

from lab.instruments.memory_model import TrainingSetup
from lab.instruments.model_shape import ModelShape
from lab.instruments.throughput_model import MachineRates, TimeFit, step_seconds, work

SMOLLM2 = ModelShape.from_config(
    {
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    }
)
SETUP = TrainingSetup("lora", batch=8, sequence=32, supervised=0.5)
RATES = MachineRates.of_datasheet(100e9, 10e9, utilisation=1.0)


def test_operations_are_those_of_the_performance_page() -> None:
    todo = work(SMOLLM2, SETUP)
    assert todo.layer == 4 * 256 * 106_168_320
    assert todo.adapter == 6 * 256 * 16 * 305_280
    assert todo.head == 4 * 128 * 28_311_552


def test_full_fine_tuning_takes_half_as_much_again() -> None:
    assert work(SMOLLM2, replace(SETUP, method="full")).layer == 1.5 * work(SMOLLM2, SETUP).layer


def test_attention_grows_with_the_square_of_the_length() -> None:
    longer = replace(SETUP, batch=4, sequence=64)
    assert work(SMOLLM2, longer).layer == work(SMOLLM2, SETUP).layer
    assert work(SMOLLM2, longer).attention == 2 * work(SMOLLM2, SETUP).attention


def test_products_alone_take_their_operations_over_the_rate() -> None:
    seconds = step_seconds(SMOLLM2, SETUP, RATES, TimeFit(1.0, 0.0, 0.0))
    todo = work(SMOLLM2, SETUP)
    flops = todo.layer + todo.adapter + todo.head + todo.attention
    assert seconds == pytest.approx(flops / 100e9 + todo.update / 10e9)


def test_qlora_makes_each_weight_wide_twice() -> None:
    extra = work(SMOLLM2, replace(SETUP, method="qlora")).dequantised
    assert extra == 2 * 106_168_320
    assert work(SMOLLM2, SETUP).dequantised == 0
    fit = TimeFit(1.0, 1.0, 1.0)
    slower = step_seconds(SMOLLM2, replace(SETUP, method="qlora"), RATES, fit)
    assert slower > step_seconds(SMOLLM2, SETUP, RATES, fit)
