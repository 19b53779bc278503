"""Taught by eye: a model that learns from what people answered, on cached features."""
