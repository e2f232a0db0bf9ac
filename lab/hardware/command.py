"""`python -m lab fits MODEL`: what a training needs, where it fits, in what time, at what price."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab.config import ConfigError
from lab.hardware.catalogue import METHODS, Catalogue, Price, read_catalogue
from lab.hardware.decision_numbers import stated
from lab.hardware.feasibility import (
    GIB,
    THIS_MACHINE,
    Estimate,
    Machine,
    Workload,
    estimate,
    machines_of,
    owned_hour,
)
from lab.hardware.named_model import FitsError, NamedModel, find_model
from lab.hardware.verified import VerifiedError, this_machine
from lab.present.numbers import number

MILLION = 1e6  # tokens that hours and prices are stated for
PARTS = {
    "weights": "weights",
    "absmax": "scales of 4-bit weights",
    "adapters": "adapters",
    "optimizer": "optimizer",
    "gradients": "gradients",
    "activations": "activations",
    "logits": "logits",
    "workspace": "workspace of kernels",
    "runtime": "the process itself",
}
TITLES = {"full": "full fine-tuning", "lora": "LoRA", "qlora": "QLoRA"}
CENT = 0.01
MOST = 1_000_000  # a batch, a length or a rank beyond this is a slip of the keyboard


@dataclass(frozen=True)
class Answer:
    """What is answered: the workload, an estimate per machine, and whence this machine's rates."""

    model: NamedModel
    workload: Workload
    catalogue: Catalogue
    estimates: tuple[Estimate, ...]
    measured_by: str


def main(argv: Sequence[str]) -> int:
    """Answer on stdout and return the exit code: 0, or 2 where the question is invalid."""
    parser = argparse.ArgumentParser(
        prog="python -m lab fits",
        description="What a training needs, where it fits, in what time, at what price.",
        epilog=(
            "Devices, prices and models are in lab/hardware/*.yaml: edit them. Prices age. What is "
            "not known by name is read from its config.json; no weights are loaded."
        ),
    )
    parser.add_argument("model", help="a name of models.yaml, a folder, a config.json, OWNER/NAME")
    parser.add_argument("--method", choices=METHODS, default="qlora", help="default: %(default)s")
    parser.add_argument(
        "--sequence", type=int, default=2048, help="tokens of a row (default: %(default)s)"
    )
    parser.add_argument(
        "--batch", type=int, default=1, help="rows of a step (default: %(default)s)"
    )
    parser.add_argument("--rank", type=int, help="of the adapters (default: that of needs.yaml)")
    parser.add_argument("--device", help='a name of devices.yaml, or "this machine"; default: all')
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    args = parser.parse_args(argv)

    try:
        answer = answer_for(args)
    except (FitsError, ConfigError, VerifiedError) as error:
        hint = "correct that file"
        if isinstance(error, VerifiedError):
            hint = "python -m phases audit"
        sys.stderr.write(f"error: {error}\nnext: {getattr(error, 'hint', hint)}\n")
        return 2
    text = "\n".join(lines(answer))
    if args.json:
        text = json.dumps(document(answer), ensure_ascii=False)
    sys.stdout.write(text + "\n")
    return 0


def answer_for(args: argparse.Namespace) -> Answer:
    """Return the answer to a command line.

    Raises:
        FitsError: a number, the model or the device is none.
        ConfigError: a YAML file is invalid.
        VerifiedError: the result of this machine cannot be relied on.
    """
    # 1. What is asked.
    catalogue = read_catalogue()
    rank = catalogue.assumptions.rank
    if args.rank is not None:
        rank = args.rank
    for option, value in (("sequence", args.sequence), ("batch", args.batch), ("rank", rank)):
        if not 1 <= value <= MOST:
            msg = f"--{option}: got {value}; expected a whole number from 1 to {MOST:,}"
            raise FitsError(msg, "python -m lab fits --help")
    model = find_model(args.model, catalogue)
    if model.positions is not None and args.sequence > model.positions:
        msg = (
            f"--sequence: got {args.sequence:,}; expected at most the {model.positions:,} "
            f"positions of {model.shape.name}"
        )
        raise FitsError(msg, f"python -m lab fits {args.model} --sequence {model.positions}")

    # 2. Where: this machine, if it was measured, and the GPUs.
    verified = this_machine()
    measured_by = ""
    this = None
    if verified is not None:
        this, measured_by = verified
    machines = machines_of(catalogue, this)
    if args.device is not None:
        machines = (_chosen(args.device, machines),)

    # 3. The estimates.
    workload = Workload(model.shape, args.method, args.sequence, args.batch, rank)
    reserve = catalogue.assumptions.reserve_share
    estimates = tuple(estimate(machine, workload, reserve) for machine in machines)
    return Answer(model, workload, catalogue, estimates, measured_by)


