"""Judge outputs by a gate, and test the gate itself by mutation testing."""
