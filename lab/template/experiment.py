"""FEAT-004, experiment template: does a copy of it run, repeat itself and refuse misuse?"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lab
from lab import present
from lab.contract import Context, ContractError, Measurement, Result, Table, environment, main
from lab.digests import digest_of

QUESTION = (
    "Does a new experiment, made by copying the template and nothing else, run and keep the "
    "contract?"
)
HYPOTHESIS = (
    "Yes: it runs by its own command line outside this repository, writes a complete result, gives "
    "the same numbers again for the same seed and others for another seed, and refuses a wrong "
    "profile and a used output folder."
)
METHOD = (
    "EXPERIMENT_TEMPLATE.py and its config are copied under a new name into an empty scratch "
    "folder and started there in new processes: three runs (the seed twice, the next seed once), "
    "then three misuses (an unknown profile, an output folder in use, a config without profiles) "
    "as the control that must be refused."
)
NAME = "first_experiment"
RUNS = ("template", "repeated", "other_seed")


def run(ctx: Context) -> None:
    """Make the experiment, run and misuse it, keep what it wrote below artifacts/."""
    store = ctx.out / "artifacts"
    make(store / "source")
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(store / "source", scratch, dirs_exist_ok=True)
        codes = run_all(ctx, Path(scratch))
        refused = misuse(Path(scratch), ctx.config["template_profile"])
        for name in RUNS:
            shutil.copytree(Path(scratch) / name, store / name)
    (store / "refusals.json").write_text(json.dumps(refused, indent=1) + "\n", "utf-8")
    results = {name: json.loads((store / name / "result.json").read_text("utf-8")) for name in RUNS}
    found = measure(store, results, codes, refused)
    result = Result(
        "lab.template.experiment",
        QUESTION,
        HYPOTHESIS,
        METHOD,
        found,
        tables=(table(results),),
        findings=findings(found),
        environment=environment(ctx, packages=("torch", "transformers")),
    )
    present.write(ctx.out, result, [figure(results)])
    ctx.progress(len(RUNS) + 1, len(RUNS) + 1, "checked")


def run_all(ctx: Context, scratch: Path) -> list[int]:
    """Start the runs, two at a time; gives their exit codes.

    Most of each run is loading libraries on one core.
    """

    def one(name: str) -> Any:
        return start(
            scratch, name, ctx.config["template_profile"], ctx.seed + (name == "other_seed")
        )

    codes = []
    with ThreadPoolExecutor(2) as pool:
        for name, process in zip(RUNS, pool.map(one, RUNS), strict=True):
            if process.returncode != 0:
                msg = (
                    f"the template's run {name!r} ended with exit code "
                    f"{process.returncode}:\n{process.stderr}"
                )
                raise ContractError(msg)
            codes.append(process.returncode)
            ctx.progress(len(codes), len(RUNS) + 1, f"{name} ran")
    return codes


def make(folder: Path) -> None:
    """Copy the template and its config under the new name."""
    folder.mkdir(parents=True)
    for suffix in (".py", ".yaml"):
        shutil.copyfile(
            Path(lab.__file__).with_name(f"EXPERIMENT_TEMPLATE{suffix}"), folder / f"{NAME}{suffix}"
        )


def start(scratch: Path, out: str, profile: str, seed: int, config: str = f"{NAME}.yaml") -> Any:
    """Run the experiment by its own command line in the scratch folder; gives the process."""
    command = [
        sys.executable,
        "-m",
        NAME,
        "--config",
        config,
        "--profile",
        profile,
        "--seed",
        str(seed),
        "--out",
        out,
    ]
    # The lab must be found from the scratch folder; the progress and inputs of this run are not
    # those of the new one.
    hidden = {"PHASES_EVENTS", "PHASES_INPUTS"}
    variables = {key: text for key, text in os.environ.items() if key not in hidden}
    variables["PYTHONPATH"] = str(Path(lab.__file__).parent.parent)
    return subprocess.run(
        command,
        cwd=scratch,
        env=variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def misuse(scratch: Path, profile: str) -> list[dict[str, Any]]:
    """Start the experiment wrongly in three ways.

    Gives each try, its exit code and the last line of its error.
    """
    (scratch / "empty.yaml").write_text("common: {}\n", "utf-8")
    tries = {
        "an unknown profile": start(scratch, "refused", "no-such-profile", 0),
        "an output folder in use": start(scratch, RUNS[0], profile, 0),
        "a config without profiles": start(scratch, "refused", profile, 0, "empty.yaml"),
    }
    return [
        {
            "tried": name,
            "exit_code": process.returncode,
            "error": (process.stderr.splitlines() or [""])[-1],
        }
        for name, process in tries.items()
    ]


def measure(
    store: Path, results: dict[str, Any], codes: list[int], refused: list[dict[str, Any]]
) -> dict[str, Measurement]:
    """Give the measurements; the template's own losses have `template_` before their names."""
    first, again = results["template"], results["repeated"]
    losses = {name: result["measurements"]["loss"]["values"] for name, result in results.items()}
    files = [
        name
        for name, digest in first["files"].items()
        if digest_of(store / RUNS[0] / name) == digest
    ]
    counts = {
        "runs": len(codes),
        "runs_ended_well": codes.count(0),
        "misuses": len(refused),
        "misuses_refused": sum(
            item["exit_code"] == 2 and item["error"].startswith("error: ") for item in refused
        ),
        "files_with_right_digest": len(files),
        "files_listed": len(first["files"]),
        "source_lines": len((store / "source" / f"{NAME}.py").read_text("utf-8").splitlines()),
        "same_seed_same_numbers": first["measurements"] == again["measurements"],
        "values_shared_with_other_seed": len(set(losses[RUNS[0]]) & set(losses[RUNS[2]])),
    }
    own = {
        f"template_{name}": Measurement.from_json(raw)
        for name, raw in first["measurements"].items()
    }
    return {name: Measurement.of_exact(value) for name, value in counts.items()} | own


