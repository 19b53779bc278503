"""The map of a collection: made once by a process of its own."""
