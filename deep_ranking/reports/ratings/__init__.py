"""Taught by eye: which of two pictures is more like a third, as people answer it."""
