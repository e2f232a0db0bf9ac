"""A new experiment, made from the template and run."""
