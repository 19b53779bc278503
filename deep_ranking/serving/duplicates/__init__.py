"""Duplicates: groups, what is set aside, and pairs that are none."""
