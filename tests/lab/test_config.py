"""Reading an experiment's YAML: the two traps of the language, and errors that name the file."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.config import ConfigError, load_config


def write_config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text, "utf-8")
    return path


def test_a_profile_is_laid_over_what_is_common(tmp_path: Path) -> None:
    path = write_config(
        tmp_path,
        "common: {lr: 1.0e-3, lora: {r: 16, alpha: 32}}\n"
        "profiles: {smoke: {lora: {r: 2}}, cpu: {}}",
    )
    assert load_config(path, "smoke") == {"lr": 1e-3, "lora": {"r": 2, "alpha": 32}}
    assert load_config(path, "cpu") == {"lr": 1e-3, "lora": {"r": 16, "alpha": 32}}


@given(value=st.floats(1e-12, 1e12), style=st.sampled_from(["{:e}", "{:.0e}", "{!r}"]))
def test_every_way_to_write_a_rate_is_a_number(
    tmp_path_factory: pytest.TempPathFactory, value: float, style: str
) -> None:
    text = style.format(value)
    path = write_config(tmp_path_factory.mktemp("c"), f"profiles: {{cpu: {{lr: {text}}}}}")
    rate = load_config(path, "cpu")["lr"]
    assert isinstance(rate, float)
    assert rate == float(text)


def test_words_and_versions_stay_text(tmp_path: Path) -> None:
    path = write_config(tmp_path, "profiles: {cpu: {a: nf4, b: 1e3x, c: e5}}")
    assert load_config(path, "cpu") == {"a": "nf4", "b": "1e3x", "c": "e5"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("profiles: {cpu: {}}", "no profile 'gpu'; there are cpu"),
        ("profiles: {gpu: {a: 1, a: 2}}", "key 'a' is there twice"),
        ("common: {a: 1}", "expected the key `profiles`"),
        ("profiles: {gpu: {}}\nprofile: {}", "unknown key 'profile'"),
        ("profiles: [", "cannot be read"),
    ],
)
def test_a_config_that_cannot_be_used_says_why(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml") as error:
        load_config(write_config(tmp_path, text), "gpu")
    assert message in str(error.value)


def test_a_missing_key_names_file_profile_and_section(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path, "profiles: {cpu: {lora: {r: 2}}}"), "cpu")
    with pytest.raises(
        ConfigError, match=r"config\.yaml, profile cpu: key 'steps' is missing \(there: lora\)"
    ):
        config["steps"]
    with pytest.raises(
        ConfigError, match=r"profile cpu, lora: key 'alpha' is missing \(there: r\)"
    ):
        config["lora"]["alpha"]
