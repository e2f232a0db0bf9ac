"""The audit: everything recorded, replayed offline and compared."""
