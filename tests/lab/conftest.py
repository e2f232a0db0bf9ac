"""Small real things to measure: a random model of each family, and the pretrained one.

The latter is for tests marked `model`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import launched

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox")
VOCABULARY = 259  # that of the tiny model's byte tokenizer


@pytest.fixture(scope="session")
def tiny() -> Any:
    """Return the tiny random Llama; tests that change a model make their own."""
    from lab.instruments import models

    return models.tiny(0)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the tiny random Llama as transformers loads it from disk."""
    from lab.instruments import models

    folder = tmp_path_factory.mktemp("models") / "tiny"
    models.save(models.tiny(0), folder)
    return folder


def write_chats(path: Path) -> Path:
    """Write 60 chats of one short question and its answer; return the file."""
    lines = []
    for i in range(60):
        messages = [
            {"role": "user", "content": f"{i:03}"},
            {"role": "assistant", "content": f"answer {i}"},
        ]
        lines.append(json.dumps({"messages": messages}) + "\n")
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="session")
def chat_examples(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return 60 examples in 20 groups, their answers of different lengths."""
    from lab.instruments import data, models

    lines = []
    for i in range(60):
        answer = f"Does thing {i}" + " again" * (i % 4)
        messages = [
            {"role": "user", "content": f"f{i}()"},
            {"role": "assistant", "content": f"{answer}."},
        ]
        row = {"name": f"f{i}", "group": f"g{i % 20}", "messages": messages}
        lines.append(json.dumps(row) + "\n")
    path = tmp_path_factory.mktemp("chats") / "chats.jsonl"
    path.write_text("".join(lines))
    return data.load(str(path), models.tiny(0).tokenizer, max_tokens=200)


@pytest.fixture(params=FAMILIES)
def family_model(request: pytest.FixtureRequest) -> Any:
    """Return a random model of 2 layers of every family that the lab knows."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2}
    if request.param == "gpt2":
        sizes |= {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128}
        sizes |= {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}
    else:
        sizes |= {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        }
        sizes |= {} if request.param == "gpt_neox" else {"num_key_value_heads": 2, "head_dim": 16}
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(request.param, **sizes)).eval()


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Return the folder of the pretrained default model, fetched if it is not there."""
    from lab.instruments import pretrained

    pretrained.fetch(pretrained.cache_folder())
    return pretrained.cache_folder() / pretrained.NAME


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Return a running Chromium."""
    with launched() as running:
        yield running
