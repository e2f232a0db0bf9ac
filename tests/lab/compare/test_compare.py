"""Two runs compared as a user does it, and the intervals against scipy."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from scipy import stats

from lab.compare.comparing import Outcome, compare
from lab.contract import Measurement
from tests.lab.compare.runs import ESTIMATE, EXACT, RATES, SAMPLE, write_run

ROOT = Path(__file__).resolve().parents[3]
LATER = "2026-02-02T00:00:00Z"
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
OTHER_RATES = {
    **RATES,
    "best_rate": EXACT(5e-4),
    "gap": SAMPLE((0.40, 0.41, 0.42), "nats/token"),
    "loss": SAMPLE((2.61, 2.60, 2.63), "nats/token"),
    "first_loss": ESTIMATE(4.9, "nats/token"),
    "seconds": ESTIMATE(30.0, "s"),
}


def run(root: Path, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder, as a user does."""
    command = [sys.executable, "-m", "lab", "compare", *argv]
    return subprocess.run(
        command, cwd=root, env=ENV | env, capture_output=True, text=True, check=False, timeout=60
    )


def spoken(root: Path, *argv: str) -> str:
    """Return what the command says, without line breaks."""
    process = run(root, *argv)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    return " ".join(process.stdout.split())


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Return a repository with two features."""
    features = {"FEAT-005": {"curve": EXACT(4)}, "FEAT-006": RATES}
    write_run(tmp_path / "mine/lab/results", features)
    return tmp_path / "mine"


# Intervals


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((0.50, 0.52, 0.49), (0.40, 0.41, 0.42)),
        ((2.60, 2.62, 2.58), (2.61, 2.60, 2.63)),
        ((1.0, 5.0, 2.0, 8.0, 3.0), (9.0, 4.0)),
        ((1.0, 1.1, 0.9, 1.05), (1.3, 1.9, 1.4, 0.2, 1.1, 1.2)),
    ],
)
def test_the_interval_is_that_of_welch(a, b):
    one = compare("x", SAMPLE(a, ""), SAMPLE(b, ""))
    interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert one.difference - one.half == pytest.approx(interval.low)
    assert one.difference + one.half == pytest.approx(interval.high)
    is_excluded = interval.low > 0 or interval.high < 0
    assert one.outcome == (Outcome.DIFFERS if is_excluded else Outcome.AGREES)


def test_by_chance_one_interval_in_twenty_excludes_0():
    import numpy as np

    draw = np.random.default_rng(0)
    outside = 0
    for _ in range(2000):
        a, b = draw.normal(size=8), draw.normal(size=8)
        outside += compare("x", SAMPLE(a, ""), SAMPLE(b, "")).outcome == Outcome.DIFFERS
    assert 0.035 < outside / 2000 < 0.065


def test_an_exact_side_has_no_error():
    one = compare("x", EXACT(1.0), ESTIMATE(1.5, "", stderr=0.2, n=5))
    assert one.half == pytest.approx(stats.t.ppf(0.975, 4) * 0.2)


@pytest.mark.parametrize(
    ("here", "there", "outcome"),
    [
        (EXACT(3), EXACT(3), Outcome.EQUAL),
        (EXACT(3), EXACT(4), Outcome.DIFFERS),
        (EXACT(0.1 + 0.2), EXACT(0.3), Outcome.EQUAL),
        (EXACT("a"), EXACT("b"), Outcome.DIFFERS),
        (EXACT(value=True), EXACT(value=True), Outcome.EQUAL),
        (EXACT(value=True), EXACT(1), Outcome.DIFFERS),
        (EXACT(1000, "bytes"), EXACT(2000, "bytes"), Outcome.DIFFERS),
        (ESTIMATE(1000, "bytes"), ESTIMATE(2000, "bytes"), Outcome.MACHINE),
        (EXACT(0.5, "h"), EXACT(0.7, "h"), Outcome.MACHINE),
        (ESTIMATE(1.0, "nats"), ESTIMATE(1.0, "nats"), Outcome.EQUAL),
        (ESTIMATE(1.0, "nats"), ESTIMATE(1.1, "nats"), Outcome.UNKNOWN),
        (ESTIMATE(1.0, "", stderr=0.1, n=1), ESTIMATE(2.0, "", stderr=0.1, n=9), Outcome.UNKNOWN),
        (ESTIMATE(None, ""), ESTIMATE(1.1, ""), Outcome.UNKNOWN),
        (ESTIMATE(None, ""), ESTIMATE(None, ""), Outcome.EQUAL),
        (ESTIMATE(1.0, "", stderr=0.0, n=4), ESTIMATE(1.1, "", stderr=0.0, n=4), Outcome.UNKNOWN),
    ],
)
def test_what_two_measurements_come_to(here: Measurement, there: Measurement, outcome: Outcome):
    assert compare("x", here, there).outcome == outcome


def test_a_time_is_a_ratio():
    one = compare("x", ESTIMATE(60.0, "s"), ESTIMATE(30.0, "s"))
    assert one.ratio == 2
    assert compare("x", ESTIMATE(60.0, "s"), ESTIMATE(0.0, "s")).ratio is None


# The command


def test_what_differs_is_led_by_and_the_machines_are_named(mine, tmp_path):
    features = {"FEAT-005": {"curve": EXACT(4)}, "FEAT-006": OTHER_RATES}
    there = write_run(
        tmp_path / "there/lab/results",
        features,
        host={"name": "box", "cpus": 8, "memoryBytes": 64 * 2**30},
        packages={"torch": "2.14.0", "certifi": "2027.1"},
        environment={"packages": {"torch": "2.14.0"}},
        when=LATER,
    )
    text = spoken(mine, str(tmp_path / "there"))
    gaps = RATES["gap"].values, OTHER_RATES["gap"].values
    interval = stats.ttest_ind(*gaps, equal_var=False).confidence_interval(0.95)
    assert f"There: {there} (2 features)." in text
    assert (
        "What differs most: FEAT-006.best_rate: 0.001000 here, 5.000e-04 there (exact) "
        "FEAT-006.gap: 0.5033 ± 0.0088 nats/token (n = 3) here, 0.4100 ± 0.0058 nats/token "
        f"(n = 3) there (difference {interval.low:#.3g} to {interval.high:#.3g})"
    ) in text
    assert (
        "9 measurements of 2 features are in both: 4 equal, 1 within the interval of their "
        "difference, 2 different, 1 of the machine (a ratio), 1 undecided."
    ) in text
    assert "2 intervals decided, each at 95 %: about 0.10 would exclude 0 by chance" in text
    assert "nothing differed; 1 did." in text
    assert "Machine here: vm, x86_64, 2 CPUs, 16 GiB; there: box, x86_64, 8 CPUs, 64 GiB." in text
    assert "Between all runs differ: CPUs: 2 here, 8 there memory: 16 GiB here, 64 GiB" in text
    assert "torch: 2.13.0 here, 2.14.0 there" in text
    assert "certifi" not in text, "it cannot change a number"
    assert "executable" not in text
    assert "FEAT-006: 4 of 6 measurements agree, 3 are equal. Different: best_rate: " in text
    assert "no interval or no number (at most 2.0 % apart): first_loss." in text
    assert "Here over there, the median: 1 number in s 2.0." in text
    assert "Seed, config and data are the same in FEAT-006: " in text


def test_only_what_really_differs_is_a_reason(mine, tmp_path):
    environment = {
        "seed": 1,
        "profile": "gpu",
        "threads": 4,
        "config": {"seeds": [0, 1], "training": {"steps": 20}},
        "data": {"train": "d1" * 32},
        "inputs": {"FEAT-005": "sha256:other"},
    }
    write_run(
        tmp_path / "there",
        {"FEAT-006": OTHER_RATES},
        environment=environment,
        code="c1" * 32,
        when=LATER,
    )
    text = spoken(mine, str(tmp_path / "there"))
    for reason in (
        "seed: 0 here, 1 there",
        "profile: cpu here, gpu there",
        "threads: 2 here, 4 there",
        "config seeds: [0, 1, 2] here, [0, 1] there",
        "data train: d0d0d0d0 here, d1d1d1d1 there",
        "code of lab: c0c0c0c0 here, c1c1c1c1 there",
    ):
        assert reason in text
    assert "steps" not in text.split("Between all runs differ")[1].split("FEAT-006")[0]
    assert "processors" not in text
    assert "input model" not in text
    assert "Seed, config and data are the same" not in text
    assert "Only here: FEAT-005." in text


def test_results_made_from_others_that_differ_say_so(tmp_path):
    both = {"FEAT-005": {"curve": EXACT(4)}, "FEAT-006": RATES}
    needs = {"inputs": {"FEAT-005": "sha256:a"}}
    write_run(tmp_path / "mine/lab/results", both, environment=needs)
    others = {"FEAT-005": {"curve": EXACT(5)}, "FEAT-006": OTHER_RATES}
    write_run(tmp_path / "there", others, environment=needs, when=LATER)
    text = spoken(tmp_path / "mine", str(tmp_path / "there"))
    assert "made from FEAT-005, which differs too" in text


def test_numbers_that_differ_without_a_reason_should_not_and_say_what_to_run(mine, tmp_path):
    write_run(tmp_path / "there", {"FEAT-006": OTHER_RATES}, when=LATER)
    text = spoken(mine, str(tmp_path / "there"))
    assert "Code, config, data, seed, machine and packages are the same, so these numbers" in text
    assert "python -m phases verify FEAT-006" in text
    assert "FEAT-019" in text


def test_times_alone_need_no_reason(mine, tmp_path):
    slower = {**RATES, "seconds": ESTIMATE(90.0, "s")}
    write_run(tmp_path / "there", {"FEAT-006": slower}, when=LATER)
    text = spoken(mine, str(tmp_path / "there"))
    assert "Nothing differs that is no time, rate or size of a process." in text
    assert "phases verify" not in text


def test_the_same_receipt_is_the_same_run(mine):
    text = spoken(mine, str(mine))
    assert "FEAT-006: the same run, both sides have the same receipt." in text


def test_measurements_and_features_of_one_side_are_listed(mine, tmp_path):
    fewer = {name: one for name, one in RATES.items() if name != "spikes"}
    features = {"FEAT-006": fewer | {"extra": EXACT(1)}, "FEAT-021": {"x": EXACT(1)}}
    write_run(tmp_path / "there", features, when=LATER)
    text = spoken(mine, str(tmp_path / "there"))
    assert "Only here: spikes. Only there: extra." in text
    assert "Only here: FEAT-005." in text
    assert "Only there: FEAT-021." in text


@pytest.mark.parametrize("place", ["", "results", "lab/results"])
def test_results_are_found_where_they_can_be(mine, tmp_path, place):
    write_run(tmp_path / "there" / place, {"FEAT-006": RATES}, when=LATER)
    assert "FEAT-006" in spoken(mine, str(tmp_path / "there"))


def test_a_run_with_nothing_in_common_is_compared_too(mine, tmp_path):
    write_run(tmp_path / "there", {"FEAT-021": RATES})
    text = spoken(mine, str(tmp_path / "there"))
    assert "0 measurements of 0 features are in both" in text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plan.json", '{"sample": true, "phases": []}'),
        ("prd/plan.json", '{"sample": true, "phases": []}'),
        (
            "progress.txt",
            "# x\n\n### 0001 · 2026 · GENESIS\n- assurance: scripted (sample run, approved by no "
            "human)\n\n### 0002 · 2026 · LOCKED\n",
        ),
    ],
)
@pytest.mark.parametrize("place", ["results", "lab/results"])
def test_a_sample_run_is_called_one(mine, tmp_path, name, text, place):
    there = tmp_path / "there"
    write_run(there / place, {"FEAT-006": RATES}, when=LATER)
    assert "sample run" not in spoken(mine, str(there))
    (there / name).parent.mkdir(exist_ok=True)
    (there / name).write_text(text)
    for folder in (there, there / place):
        said = spoken(mine, str(folder))
        assert (
            "(1 feature, a sample run). Of the run there, assurance: scripted (sample run, " in said
        )


def test_a_later_entry_does_not_make_a_sample(mine, tmp_path):
    there = write_run(tmp_path / "there", {"FEAT-006": RATES}, when=LATER)
    entries = "### 0001 · GENESIS\n- project x\n\n### 0002 · 2026 · LOCKED\n- a sample run\n"
    (there / "progress.txt").write_text(entries)
    assert "sample run" not in spoken(mine, str(there))


def test_json_has_every_measurement(mine, tmp_path):
    write_run(tmp_path / "there", {"FEAT-006": OTHER_RATES}, when=LATER)
    process = run(mine, str(tmp_path / "there"), "--json")
    document = json.loads(process.stdout)
    assert document["schema"] == "lab.compare/1"
    (feature,) = document["features"]
    rows = {row["name"]: row for row in feature["measurements"]}
    assert set(rows) == set(RATES)
    assert rows["best_rate"]["outcome"] == "differs"
    assert rows["seconds"]["ratio"] == 2
    assert math.isclose(rows["gap"]["difference"], 0.50333333 - 0.41, rel_tol=1e-6)
    assert document["differ_by_chance"] == pytest.approx(0.1)
    assert document["only_here"] == ["FEAT-005"]
    assert document["there"]["sample"] is False


def test_the_other_root_is_the_own_run(mine, tmp_path):
    write_run(tmp_path / "there", {"FEAT-006": RATES}, when=LATER)
    text = spoken(tmp_path, str(tmp_path / "there"), "--root", str(mine))
    assert f"Here: {mine}/lab/results (2 features)." in text


def refusal(root: Path, *argv: str) -> str:
    """Return the error of a command that cannot compare."""
    process = run(root, *argv)
    assert process.returncode == 2
    assert process.stdout == ""
    assert "Traceback" not in process.stderr
    error, hint, *more = process.stderr.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("next: ")
    assert not more
    return process.stderr


def test_what_cannot_be_read_is_named(mine, tmp_path):
    assert "is no folder" in refusal(mine, str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    message = refusal(mine, str(tmp_path / "empty"))
    assert "OTHER" in message
    assert "has no results; expected FEATURE/result.json in it" in message
    there = write_run(tmp_path / "there", {"FEAT-006": RATES}, when=LATER)
    assert "--root . has no results" in refusal(tmp_path / "empty", str(there))

    text = (there / "FEAT-006/result.json").read_text()
    (there / "FEAT-006/result.json").write_text(text.replace('"value": 3,', '"value": 4,'))
    message = refusal(mine, str(there))
    assert "changed since" in message
    assert "next: python -m phases audit" in message
    (there / "FEAT-006/result.json").write_text("{")
    assert "cannot be read" in refusal(mine, str(there))
    (there / "FEAT-006/receipt.json").unlink()
    assert "FEAT-006 has no verified result" in refusal(mine, str(there))


def test_an_environment_of_another_form_is_named(mine, tmp_path):
    there = write_run(
        tmp_path / "there", {"FEAT-006": RATES}, environment={"config": "none"}, when=LATER
    )
    assert "FEAT-006: the environment of a result or its receipt" in refusal(mine, str(there))


def test_a_changed_result_of_ones_own_is_refused(mine, tmp_path):
    there = write_run(tmp_path / "there", {"FEAT-006": RATES}, when=LATER)
    path = mine / "lab/results/FEAT-006/result.json"
    path.write_text(path.read_text() + " ")
    assert "--root: " in refusal(mine, str(there))


def test_without_a_folder_the_usage_is_shown(mine):
    process = run(mine)
    assert process.returncode == 2
    assert "usage: python -m lab compare" in process.stderr


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_lines_are_as_wide_as_the_terminal(mine, tmp_path, columns):
    (tmp_path / "o").mkdir()
    write_run(tmp_path / "o/lab/results", {"FEAT-006": OTHER_RATES}, when=LATER)
    process = run(mine, "../o", COLUMNS=str(columns))
    assert process.returncode == 0
    assert max(map(len, process.stdout.splitlines())) <= min(columns, 100)


def test_neither_torch_nor_a_model_is_loaded(mine, tmp_path):
    there = write_run(tmp_path / "there", {"FEAT-006": OTHER_RATES}, when=LATER)
    code = (
        "import sys\nfrom lab.compare.command import main\n"
        f"assert main([{str(there)!r}, '--root', {str(mine)!r}]) == 0\n"
        "assert not {'torch', 'matplotlib', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], env=ENV, check=True, capture_output=True)
