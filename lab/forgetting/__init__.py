"""Forgetting: what a fine-tuned model no longer does as well as its base did."""
