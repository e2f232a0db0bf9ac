"""What the user stated, as the run stored it: four YAML files and this machine. Validated."""

from __future__ import annotations

import datetime
import math
from typing import Any

from gates.hardware.closed_form import sizes_of
from gates.shared import outputs
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
        assert_positive(device, "memory_gib", "bandwidth_gb_s", "peak_tflops", "watts")
        assert_sourced(device)
    names = [device["name"] for device in devices]
    assert_unique(names)
    prices = document("prices.yaml")
    assert_sourced(prices["electricity"])
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
    """Check a model's published number of parameters against its matrices and its embedding."""
    config = model["config"]
    sizes = sizes_of(config, model["parameters"])
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
