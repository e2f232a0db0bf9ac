"""Reproduction: three drawn features computed again in part, with the code of their receipts."""
