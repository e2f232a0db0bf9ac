"""Loss curves: what their shapes tell about a run, and batch sizes at equal tokens."""
