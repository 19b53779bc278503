"""Embed many images into a Parquet table in parts, on this machine or on a cluster."""

from deep_ranking.search.bulk_embedding.embedding import EmbeddedTable, embed_table

__all__ = ["EmbeddedTable", "embed_table"]
