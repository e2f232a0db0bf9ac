"""What a training needs on a machine: does it fit, how long does it take, what does it cost. Pure.

Memory and time are those of `memory_model` and `throughput_model`. This machine has the rates and
fits that the experiment measured; a GPU has its datasheet's, at the stated share of its peak.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lab.hardware.catalogue import METHODS, Assumptions, Catalogue, Device
from lab.instruments.memory_model import (
    NO_SLACK,
    MemoryFit,
    MemoryParts,
    Method,
    TrainingSetup,
    memory,
)
from lab.instruments.model_shape import ModelShape
from lab.instruments.throughput_model import UNFITTED, MachineRates, TimeFit, step_seconds

THIS_MACHINE = "this machine"
GIB = 2**30
HOUR = 3600.0  # seconds
SEQUENCES = (512, 2048, 8192)  # tokens, of the tables
TABLE_BATCH = 1  # sequences of a step in the tables: the least that a training can need

# On a GPU: 16-bit weights, adapters in float32 with AdamW's two moments; full fine-tuning trains
# everything and keeps a float32 copy of the weights (mixed precision). Layers are computed again in
# the backward pass, as PEFT's preparation for QLoRA does by default.
GPU_WEIGHT = 2  # bytes
GPU_OPTIMIZER = {"full": 12, "lora": 8, "qlora": 8}  # bytes per trained parameter


@dataclass(frozen=True)
class Machine:
    """Something that trains.

    memory_bytes: before the reserve; is_measured: rates and fits are those of this machine, which
    trains in float32 and keeps all activations, as this lab does.
    """

    name: str
    memory_bytes: float
    rates: MachineRates
    memory_fit: MemoryFit = NO_SLACK
    time_fit: TimeFit = UNFITTED
    is_measured: bool = False

    @classmethod
    def of_device(cls, device: Device, assumptions: Assumptions) -> Machine:
        """Return a GPU by its datasheet."""
        rates = MachineRates.of_datasheet(
            device.peak_tflops * 1e12,
            device.bandwidth_gb_s * 1e9,
            utilisation=assumptions.utilisation,
        )
        return cls(device.name, device.memory_gib * GIB, rates)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Machine:
        """Return this machine as `to_json` wrote it."""
        return cls(
            name=THIS_MACHINE,
            memory_bytes=raw["memory_bytes"],
            rates=MachineRates(**raw["rates"]),
            memory_fit=MemoryFit(**raw["memory_fit"]),
            time_fit=TimeFit(**raw["time_fit"]),
            is_measured=True,
        )

    def to_json(self) -> dict[str, Any]:
        """Return what was measured of this machine, as JSON has it."""
        return {
            "memory_bytes": self.memory_bytes,
            "rates": asdict(self.rates),
            "memory_fit": asdict(self.memory_fit),
            "time_fit": asdict(self.time_fit),
        }


@dataclass(frozen=True)
class Workload:
    """A training: what is trained how, `batch` rows of `sequence` tokens a step."""

    shape: ModelShape
    method: Method
    sequence: int
    batch: int
    rank: int


@dataclass(frozen=True)
class Estimate:
    """What a training takes on a machine.

    parts: bytes by purpose; usable_bytes: the machine's memory without the reserve;
    seconds_per_token: of training, also where it would not fit.
    """

    machine: str
    parts: MemoryParts
    usable_bytes: float
    seconds_per_token: float

    @property
    def bytes(self) -> float:
        """Return the peak of the whole process."""
        return self.parts.total

    @property
    def fits(self) -> bool:
        """Return whether the peak is within the usable memory."""
        return self.bytes <= self.usable_bytes

    def hours(self, tokens: float) -> float:
        """Return the hours that training on so many tokens takes."""
        return tokens * self.seconds_per_token / HOUR


@dataclass(frozen=True)
class Combination:
    """A cell of the tables: a model, a method and a length, with an estimate for each machine."""

    model: str
    method: Method
    sequence: int
    estimates: tuple[Estimate, ...]

    @property
    def fitting(self) -> tuple[Estimate, ...]:
        """Return the machines that it fits on, in the order of the catalogue."""
        return tuple(estimate for estimate in self.estimates if estimate.fits)


def machines_of(catalogue: Catalogue, this: Machine | None) -> tuple[Machine, ...]:
    """Return this machine, if it was measured, and then the GPUs from little to much memory."""
    devices = sorted(catalogue.devices, key=lambda device: device.memory_gib)
    gpus = tuple(Machine.of_device(device, catalogue.assumptions) for device in devices)
    return gpus if this is None else (this, *gpus)


def setup_on(machine: Machine, workload: Workload) -> TrainingSetup:
    """Return the settings with which a machine trains."""
    if machine.is_measured:
        return TrainingSetup(
            method=workload.method,
            batch=workload.batch,
            sequence=workload.sequence,
            rank=workload.rank,
        )
    return TrainingSetup(
        method=workload.method,
        batch=workload.batch,
        sequence=workload.sequence,
        rank=workload.rank,
        weight_bytes=GPU_WEIGHT,
        optimizer_bytes=GPU_OPTIMIZER[workload.method],
        checkpointing=True,
        all_parameters=True,
    )


def estimate(machine: Machine, workload: Workload, reserve_share: float) -> Estimate:
    """Return memory and time of a training on a machine."""
    setup = setup_on(machine, workload)
    seconds = step_seconds(workload.shape, setup, machine.rates, machine.time_fit)
    return Estimate(
        machine=machine.name,
        parts=memory(workload.shape, setup, machine.memory_fit),
        usable_bytes=machine.memory_bytes * (1 - reserve_share),
        seconds_per_token=seconds / setup.tokens,
    )


def combinations(catalogue: Catalogue, machines: Iterable[Machine]) -> tuple[Combination, ...]:
    """Return every model by every method at every length of SEQUENCES, on every machine."""
    machines = tuple(machines)
    assumptions = catalogue.assumptions
    cells = []
    for model in catalogue.models:
        for method in METHODS:
            for sequence in SEQUENCES:
                workload = Workload(model.shape, method, sequence, TABLE_BATCH, assumptions.rank)
                estimates = tuple(
                    estimate(machine, workload, assumptions.reserve_share) for machine in machines
                )
                cells.append(Combination(model.name, method, sequence, estimates))
    return tuple(cells)


def not_feasible(cells: Iterable[Combination]) -> tuple[Combination, ...]:
    """Return the combinations that fit on no machine."""
    return tuple(cell for cell in cells if not cell.fitting)


def rent_per_run(hours: float, extra_hours: float, rent_hour: float) -> float:
    """Return the price of a rented run, `extra_hours` around the training included."""
    return (hours + extra_hours) * rent_hour


def cheapest_rented(
    cell: Combination, catalogue: Catalogue, tokens: float
) -> tuple[Estimate, float] | None:
    """Return the machine on which `tokens` are rented for least, and that price.

    Training alone is counted. None if it fits on nothing that can be rented.
    """
    offers = []
    for one in cell.fitting:
        price = catalogue.prices.get(one.machine)
        if price is not None and price.rent_hour is not None:
            offers.append((one, rent_per_run(one.hours(tokens), 0.0, price.rent_hour)))
    return min(offers, key=lambda offer: offer[1], default=None)


def owned_hour(device: Device, catalogue: Catalogue) -> float | None:
    """Return what an hour of a bought card costs, used to the full; None if it cannot be bought.

    Purchase and host over all hours of its months, and electricity.
    """
    price = catalogue.prices.get(device.name)
    if price is None or price.purchase is None:
        return None
    thresholds = catalogue.thresholds
    hours = thresholds.months * thresholds.hours_per_month
    return (price.purchase + thresholds.host_price) / hours + power_hour(device, catalogue)


def power_hour(device: Device, catalogue: Catalogue) -> float:
    """Return the price of the electricity of one hour at the card's full power."""
    return device.watts / 1000 * catalogue.electricity.price_kwh


def cheapest_owned(
    cell: Combination, catalogue: Catalogue, tokens: float
) -> tuple[Estimate, float] | None:
    """Return the bought card on which `tokens` cost least, used to the full, and that price."""
    devices = {device.name: device for device in catalogue.devices}
    offers = []
    for one in cell.fitting:
        if one.machine in devices:
            hour = owned_hour(devices[one.machine], catalogue)
            if hour is not None:
                offers.append((one, one.hours(tokens) * hour))
    return min(offers, key=lambda offer: offer[1], default=None)
