"""The hardware decision: what a training needs, what fits where, and what to do about it."""
