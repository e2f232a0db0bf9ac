"""`python -m lab attention`: a page of one's own text, and clear errors."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab.attention_views import command
from lab.instruments import adapters, models
from tests.lab.present.pages import data_of

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def adapter_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an adapter of the tiny model that changes it."""
    import torch

    loaded = models.tiny(0)
    model = adapters.attach(loaded, adapters.LoraSettings(r=2, lora_alpha=4), seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    folder = tmp_path_factory.mktemp("adapter")
    adapters.save(model, folder)
    return folder


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = command.main(argv)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_it_writes_the_page_of_a_text(tiny_folder, tmp_path, capsys) -> None:
    path = tmp_path / "own.html"
    code, text, _ = run(
        capsys, "hello </script>\n", "--model", str(tiny_folder), "--out", str(path)
    )
    assert code == 0
    assert "16 tokens, every share" in text
    (shown,) = data_of(path.read_text())["texts"]
    assert "".join(shown["tokens"]) == "hello·</script>⏎"
    assert [one["label"] for one in shown["variants"]] == ["base"]


def test_an_adapter_is_put_beside_the_base(tiny_folder, adapter_folder, tmp_path, capsys) -> None:
    path = tmp_path / "both.html"
    argv = ("hello", "--model", str(tiny_folder), "--adapter", str(adapter_folder))
    code, text, error = run(capsys, *argv, "--out", str(path))
    assert code == 0, error
    assert "(base and tuned)" in text
    base, tuned = data_of(path.read_text())["texts"][0]["variants"]
    assert (base["label"], tuned["label"]) == ("base", "tuned")
    assert base["shares"] != tuned["shares"]


def test_a_file_is_read_and_a_long_text_has_its_strongest_sources(
    tiny_folder, tmp_path, capsys
) -> None:
    file = tmp_path / "text.txt"
    file.write_text("abc " * 20)
    out = tmp_path / "long.html"
    argv = ("--file", str(file), "--model", str(tiny_folder), "--out", str(out))
    code, text, _ = run(capsys, *argv)
    assert code == 0
    assert "80 tokens, the 8 strongest sources of each token" in text
    assert not data_of(out.read_text())["texts"][0]["is_full"]


def test_what_cannot_be_shown_is_one_line_and_exit_code_2(
    tiny_folder, adapter_folder, tmp_path, capsys
) -> None:
    model = ("--model", str(tiny_folder))
    other = tmp_path / "other"
    bad = tmp_path / "bytes.txt"
    bad.write_bytes(b"\xff\xfe\xff")
    other.mkdir()
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "adapter_config.json").write_text("{}")
    cases = [
        ((), "got neither a text nor a file"),
        (("a", "--file", str(bad)), "got both a text and a file"),
        (("--file", str(bad)), "cannot be read as UTF-8 text"),
        (("--file", str(tmp_path / "none.txt")), "cannot be read"),
        (("  \n",), "the text is empty"),
        (("a", *model), "the text has 1 token; expected 2 to 500"),
        (("a" * 501, *model), "the text has 501 tokens; expected 2 to 500"),
        (("abc", "--model", str(tmp_path / "none")), "no folder with a config.json"),
        (("abc", *model, "--adapter", str(empty)), "its adapter_config.json has no 'peft_type'"),
        (("abc", *model, "--adapter", str(other)), "has no adapter_config.json"),
        (("abc", *model, "--out", str(tmp_path / ("x" * 300))), "cannot be written"),
        # These two before anything is loaded.
        (
            ("abc", "--out", str(tmp_path / "no/where.html")),
            f"the folder {tmp_path / 'no'} does not exist",
        ),
        (("abc", "--out", str(tmp_path)), "is a folder; expected a file"),
    ]
    for argv, message in cases:
        code, text, error = run(capsys, *argv)
        assert (code, text) == (2, ""), argv
        assert message in error
        assert error.startswith("error: ") and "\nnext: " in error


def test_an_adapter_of_another_model_is_refused(adapter_folder, tmp_path, capsys) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    wider = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=259,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
        )
    )
    torch.manual_seed(0)
    loaded = models.tiny(0)
    models.save(models.Loaded(wider, loaded.tokenizer, "wider"), tmp_path / "wider")
    argv = ("abc", "--model", str(tmp_path / "wider"), "--adapter", str(adapter_folder))
    code, _, error = run(capsys, *argv, "--out", str(tmp_path / "x.html"))
    assert code == 2
    assert "does not fit" in error


@pytest.mark.filterwarnings("ignore")  # as where nobody makes warnings errors
def test_an_adapter_whose_weights_fit_nowhere_is_no_tuned_model(
    tiny_folder, adapter_folder, tmp_path, capsys
) -> None:
    from safetensors.torch import load_file, save_file

    stranger = Path(shutil.copytree(adapter_folder, tmp_path / "stranger"))
    weights = load_file(stranger / adapters.WEIGHTS)
    elsewhere = {name.replace("layers.", "layers.7"): t for name, t in weights.items()}
    save_file(elsewhere, stranger / adapters.WEIGHTS)
    damaged = Path(shutil.copytree(adapter_folder, tmp_path / "damaged"))
    (damaged / adapters.WEIGHTS).write_bytes(b"\xff" * 100)
    for folder in (stranger, damaged):
        argv = ("hello", "--model", str(tiny_folder), "--adapter", str(folder))
        code, text, error = run(capsys, *argv, "--out", str(tmp_path / "x.html"))
        assert (code, text) == (2, "")
        assert "does not fit" in error
        assert not (tmp_path / "x.html").exists()


def test_the_list_of_experiments_still_loads_no_torch() -> None:
    program = (
        "import sys; from lab.__main__ import main; main([]); "
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "lab.attention_views.experiment" in result.stdout


def test_it_is_a_subcommand() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "lab", "attention", ""],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "the text is empty" in result.stderr
