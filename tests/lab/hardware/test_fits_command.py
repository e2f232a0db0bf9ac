"""`python -m lab fits`: an answer for any config, and clear errors."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from lab.digests import sha256
from lab.hardware import command, verified
from tests.lab.hardware.machine import small_machine

ROOT = Path(__file__).resolve().parents[3]
NEW_MODEL = {
    "model_type": "qwen2",
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
    "max_position_embeddings": 32768,
}


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Return an empty folder of results in place of the repository's."""
    monkeypatch.setattr(verified.this_machine, "__defaults__", (tmp_path / "results",))
    return tmp_path / "results"


def write_result(results, *, is_changed=False):
    """Write a verified result of FEAT-017 with a small machine."""
    folder = results / "FEAT-017"
    folder.mkdir(parents=True)
    result = json.dumps({"environment": {"machine": small_machine().to_json()}}).encode()
    digest = sha256(result)
    (folder / "result.json").write_bytes(result + (b" " if is_changed else b""))
    subject = [{"name": "result.json", "digest": {"sha256": digest}}]
    (folder / "receipt.json").write_text(json.dumps({"subject": subject}))


def run(capsys, *argv):
    code = command.main(argv)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_without_a_result_the_datasheets_answer_and_that_is_said(results, capsys):
    code, text, _ = run(capsys, "Llama-3.1-8B")
    assert code == 0
    assert "This machine is left out: there is no verified result of FEAT-017" in text
    assert "QLoRA of rank 16, 1 × 2,048 tokens a step" in text
    assert "It fits on RTX 3060 12GB and on 11 of 11 others." in text
    assert "Prices age: the oldest rent is of 2025-06-30" in text


def test_this_machine_is_as_the_verified_result_measured_it(results, capsys):
    write_result(results)
    code, text, _ = run(capsys, "smollm2-135m", "--sequence", "512")
    assert code == 0
    (row,) = [line for line in text.splitlines() if line.startswith("this machine")]
    assert row.split()[2:4] == ["13.5", "yes"]
    assert "This machine as measured: FEAT-017, receipt " in text
    _, text, _ = run(capsys, "Llama-3.1-70B")
    (row,) = [line for line in text.splitlines() if line.startswith("this machine")]
    assert row.split()[2:] == ["13.5", "no", "-", "-", "-"]
    _, text, _ = run(capsys, "Llama-3.1-70B", "--method", "lora")
    assert "It fits nowhere: H200 141GB has 125.10 of the 13" in text


def test_a_changed_result_is_refused(results, capsys):
    write_result(results, is_changed=True)
    code, text, error = run(capsys, "smollm2-135m")
    assert (code, text) == (2, "")
    assert "is not the one that its receipt names" in error
    assert error.endswith("next: python -m phases audit\n")


def test_json_has_every_device_and_the_parts_sum_up(results, capsys):
    write_result(results)
    code, text, _ = run(capsys, "SmolLM2-1.7B", "--method", "lora", "--rank", "8", "--json")
    assert code == 0
    answer = json.loads(text)
    assert (answer["method"], answer["rank"], answer["batch"]) == ("lora", 8, 1)
    assert answer["parameters"] == 1_711_376_384
    assert answer["devices"][0]["name"] == "this machine"
    for device in answer["devices"]:
        assert abs(sum(device["parts"].values()) - device["bytes"]) < 10
        assert device["fits"] == (device["bytes"] <= device["usable_bytes"])


