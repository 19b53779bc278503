"""Readers of image formats: each turns the bytes of a file into a `Raster`, or refuses them.

`deep_ranking.images.decoding` chooses the reader by the file's content.
"""
