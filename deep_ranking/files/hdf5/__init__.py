"""Read arrays from HDF5 files of unknown origin: anything unsafe is refused.

An HDF5 file can point outside of itself (soft and external links, external storage, virtual data
sets), claim shapes larger than memory, expand a few bytes to many, and name a library to load for
decompression.
"""

from deep_ranking.files.hdf5.arrays import arrays_in, read_array
from deep_ranking.files.hdf5.layers import check_layer, read_layer, read_layers, weights_of
from deep_ranking.files.hdf5.opening import child, names_in, open_hdf5
from deep_ranking.files.hdf5.texts import read_text

__all__ = [
    "arrays_in",
    "check_layer",
    "child",
    "names_in",
    "open_hdf5",
    "read_array",
    "read_layer",
    "read_layers",
    "read_text",
    "weights_of",
]