def test_any_config_is_answered_for(results, tmp_path, capsys):
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(NEW_MODEL))
    for name in (folder, folder / "config.json"):
        code, text, _ = run(capsys, str(name), "--method", "full", "--device", "rtx 4090")
        assert code == 0
        assert text.startswith("my-model, 463,987,712 parameters")
        assert "full fine-tuning, 1 × 2,048" in text
        assert text.count("RTX") == 2  # in the answer and in its row


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("SmolLM3",), "got model 'SmolLM3'; expected one of SmolLM2-135M, "),
        (("/nowhere/config.json",), "/nowhere/config.json cannot be read: No such file"),
        (("SmolLM2-135M", "--sequence", "8193"), "expected at most the 8,192 positions"),
        (("SmolLM2-135M", "--sequence", "-1"), "--sequence: got -1; expected a whole number"),
        (("SmolLM2-135M", "--batch", "0"), "--batch: got 0; expected a whole number from 1"),
        (("SmolLM2-135M", "--rank", "-8"), "--rank: got -8; expected a whole number from 1"),
        (("SmolLM2-135M", "--rank", "99999999"), "--rank: got 99999999; expected"),
        (("SmolLM2-135M", "--device", "RTX 1"), "--device: got 'RTX 1'; expected one of RTX 3060"),
        (("SmolLM2-135M", "--device", "this machine"), "this machine was not measured"),
    ],
)
def test_a_bad_question_is_two_lines_and_exit_code_2(results, capsys, argv, message):
    code, text, error = run(capsys, *argv)
    assert (code, text) == (2, "")
    assert message in error
    assert [line.split(":")[0] for line in error.splitlines()] == ["error", "next"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": None}, "has no hidden_size"),
        ({"hidden_size": -1}, "hidden_size: got -1; expected a whole number from 1 to"),
        ({"vocab_size": "many"}, "vocab_size: got 'many'; expected a whole number"),
        ({"num_hidden_layers": 10**400}, "num_hidden_layers: got 1000"),
        ({"num_key_value_heads": 5}, "num_key_value_heads: got 5; expected a divisor of the"),
        ({"num_hidden_layers": True}, "num_hidden_layers: got True; expected"),
        ({"model_type": "mamba"}, "family 'mamba'; expected one of"),
        ({"model_type": None}, "family None; expected one of"),
    ],
)
def test_a_config_that_says_too_little_is_refused(results, tmp_path, capsys, change, message):
    path = tmp_path / "config.json"
    config = {key: value for key, value in (NEW_MODEL | change).items() if value is not None}
    path.write_text(json.dumps(config))
    code, text, error = run(capsys, str(path))
    assert (code, text) == (2, "")
    assert message in error


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "is no JSON"), (b"\xff\xfe\x00", "is no JSON"), (b"[]", "contains a list")],
)
def test_what_is_no_config_is_refused(results, tmp_path, capsys, content, message):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    code, _, error = run(capsys, str(path))
    assert code == 2
    assert message in error


def test_a_model_of_the_hub_is_read_from_its_cache_or_refused_offline(results, tmp_path):
    # a process of its own: the hub's client reads these variables when it is imported
    def ask():
        return subprocess.run(
            [sys.executable, "-m", "lab", "fits", "owner/their-model"],
            cwd=ROOT,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )

    refused = ask()
    assert refused.returncode == 2
    assert "HF_HUB_OFFLINE is set, and 'owner/their-model' is not in the hub's" in refused.stderr
    repository = tmp_path / "hub" / "models--owner--their-model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("abc")
    (repository / "snapshots/abc").mkdir(parents=True)
    (repository / "snapshots/abc/config.json").write_text(json.dumps(NEW_MODEL))
    answered = ask()
    assert answered.returncode == 0, answered.stderr
    assert answered.stdout.startswith("their-model, 463,987,712 parameters (the hub's owner/their")


def test_a_hub_that_does_not_answer_is_refused_at_once(results, capsys, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    from huggingface_hub import constants

    # nobody listens at port 1
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    code, _, error = run(capsys, "owner/no-model")
    assert code == 2
    assert "cannot be had from the hub" in error


def test_it_loads_neither_torch_nor_matplotlib():
    script = (
        "import sys, lab.__main__ as m\n"
        "try: m.main(['fits', 'SmolLM2-135M'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'matplotlib', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("model", ["Llama-3.1-70B", "SmolLM2-135M"])
def test_no_line_is_wider_than_a_terminal(model):
    child = pexpect.spawn(
        sys.executable, ["-m", "lab", "fits", model], cwd=str(ROOT), dimensions=(50, 80)
    )
    child.expect(pexpect.EOF, timeout=60)
    child.close()
    assert child.exitstatus == 0
    lines = child.before.decode().splitlines()
    assert max(map(len, lines)) <= 80, max(lines, key=len)


def test_results_are_not_looked_for_in_the_current_folder(tmp_path):
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    process = subprocess.run(
        [sys.executable, "-m", "lab", "fits", "SmolLM2-135M"],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.rmtree(copy)
    assert process.returncode == 0, process.stderr
