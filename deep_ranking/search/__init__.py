"""Collections of embedded images: index them, search them, and find duplicates in them."""
