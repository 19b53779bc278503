"""Image files to rows of floats."""
