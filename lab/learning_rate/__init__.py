"""How large a step may be: learning rates, where their best lies, and what too large a one does."""
