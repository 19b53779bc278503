"""A training run: from a configuration to a run folder and a model file."""
