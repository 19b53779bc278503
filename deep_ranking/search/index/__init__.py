"""Nearest embeddings: exact, cluster-pruned, or kept by Milvus, behind one interface."""
