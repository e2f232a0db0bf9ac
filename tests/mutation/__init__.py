"""Mutants of the code that keeps and checks the record, and the tests that must kill them."""
