"""Forgetting: what a fine-tuned model does worse than its base."""
