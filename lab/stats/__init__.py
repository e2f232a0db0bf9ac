"""Statistics of paired samples, tokens and many tests."""
