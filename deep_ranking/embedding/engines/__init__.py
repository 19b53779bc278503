"""Engines: what turns images in memory into embeddings, behind one interface."""

from deep_ranking.embedding.engines.base import Engine

__all__ = ["Engine"]
