"""progress.txt, receipts and decisions: what is recorded, and the state that follows from it."""
