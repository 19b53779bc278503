"""Image files -> embeddings, rows of floats."""