def _chosen(name: str, machines: Sequence[Machine]) -> Machine:
    for machine in machines:
        if machine.name.lower() == name.lower():
            return machine
    known = ", ".join(machine.name for machine in machines)
    msg = f"--device: got {name!r}; expected one of {known}"
    hint = "add a row to lab/hardware/devices.yaml"
    if name.lower() == THIS_MACHINE:
        msg = "--device: this machine was not measured: there is no verified result of FEAT-017"
        hint = "python -m phases status, which says what to run (phase 4 is needed to its end)"
    raise FitsError(msg, hint)


def lines(answer: Answer) -> list[str]:
    """Return the answer as lines of at most 80 columns."""
    workload, shape = answer.workload, answer.model.shape
    method = TITLES[workload.method]
    if workload.method != "full":
        method += f" of rank {workload.rank}"
    text = [
        f"{shape.name}, {number(shape.total)} parameters ({answer.model.origin})",
        f"{method}, {number(workload.batch)} × {number(workload.sequence)} tokens a step",
        _verdict(answer),
        "",
    ]
    text += _part_lines(answer)
    text += ["", *_device_lines(answer), "", *_note_lines(answer)]
    return text


def _verdict(answer: Answer) -> str:
    """Return the answer in one line."""
    fitting = [one for one in answer.estimates if one.fits]
    if fitting:
        others = len(fitting) - 1
        also = f" and on {number(others)} of {number(len(answer.estimates) - 1)} others"
        return f"It fits on {fitting[0].machine}{also if others else ''}."
    largest = max(answer.estimates, key=lambda one: one.usable_bytes)
    where = "nowhere" if len(answer.estimates) > 1 else "not"
    return (
        f"It fits {where}: {largest.machine} has {_gib(largest.usable_bytes)} of the "
        f"{_gib(largest.bytes)} GiB."
    )


def _part_lines(answer: Answer) -> list[str]:
    """Return the parts of the peak: of this machine, and of the GPUs, which are all alike."""
    columns = [one for one in answer.estimates if one.machine == THIS_MACHINE]
    columns += [one for one in answer.estimates if one.machine != THIS_MACHINE][:1]
    titles = [one.machine if one.machine == THIS_MACHINE else "a GPU" for one in columns]
    text = [f"{'GiB at the peak':<28}" + "".join(f"{title:>14}" for title in titles)]
    for part, name in PARTS.items():
        values = [one.parts.at_peak()[part] for one in columns]
        if any(values):
            text.append(f"  {name:<26}" + "".join(f"{_gib(value):>14}" for value in values))
    totals = [one.bytes for one in columns]
    text.append(f"  {'together':<26}" + "".join(f"{_gib(value):>14}" for value in totals))
    return text


def _device_lines(answer: Answer) -> list[str]:
    currency = answer.catalogue.currency
    text = [
        f"{'':<18}{'GiB':>7}{'':>6}{'hours for':>13}{currency + ' rented,':>14}"
        f"{currency + ' bought,':>14}",
        f"{'':<18}{'usable':>7}{'fits':>6}{'1 M tokens':>13}{'1 M tokens':>14}{'1 M tokens':>14}",
    ]
    for one in answer.estimates:
        hours, rented, bought = "-", "-", "-"
        if one.fits:
            rent, own = _prices(answer.catalogue, one)
            hours = number(one.hours(MILLION), 2)
            rented = _money(rent)
            bought = _money(own)
        fits = "yes" if one.fits else "no"
        text.append(
            f"{one.machine:<18}{one.usable_bytes / GIB:>7.1f}{fits:>6}{hours:>13}{rented:>14}"
            f"{bought:>14}"
        )
    return text


