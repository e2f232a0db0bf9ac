"""A machine that no test has to measure: two slow cores with 15 GiB."""

from lab.hardware.feasibility import GIB, THIS_MACHINE, Machine
from lab.instruments.memory_model import MemoryFit
from lab.instruments.throughput_model import UNFITTED, MachineRates

RATES = MachineRates(
    layer=1.5e11,
    adapter=6e10,
    head=1.2e11,
    attention=6e10,
    bandwidth=1.2e10,
    dequantised=4e8,
    overhead=1e-5,
)


def small_machine(gib: float = 15) -> Machine:
    """Return this machine with so much memory."""
    return Machine(
        name=THIS_MACHINE,
        memory_bytes=gib * GIB,
        rates=RATES,
        memory_fit=MemoryFit(runtime=5e8, activation_factor=1.1, workspace=1e8),
        time_fit=UNFITTED,
        is_measured=True,
    )
