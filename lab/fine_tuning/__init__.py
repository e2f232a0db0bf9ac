"""Fine-tuning: what QLoRA learns, how, and against which control."""