def _note_lines(answer: Answer) -> list[str]:
    assumptions = answer.catalogue.assumptions
    thresholds = answer.catalogue.thresholds
    used = stated(100 * assumptions.utilisation)
    free = stated(100 * assumptions.reserve_share)
    notes = [f"{free} % of the memory is kept free."]
    machines = {one.machine for one in answer.estimates}
    if answer.measured_by and THIS_MACHINE in machines:
        notes += [
            f"This machine as measured: FEAT-017, receipt {answer.measured_by[:12]}. It trains in",
            "float32 and keeps all activations, as this lab does. What it needs is known",
            "roughly (memory_error_loop in docs/HARDWARE-DECISION.md): try what fits barely.",
        ]
        if answer.workload.method == "full":
            notes.append("Full fine-tuning trains the linear layers alone here.")
    if not answer.measured_by:
        notes += [
            "This machine is left out: there is no verified result of FEAT-017, which",
            "measures it.",
        ]
    if machines != {THIS_MACHINE}:
        hours, months = stated(thresholds.hours_per_month), stated(thresholds.months)
        notes += [
            f"GPUs by their datasheets: {used} % of the peak, 16-bit weights, layers computed",
            "again in the backward pass. A rough guide: half or twice is possible.",
            f"Bought: card, host and electricity, used {hours} h a month for {months} months.",
            f"Prices age: the oldest rent is of {answer.catalogue.oldest_price()}. Edit "
            "lab/hardware/prices.yaml.",
        ]
    return notes


def document(answer: Answer) -> dict[str, Any]:
    """Return the answer as JSON has it: bytes, seconds, prices; null where it is not on offer."""
    rows = []
    for one in answer.estimates:
        rent, own = _prices(answer.catalogue, one)
        rows.append(
            {
                "name": one.machine,
                "fits": one.fits,
                "bytes": round(one.bytes),
                "usable_bytes": round(one.usable_bytes),
                "parts": {name: round(value) for name, value in one.parts.at_peak().items()},
                "seconds_per_1000_tokens": 1000 * one.seconds_per_token,
                "rented_per_million_tokens": rent,
                "bought_per_million_tokens": own,
            }
        )
    workload = answer.workload
    return {
        "model": workload.shape.name,
        "origin": answer.model.origin,
        "parameters": workload.shape.total,
        "method": workload.method,
        "sequence": workload.sequence,
        "batch": workload.batch,
        "rank": None if workload.method == "full" else workload.rank,
        "currency": answer.catalogue.currency,
        "oldest_price": answer.catalogue.oldest_price().isoformat(),
        "receipt": answer.measured_by or None,
        "devices": rows,
    }


def _prices(catalogue: Catalogue, one: Estimate) -> tuple[float | None, float | None]:
    """Return the price of a million tokens rented and bought, None where that is not on offer."""
    hours = one.hours(MILLION)
    offer: Price | None = catalogue.prices.get(one.machine)
    rent = own = None
    if offer is not None and offer.rent_hour is not None:
        rent = hours * offer.rent_hour
    for device in catalogue.devices:
        if device.name == one.machine:
            hour = owned_hour(device, catalogue)
            own = None if hour is None else hours * hour
    return rent, own


def _gib(value: float) -> str:
    """Return bytes as GiB with two decimals, and what is less as MiB."""
    if 0 < value < GIB / 100:
        return f"{value / 2**20:.2f} MiB"
    if value >= 1000 * GIB:
        return number(value / GIB, 3)
    return f"{value / GIB:.2f}"


def _money(value: float | None) -> str:
    if value is None:
        return "-"
    if 0 < value < CENT / 2:
        return f"<{CENT}"
    return f"{value:,.2f}"
