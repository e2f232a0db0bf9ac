"""Base against fine-tuned: what an adapter changes in attention, beside its nulls."""
