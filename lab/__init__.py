"""The LLM learning lab: instruments measure, experiments ask, `present` shows.

`python -m lab` lists the experiments.
"""
