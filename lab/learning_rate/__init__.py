"""Learning rates: which one is best, what predicts it, and what too large a one does."""
