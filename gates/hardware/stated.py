"""What the user stated, as the run stored it: four YAML files and this machine. Validated."""

from __future__ import annotations

import datetime
import math
from typing import Any

from gates.shared import outputs
from gates.shared.closed_form import sizes_of
from gates.shared.stored import artifact

HERE = "this machine"
FILES = ("devices.yaml", "prices.yaml", "models.yaml", "needs.yaml")
READ = tuple(f"artifacts/decision/{name}" for name in (*FILES, "machine.json"))
METHODS = ("full", "lora", "qlora")
RATES = {"layer", "adapter", "head", "attention", "bandwidth", "dequantised", "overhead"}
THRESHOLDS = (
    "months",
    "purchase_budget",
    "rent_budget",
    "hours_per_month",
    "upgrade_saving",
    "host_price",
    "rented_hours_extra",
)
# What datasheets and the hub publish: a row of such a name cannot say something else. ECC takes
# some of the memory, and boards differ a little.
KNOWN_DEVICES = {  # GiB, GB/s, dense TFLOPS with 16 bits, W
    "RTX 3060 12GB": (12, 360, 25.5, 170),
    "RTX 4060 Ti 16GB": (16, 288, 44, 165),
    "T4": (16, 320, 65, 70),
    "RTX 3090": (24, 936, 71, 350),
    "L4": (24, 300, 121, 72),
    "RTX 4090": (24, 1008, 165, 450),
    "RTX 5090": (32, 1792, 209.5, 575),
    "A100 40GB": (40, 1555, 312, 400),
    "L40S": (48, 864, 362, 350),
    "A100 80GB": (80, 2039, 312, 400),
    "H100 80GB": (80, 3350, 989, 700),
    "H200 141GB": (141, 4800, 989, 700),
}
KNOWN_PARAMETERS = {  # by repository on the hub
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B": 1_711_376_384,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "Qwen/Qwen2.5-14B": 14_770_033_664,
    "Qwen/Qwen2.5-32B": 32_763_876_352,
    "Qwen/Qwen2.5-72B": 72_706_203_648,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.1-70B": 70_553_706_496,
}
FIELDS = ("memory_gib", "bandwidth_gb_s", "peak_tflops", "watts")
TOLERANCE = 0.1  # of a datasheet's number


def document(name: str) -> Any:
    """Return a stored YAML file."""
    import yaml

    return yaml.safe_load(artifact(f"decision/{name}").read_text("utf-8"))


def machine() -> dict[str, Any]:
    """Return this machine as it was stored: memory in bytes, rates, fits."""
    stored: dict[str, Any] = outputs.read_json("artifacts/decision/machine.json")
    assert set(stored) == {"memory_bytes", "rates", "memory_fit", "time_fit"}
    assert set(stored["rates"]) == RATES
    assert set(stored["memory_fit"]) == {"runtime", "activation_factor", "workspace"}
    assert set(stored["time_fit"]) == {"products", "passes", "operations"}
    return stored


def assert_valid() -> None:
    """Check every row that a number of the report rests on; names are unique and known."""
    # 1. Devices and prices.
    devices = document("devices.yaml")["devices"]
    for device in devices:
        assert_positive(device, *FIELDS)
        assert_sourced(device)
        published = KNOWN_DEVICES.get(device["name"])
        if published is not None:
            for field, value in zip(FIELDS, published, strict=True):
                assert abs(device[field] / value - 1) < TOLERANCE, f"{device['name']}: {field}"
    names = [device["name"] for device in devices]
    assert_unique(names)
    prices = document("prices.yaml")
    assert_sourced(prices["electricity"])
    assert prices["prices"], "no price at all"
    assert_unique([price["device"] for price in prices["prices"]])
    for price in prices["prices"]:
        assert price["device"] in names, price
        assert_sourced(price)
        assert_positive(price, *({"purchase", "rent_hour"} & set(price)))
        both = {"purchase", "rent_hour"} <= set(price)
        assert not both or price["rent_hour"] < price["purchase"], price

    # 2. Models and needs.
    for model in document("models.yaml")["models"]:
        assert_counted(model)
    models = {model["name"]: model for model in document("models.yaml")["models"]}
    assert_unique([model["name"] for model in document("models.yaml")["models"]])
    needs = document("needs.yaml")
    assert_unique([need["name"] for need in needs["needs"]])
    for need in needs["needs"]:
        assert need["method"] in METHODS and need["model"] in models, need
        assert_positive(need, "sequence", "batch", "tokens_per_run", "runs_per_month")
        assert_positive(need, "hours_per_run")
        assert need["sequence"] <= models[need["model"]]["config"]["max_position_embeddings"]
    assert set(needs["thresholds"]) == set(THRESHOLDS)
    assert 0 <= needs["thresholds"]["upgrade_saving"] < 1
    assert 0 <= needs["assumptions"]["reserve_share"] < 1
    assert 0 < needs["assumptions"]["utilisation"] <= 1
    assert_sourced(needs["assumptions"])


def assert_counted(model: dict[str, Any]) -> None:
    """Check a model's published number of parameters, also against its matrices and embedding."""
    config = model["config"]
    sizes = sizes_of(config, model["parameters"])
    published = KNOWN_PARAMETERS.get(model["repository"])
    assert published in (None, model["parameters"]), model["name"]
    copies = 1 if config["tie_word_embeddings"] else 2
    counted = sizes.linear + copies * sizes.vocabulary * sizes.d
    # what is left out, norms and biases, is less than a thousandth
    assert counted <= model["parameters"] <= 1.001 * counted, model["name"]


def assert_positive(row: dict[str, Any], *fields: str) -> None:
    """Check that fields of a row are finite numbers above 0."""
    for field in fields:
        value = row[field]
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        assert is_number and math.isfinite(value) and value > 0, f"{row}: {field}"


def assert_sourced(row: dict[str, Any]) -> None:
    """Check that a row has a source and a date."""
    assert isinstance(row["source"], str) and row["source"].strip(), row
    assert isinstance(row["date"], datetime.date), row


def assert_unique(names: list[str]) -> None:
    """Check that no name is there twice."""
    assert len(names) == len(set(names)), names
