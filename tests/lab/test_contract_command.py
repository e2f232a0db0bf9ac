"""The shared command line and `python -m lab`: real processes on a small real experiment."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = '''
"""Counting: how many are there?"""
from lab.contract import Context, Experiment, Measurement, Outcome, main

EXPERIMENT = Experiment(
    title="Counting", question="How many?", hypothesis="h", method="m", headline=("count",)
)

def run(ctx: Context) -> Outcome:
    ctx.progress(1, 2, "half")
    count = ctx.config["count"] + ctx.seed
    text = ctx.inputs.path("data").read_text() if ctx.config["read"] else ""
    (ctx.out / "given.txt").write_text(text)
    ctx.progress(2, 2, "done")
    return Outcome({"count": Measurement.of_exact(count)})

if __name__ == "__main__":
    main(EXPERIMENT, run)
'''
HIDDEN = {"PHASES_INPUTS", "PHASES_EVENTS"}


@pytest.fixture
def lab_folder(tmp_path: Path) -> Path:
    (tmp_path / "counting.py").write_text(EXPERIMENT)
    (tmp_path / "counting.yaml").write_text(
        "common: {count: 3, read: false}\nprofiles: {cpu: {}, reads: {read: true}}\n"
    )
    (tmp_path / "data.txt").write_text("seen")
    (tmp_path / "inputs.json").write_text(
        json.dumps({"data": {"kind": "input", "path": str(tmp_path / "data.txt")}})
    )
    return tmp_path


def start(folder: Path, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "counting", "--config", "counting.yaml", *more]
    env = {name: text for name, text in os.environ.items() if name not in HIDDEN}
    env |= {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_a_run_writes_its_result_below_out_only(lab_folder: Path) -> None:
    before = {path: path.read_bytes() for path in lab_folder.iterdir()}
    process = start(
        lab_folder, "--profile", "cpu", "--seed", "2", "--out", "out", PYTHONDONTWRITEBYTECODE="1"
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    result = json.loads((lab_folder / "out/result.json").read_text())
    assert result["experiment"] == "counting"
    assert (result["title"], result["headline"]) == ("Counting", ["count"])
    assert result["measurements"]["count"] == {"value": 5, "unit": "", "exact": True}
    assert (result["environment"]["seed"], result["environment"]["profile"]) == (2, "cpu")
    assert set(lab_folder.iterdir()) == {*before, lab_folder / "out"}
    assert all(path.read_bytes() == data for path, data in before.items())


@pytest.mark.parametrize("way", ["argument", "variable"])
def test_inputs_reach_the_run_and_their_digest_the_result(lab_folder: Path, way: str) -> None:
    more = ("--inputs", "inputs.json") if way == "argument" else ()
    variables = {"PHASES_INPUTS": "inputs.json"} if way == "variable" else {}
    process = start(lab_folder, "--profile", "reads", "--out", "out", *more, **variables)
    assert process.returncode == 0, process.stderr
    assert (lab_folder / "out/given.txt").read_text() == "seen"
    before = input_digest(lab_folder / "out")
    (lab_folder / "data.txt").write_text("other")
    start(lab_folder, "--profile", "reads", "--out", "second", *more, **variables)
    assert before.startswith("sha256:") and before != input_digest(lab_folder / "second")


def input_digest(out: Path) -> str:
    result = json.loads((out / "result.json").read_text())
    return result["environment"]["inputs"]["data"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--profile", "tpu", "--out", "out"], "no profile 'tpu'; there are cpu, reads"),
        (["--profile", "cpu", "--out", "."], "is not an empty folder; name a new one"),
        (["--profile", "cpu", "--out", "data.txt"], "is not an empty folder"),
        (["--profile", "reads", "--out", "out"], "input 'data' is not given (given: none)"),
        (["--profile", "cpu", "--out", "out", "--inputs", "data.txt"], "cannot be read as JSON"),
        (["--profile", "cpu", "--out", "out", "--inputs", "none.json"], "cannot be read as JSON"),
    ],
)
def test_misuse_is_one_line_and_exit_2(lab_folder: Path, more: list[str], message: str) -> None:
    process = start(lab_folder, *more)
    assert process.returncode == 2
    assert (
        process.stderr.startswith("error: ")
        and process.stderr.count("\n") == 1
        and message in process.stderr
    )


def test_progress_goes_to_the_runner_as_lines(lab_folder: Path) -> None:
    (lab_folder / "events").write_text('{"before": 1}\n')
    process = start(
        lab_folder, "--profile", "cpu", "--out", "out", PHASES_EVENTS=str(lab_folder / "events")
    )
    lines = [json.loads(line) for line in (lab_folder / "events").read_text().splitlines()]
    assert process.stderr == "" and lines[0] == {"before": 1}
    assert lines[1:] == [
        {"done": 1, "total": 2, "note": "half"},
        {"done": 2, "total": 2, "note": "done"},
    ]


def test_progress_without_a_runner_is_a_bar_on_the_terminal(lab_folder: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "counting", "--config", "counting.yaml"]
    command += ["--profile", "cpu", "--out", "out"]
    env = {name: text for name, text in os.environ.items() if name not in HIDDEN}
    env["PYTHONPATH"] = str(ROOT)
    process = subprocess.run(command, cwd=lab_folder, env=env, stderr=theirs, check=False)
    assert process.returncode == 0
    os.close(theirs)
    terminal = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "1/2 half" in terminal and "2/2 done" in terminal


def python(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_list_names_every_experiment_without_loading_torch() -> None:
    code = (
        "import sys; from lab.__main__ import main; main(['--json'])\n"
        "import lab.contract, lab.present\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'numpy'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    process = python("-c", code)
    assert process.returncode == 0, process.stderr
    listings = {item["module"]: item for item in json.loads(process.stdout)}
    assert {
        "lab.EXPERIMENT_TEMPLATE",
        "lab.questions.experiment",
        "lab.template.experiment",
    } <= set(listings)
    assert "lab.questions.question_log" not in listings
    for item in listings.values():
        assert item["question"].endswith("?"), item
        assert item["title"], item
        assert {"smoke", "cpu", "gpu"} <= set(item["profiles"]), item


def test_the_list_is_readable_and_refuses_unknown_arguments() -> None:
    process = python("-m", "lab")
    assert (
        process.returncode == 0
        and "lab.documentation.experiment\n" in process.stdout
        and "asks: " in process.stdout
    )
    process = python("-m", "lab", "run")
    assert (
        process.returncode == 2
        and "unrecognized arguments: run" in process.stderr
        and "Traceback" not in process.stderr
    )
