"""The YAML files that the user edits: valid as shipped, and clear errors."""

import re
import shutil

import pytest
import yaml

from lab.config import ConfigError
from lab.hardware.catalogue import FILES, FOLDER, read_catalogue
from lab.hardware.decision import store_catalogue


@pytest.fixture
def folder(tmp_path):
    for name in FILES:
        shutil.copy(FOLDER / name, tmp_path)
    return tmp_path


def edit(path, old, new, count=1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def test_shipped_files_are_valid_and_dated():
    catalogue = read_catalogue()
    assert {device.name for device in catalogue.devices} >= {"RTX 3060 12GB", "T4", "H100 80GB"}
    for row in (*catalogue.devices, *catalogue.prices.values(), catalogue.electricity):
        assert row.source
        assert row.date.year >= 2020
    assert {need.method for need in catalogue.needs} == {"lora", "qlora"}


def test_models_have_their_published_number_of_parameters():
    # the counts that the hub shows, from the headers of the weights
    published = {
        "SmolLM2-135M": 134_515_008,
        "SmolLM2-360M": 361_821_120,
        "SmolLM2-1.7B": 1_711_376_384,
        "Qwen2.5-0.5B": 494_032_768,
        "Qwen2.5-7B": 7_615_616_512,
        "Llama-3.2-3B": 3_212_749_824,
        "Llama-3.1-8B": 8_030_261_248,
        "Llama-3.1-70B": 70_553_706_496,
    }
    catalogue = read_catalogue()
    assert {name: catalogue.model(name).shape.total for name in published} == published


def test_copies_are_read_like_the_files(tmp_path):
    assert store_catalogue(tmp_path) == read_catalogue()
    assert sorted(path.name for path in (tmp_path / "decision").iterdir()) == sorted(FILES)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "devices.yaml",
            "memory_gib: 12",
            "memory_gib: -12",
            "devices.yaml: devices, row 'RTX 3060 12GB', memory_gib: got -12; expected greater",
        ),
        ("devices.yaml", "memory_gib: 12", "memory_gib: 12 GB", "memory_gib: got '12 GB'; expect"),
        ("devices.yaml", "memory_gib: 12", "memory_gib: 12288", "got 12288; expected less than or"),
        ("devices.yaml", "    watts: 170\n", "", "'RTX 3060 12GB', watts: expected a value"),
        ("devices.yaml", "watts: 170", "wats: 170", "row 'RTX 3060 12GB', "),
        ("devices.yaml", "name: T4", "name: L4", "two rows of the device 'L4'; expected one"),
        ("devices.yaml", "    watts: 70\n", "    watts: 70\n    watts: 71\n", "is there twice"),
        ("devices.yaml", "devices:", "devices: [", "cannot be read as YAML"),
        ("prices.yaml", "device: T4", "device: T5", "got device 'T5'; expected one of RTX 3060"),
        ("prices.yaml", "rent_hour: 0.53", "rent_hour: free", "row 'T4', rent_hour: got 'free'"),
        ("prices.yaml", "currency: USD", "currency: dollars", "currency: got 'dollars'"),
        ("prices.yaml", "date: 2021-02-25", "date: launch", "row 'RTX 3060 12GB', date: got"),
        ("models.yaml", "num_hidden_layers: 30", "num_hidden_layers: 31", "got 134,515,008; expe"),
        ("models.yaml", "      vocab_size: 49152\n", "", "has no vocab_size"),
        ("needs.yaml", "model: SmolLM2-135M", "model: SmolLM3", "model 'SmolLM3'; expected one"),
        ("needs.yaml", "method: qlora", "method: dora", "method: got 'dora'; expected 'full', '"),
        ("needs.yaml", "sequence: 512", "sequence: 9000", "got 9,000; expected at most the 8,192"),
        ("needs.yaml", "batch: 4", "batch: 0", "batch: got 0; expected greater than 0"),
        ("needs.yaml", "months: 24", "months: .nan", "thresholds, months: got nan"),
        ("needs.yaml", "upgrade_saving: 0.2", "upgrade_saving: 20", "upgrade_saving: got 20"),
        ("needs.yaml", "utilisation: 0.5", "utilisation: 1.5", "utilisation: got 1.5"),
    ],
)
def test_a_wrong_row_is_named(folder, file, old, new, message):
    edit(folder / file, old, new)
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_catalogue(folder)


def test_a_missing_file_is_named(folder):
    (folder / "prices.yaml").unlink()
    with pytest.raises(ConfigError, match=r"prices\.yaml cannot be read"):
        read_catalogue(folder)


@pytest.mark.parametrize(
    ("file", "key"),
    [("devices.yaml", "devices"), ("prices.yaml", "prices"), ("needs.yaml", "needs")],
)
def test_a_file_without_rows_is_refused(tmp_path, file, key):
    for path in FOLDER.glob("*.yaml"):
        document = yaml.safe_load(path.read_text())
        if path.name == file:
            document[key] = []
        (tmp_path / path.name).write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError, match=f"{file}: {key}: got .*; expected at least one row"):
        read_catalogue(tmp_path)
