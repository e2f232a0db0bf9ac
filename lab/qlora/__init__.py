"""QLoRA: what it learns, how, and against which control."""
