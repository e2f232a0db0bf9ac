"""How results are shown: figures from stored numbers, and the report made from result.json alone.

It never imports torch.
"""

from lab.present.figure import Figure, Series
from lab.present.heatmap import Heatmap, Panel
from lab.present.numbers import count, interval, number, quantity
from lab.present.report import report
from lab.present.write import write

__all__ = [
    "Figure",
    "Heatmap",
    "Panel",
    "Series",
    "count",
    "interval",
    "number",
    "quantity",
    "report",
    "write",
]
