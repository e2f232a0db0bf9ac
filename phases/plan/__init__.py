"""The plan: its schema, how it is loaded, how it is locked."""
