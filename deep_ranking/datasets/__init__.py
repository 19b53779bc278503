"""Data sets that anybody can get or make, as folders of images."""

from deep_ranking.datasets.digits import Splits, write_digits

__all__ = ["Splits", "write_digits"]
