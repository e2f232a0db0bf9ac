"""The contract of a replay: a part of a stored run, computed again by the functions that made it.

The topic of a long experiment has a module `replay` with

- `replay(ctx: Context, stored: Path, draw: random.Random) -> list[Row]`, which computes the first
  steps and a drawn sample of what `stored`, the outputs of an earlier run, has;
- at its end `if __name__ == "__main__": main(replay)`.

It is started as

    python -m lab.TOPIC.replay --stored DIR --inputs FILE --config FILE --profile NAME --seed N \
        --draw HEX --out FILE

with the config, profile, seed and inputs of that run, and writes FILE (JSON: what each row is) and
beside it the recomputed arrays, FILE with the suffix .safetensors. Whoever starts it compares.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lab
from lab.config import load_config
from lab.contract import Context, Inputs

if TYPE_CHECKING:
    import numpy as np

# What float32 in another order may change, relative to the largest value of a row: matrix products
# of another instruction set, torch or number of threads.
FLOAT_NOISE = 0.01
FLOAT_REASON = "float32 sums in another order"

Part = tuple[str | int, ...]


@dataclass(frozen=True)
class Row:
    """One array that was computed again.

    quantity: what it is, in words; file: where its stored twin is, below the outputs; part: the
    name of a tensor, or the keys that lead to a value of a JSON document; (): the file's bytes;
    indices: of the first axis of the stored array, None: all of it; is_deterministic: the same
    machine with the same libraries computes the same bits; tolerance: of the difference relative
    to the largest value, where it does not, or on another machine; reason: for this tolerance.
    """

    quantity: str
    file: str
    part: Part
    recomputed: np.ndarray
    indices: tuple[int, ...] | None = None
    is_deterministic: bool = True
    tolerance: float = FLOAT_NOISE
    reason: str = FLOAT_REASON


Replay = Callable[[Context, Path, random.Random], Sequence[Row]]


def main(replay: Replay) -> None:
    """Run a replay from the command line."""
    # 1. The arguments.
    parser = argparse.ArgumentParser(description="Compute a part of a stored run again.")
    parser.add_argument("--stored", type=Path, required=True, help="the outputs of that run")
    parser.add_argument("--inputs", type=Path, required=True, help="JSON: name -> path")
    parser.add_argument("--config", type=Path, required=True, help="the config of that run")
    parser.add_argument("--profile", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draw", required=True, help="hexadecimal digits that draw the sample")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    args = parser.parse_args()

    # 2. The replay; what it writes on the way is thrown away.
    with tempfile.TemporaryDirectory() as scratch:
        ctx = Context(
            config=load_config(args.config, args.profile),
            profile=args.profile,
            seed=args.seed,
            inputs=Inputs(json.loads(args.inputs.read_text("utf-8"))),
            out=Path(scratch),
            progress=lambda done, total, note: None,
        )
        rows = replay(ctx, args.stored, random.Random(args.draw))

    # 3. What it computed.
    write_rows(args.out, rows)


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as a JSON file, and their arrays beside it under the numbers of the rows."""
    import numpy as np
    from safetensors.numpy import save_file

    described = []
    arrays = {}
    for number, row in enumerate(rows):
        fields = {name: value for name, value in vars(row).items() if name != "recomputed"}
        described.append(fields)
        arrays[str(number)] = np.ascontiguousarray(row.recomputed)
    document = {"lab": str(lab.__file__), "rows": described}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    save_file(arrays, path.with_suffix(".safetensors"))
    path.with_suffix(".safetensors").chmod(0o644)  # safetensors makes it private to its owner


def read_stored(
    outputs: Path, file: str, part: Sequence[str | int], indices: Sequence[int] | None
) -> np.ndarray:
    """Return the stored array that a row names."""
    import numpy as np
    from safetensors import safe_open

    path = outputs / file
    if not part:
        array = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    elif path.suffix == ".safetensors":
        with safe_open(path, "np") as tensors:
            array = tensors.get_tensor(str(part[0]))
    else:
        value = json.loads(path.read_text("utf-8"))
        for key in part:
            value = value[key]
        array = array_of(value)
    if indices is None:
        return array
    return array[list(indices)]


def array_of(value: Any) -> np.ndarray:
    """Return a JSON value as an array: numbers as float64, all else as the bytes of its text."""
    import numpy as np

    values = value if isinstance(value, list) else [value]
    if values and all(type(one) in {int, float} for one in values):
        return np.array(values, dtype=np.float64)
    text = json.dumps(value, sort_keys=True)
    return np.frombuffer(text.encode(), dtype=np.uint8)
