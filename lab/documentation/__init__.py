"""Concept documents: checked against their template, filled with measured numbers."""
