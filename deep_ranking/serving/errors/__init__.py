"""Errors: where the model errs on the classes, and what people correct."""
