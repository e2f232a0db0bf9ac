"""The arrays that a run of FEAT-014 must store, by its plan and the sizes of the model."""

from __future__ import annotations

from gates.activation_extraction import model
from gates.activation_extraction.arrays import COUNTED, FORMS, STATISTICS, STREAM
from gates.shared.stored import config

Shapes = dict[str, tuple[int, ...]]


def expected_arrays() -> dict[str, Shapes]:
    """Return file -> array -> shape, which follow from the config and the model's own sizes."""
    settings, sizes = config(), model.document()
    layers, width = sizes["num_hidden_layers"], sizes["hidden_size"]
    count, total = settings["texts"]["count"], settings["texts"]["length"]
    positions = len(settings["positions"])
    stream = dict.fromkeys(STREAM, (layers, total, width))
    of_forms = (layers, settings["form_tokens"], width)
    by_layer: Shapes = dict.fromkeys(STATISTICS, (layers,))
    by_layer |= dict.fromkeys(("mean", "variance"), (layers, width))
    by_layer |= {"largest": (layers, 3), "places": (layers, 3, 3)}
    statistics: Shapes = {}
    for name in COUNTED:
        for side in ("streamed", "reference"):
            statistics |= {f"{name}.{side}.{one}": shape for one, shape in by_layer.items()}
    return {
        "model": stream
        | {
            "ids": (count, total),
            "normed": (layers, total, width),
            "hidden_states": (layers + 1, total, width),
            "final_normed": (total, width),
            "stopped": (total, width),
            "lens_kl": (layers, count, positions),
            "double_kl": (layers, count, positions),
        },
        "logits": dict.fromkeys(
            ("plain", "recorded", "lens", "double"), (count, positions, sizes["vocab_size"])
        ),
        "statistics": statistics,
        "forms": {f"{form}.{name}": of_forms for form in FORMS for name in STREAM},
    }
