"""A copy of the template under the runner: verified as it is, refused when it is broken."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.soak import mark_soak

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/phases"))
from toy import Toy  # noqa: E402

GATE = '''
"""Recompute the template's numbers from its stored logits."""
import math

import pytest

from gates.shared import outputs

ARRAYS = ("artifacts/arrays.safetensors",)


def numbers():
    return outputs.cached("numbers", ARRAYS, compute)


def compute():
    import numpy as np
    from safetensors.numpy import load_file

    arrays = load_file(outputs.out() / ARRAYS[0])
    logits, tokens = arrays["logits"].astype(np.float64), arrays["tokens"]
    picked = np.take_along_axis(logits[:, :-1], tokens[:, 1:, None], 2)[..., 0]
    losses = (np.log(np.exp(logits).sum(-1))[:, :-1] - picked).mean(1)
    return {"vocabulary": logits.shape[-1], "loss": losses.tolist()}


def assert_sample(name, values):
    measurement, mean = outputs.measurement(name), sum(values) / len(values)
    stderr = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
    assert measurement["n"] == len(values)
    assert measurement["values"] == pytest.approx(values, rel=1e-4)
    assert measurement["value"] == pytest.approx(mean, rel=1e-4)
    assert measurement["stderr"] == pytest.approx(stderr, rel=1e-3, abs=1e-6)


def test_vocabulary():
    assert outputs.value("vocabulary") == numbers()["vocabulary"]


def test_chance():
    assert outputs.value("chance_loss") == pytest.approx(math.log(numbers()["vocabulary"]))


def test_loss():
    assert_sample("loss", numbers()["loss"])


def test_control_is_a_fair_guess():
    assert_sample("control_loss", [math.log(numbers()["vocabulary"])] * len(numbers()["loss"]))


@pytest.mark.integrity
def test_files():
    outputs.assert_files_match()


@pytest.mark.integrity
def test_report():
    outputs.assert_report_matches()


@pytest.mark.integrity
def test_figures():
    outputs.assert_figures_match()
'''

PREDICTION = {
    "id": "near-chance",
    "claim": "an untrained model's loss is within 0.1 of ln 259",
    "measurement": "loss",
    "comparator": "within",
    "value": [5.457, 5.657],
}
FEATURE = {
    "id": "MINE-001",
    "title": "My first experiment",
    "module": "lab.mine.first",
    "config": "lab/mine/first.yaml",
    "profile": "smoke",
    "outputs": ["result.json", "report.md", "figures/*", "artifacts/**"],
    "expect": {"minutes": 0.5, "memory_gb": 1},
    "gate": {"pytest": "gates/test_first.py"},
    "predictions": [PREDICTION],
}
PLAN = {
    "schema": 1,
    "project": "A learner's own",
    "results": "results",
    "defaults": {
        "timeout_s": 120,
        "gate_timeout_s": 120,
        "env": {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    },
    "phases": [{"id": 1, "name": "First steps", "features": [FEATURE]}],
}


@pytest.fixture
def learner(tmp_path: Path) -> Callable[[], Toy]:
    """Return a function that makes a repository with this lab and a copy of the template."""

    def make() -> Toy:
        root = tmp_path / "learner"
        toy = Toy(root, PLAN)
        ignore = shutil.ignore_patterns("__pycache__", "results")
        shutil.copytree(ROOT / "lab", root / "lab", ignore=ignore)
        for name in ("outputs.py", "images.py"):
            toy.write(f"gates/shared/{name}", (ROOT / "gates/shared" / name).read_text())
        toy.write("gates/test_first.py", GATE)
        toy.write("lab/mine/__init__.py", '"""My own experiments."""\n')
        for suffix in ("py", "yaml"):
            template = ROOT / f"lab/EXPERIMENT_TEMPLATE.{suffix}"
            shutil.copy(template, root / f"lab/mine/first.{suffix}")
        toy.commit("my first experiment")
        return toy

    return make


def change(toy: Toy, old: str, new: str) -> None:
    """Change one passage of the learner's experiment and commit it."""
    text = (toy.root / "lab/mine/first.py").read_text()
    assert text.count(old) == 1
    toy.write("lab/mine/first.py", text.replace(old, new))
    toy.commit("a change")


def test_the_template_as_it_is_is_verified(learner: Callable[[], Toy]) -> None:
    toy = learner()
    toy.run("run", "--next")
    feature = toy.status()["phases"][0]["features"][0]
    assert (feature["state"], feature["coverage"]) == ("verified", 1.0)
    verdict = json.loads((toy.root / "results/MINE-001/verdict.json").read_text())
    assert [item["outcome"] for item in verdict["predicate"]["phases/predictions/v1"]] == ["HELD"]
    assert (toy.root / "results/MINE-001/figures/loss_per_sequence.png").stat().st_size > 10_000
    toy.assert_audit_is_clean()


CHANGES = {
    "a better number than measured": (
        'Measurement.of_sample(arrays["losses"].mean(1), "nats/token")',
        'Measurement.of_sample(arrays["losses"].mean(1) * 0.9, "nats/token")',
        "failed",
        "test_loss",
    ),
    "no arrays": (
        '    store(ctx.out / "artifacts", arrays)\n',
        "",
        "failed",
        "arrays.safetensors",
    ),
    "no result": (
        "    main(EXPERIMENT, run)\n",
        "    pass\n",
        "errored",
        "result.json",
    ),
    "a crash": (
        "    arrays = measure(ctx)\n",
        "    raise SystemExit(3)\n",
        "errored",
        "exit 3",
    ),
}
"""A passage, what replaces it, the feature's state after it, and what progress.txt says."""


@pytest.mark.parametrize(
    "name", mark_soak(CHANGES, short={"a better number than measured", "no result"})
)
def test_a_broken_copy_is_refused(learner: Callable[[], Toy], name: str) -> None:
    old, new, state, message = CHANGES[name]
    toy = learner()
    change(toy, old, new)
    toy.run("run", "--next", code=1)
    assert toy.states() == {"MINE-001": state}
    assert message in toy.progress
    assert not (toy.root / "results/MINE-001/result.json").exists()
