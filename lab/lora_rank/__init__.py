"""What the rank of a LoRA adapter decides, and what it does not."""
