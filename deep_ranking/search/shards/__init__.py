"""Several collections of one model, searched as the one that `merge` would make of them."""

from deep_ranking.search.shards.opening import Shards, open_searchable

__all__ = ["Shards", "open_searchable"]
