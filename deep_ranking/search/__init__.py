"""Collections of embedded images, and what is found in them."""
