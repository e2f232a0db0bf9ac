"""What to ask next: the experiments that missed, open and wide results suggest, and their cost."""
