"""The sentences of FEAT-004 follow from its numbers.

Its real run is judged in tests/gates.
"""

import json
from pathlib import Path

from lab.contract import Measurement
from lab.template import experiment as template


def findings(**changes: object) -> str:
    counts = {
        "runs": 3, "runs_ended_well": 3, "misuses": 3, "misuses_refused": 3,
        "files_with_right_digest": 4, "files_listed": 4,
        "same_seed_same_numbers": True, "values_shared_with_other_seed": 0,
    } | changes  # fmt: skip
    measurements = {name: Measurement.of_exact(value) for name, value in counts.items()}
    return " ".join(template.findings(measurements))


def test_sentences_turn_with_the_numbers() -> None:
    assert "3 of 3 misuses were refused" in findings()
    assert "2 of 3 misuses" in findings(misuses_refused=2)
    assert "gave the same numbers" in findings()
    assert "gave DIFFERENT numbers" in findings(same_seed_same_numbers=False)
    assert "shared none of them" in findings()
    assert "SHARED 7 of them" in findings(values_shared_with_other_seed=7)


def test_a_new_experiment_is_a_copy_under_another_name(tmp_path: Path) -> None:
    template.copy_template(tmp_path / "new")
    source = tmp_path / "new" / f"{template.NAME}.py"
    assert {path.suffix for path in (tmp_path / "new").iterdir()} == {".py", ".yaml"}
    assert "def run(ctx: Context)" in source.read_text("utf-8")


def test_measures_see_a_changed_file_a_lenient_refusal_and_a_deaf_seed(tmp_path: Path) -> None:
    template.copy_template(tmp_path / "source")
    for run in template.RUNS:
        (tmp_path / run).mkdir()
        (tmp_path / run / "a.txt").write_text("a")
    digest = template.digest_of(tmp_path / "template/a.txt")

    def result(*values: float) -> dict[str, object]:
        sample = Measurement.of_sample(values, "nats").to_json()
        document = {"files": {"a.txt": digest}, "measurements": {"loss": sample}}
        return json.loads(json.dumps(document))

    def summarise(
        codes: list[int], template_: object, repeated: object, other_seed: object
    ) -> dict[str, Measurement]:
        results = {"template": template_, "repeated": repeated, "other_seed": other_seed}
        return template.summarise(tmp_path, template.TemplateObservations(codes, misuses, results))

    misuses = [
        {"tried": "x", "exit_code": 2, "error": "error: no"},
        {"tried": "y", "exit_code": 2, "error": "Traceback"},
    ]
    good = summarise([0, 0, 0], result(1, 2), result(1, 2), result(3, 4))
    assert good["files_with_right_digest"].value == 1
    assert good["same_seed_same_numbers"].value is True
    assert good["misuses_refused"].value == 1
    assert good["values_shared_with_other_seed"].value == 0
    assert good["template_loss"] == Measurement.of_sample([1, 2], "nats")

    (tmp_path / "template/a.txt").write_text("b")
    bad = summarise([0, 1, 0], result(1, 2), result(1, 3), result(2, 9))
    assert bad["files_with_right_digest"].value == 0
    assert bad["same_seed_same_numbers"].value is False
    assert bad["runs_ended_well"].value == 2
    assert bad["values_shared_with_other_seed"].value == 1