def table(results: dict[str, Any]) -> Table:
    """Give what the three runs measured, side by side."""
    names = list(results[RUNS[0]]["measurements"])
    rows = tuple(
        (name, *(results[run]["measurements"][name]["value"] for run in RUNS)) for name in names
    )
    return Table(
        "What the three runs measured",
        ("measurement", *(run.replace("_", " ") for run in RUNS)),
        rows,
    )


def findings(found: dict[str, Measurement]) -> tuple[str, ...]:
    """Give the sentences that the numbers support."""
    value: dict[str, Any] = {name: m.value for name, m in found.items()}
    same = "the same" if value["same_seed_same_numbers"] else "DIFFERENT"
    shared = value["values_shared_with_other_seed"]
    others = (
        "shared none of them"
        if shared == 0
        else f"SHARED {shared} of them: the seed does not reach the run"
    )
    return (
        f"{value['runs_ended_well']} of {value['runs']} runs of the copied template ended well, "
        f"and {value['misuses_refused']} of {value['misuses']} misuses were refused.",
        f"The same seed gave {same} numbers; another seed {others}.",
        f"{value['files_with_right_digest']} of {value['files_listed']} files that it wrote have "
        "the digest that its result states.",
    )


def figure(results: dict[str, Any]) -> present.Figure:
    """Show the losses of two seeds beside the loss of a fair guess."""
    measured = {name: result["measurements"] for name, result in results.items()}
    chance = measured[RUNS[0]]["chance_loss"]["value"]
    first, other = (measured[name]["loss"] for name in (RUNS[0], RUNS[2]))
    steps = range(1, len(first["values"]) + 1)
    apart = abs(first["value"] - other["value"])
    return present.Figure(
        name="two_seeds",
        title="The template's experiment under two seeds",
        caption=f"The means of the two seeds are {present.number(apart, 2)} nats/token apart; "
        f"a fair guess costs {present.number(chance)}.",
        x_label="sequence",
        y_label="loss (nats/token)",
        series=(
            present.Series("the seed", steps, first["values"], kind="points"),
            present.Series("the next seed", steps, other["values"], kind="points"),
            present.Series(
                "a fair guess, ln V", (1, len(first["values"])), (chance, chance), style="dashed"
            ),
        ),
    )


if __name__ == "__main__":
    main(run)
