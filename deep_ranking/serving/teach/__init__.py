"""Teach: people are asked which of two images is more like a third, and answer."""
