"""The network, its file, and what its distances mean."""
