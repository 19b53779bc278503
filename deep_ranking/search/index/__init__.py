"""Nearest embeddings behind one interface: exact, in clusters, or in Milvus."""
