"""Arrays out of HDF5 files that may come from a stranger: refused, or read, never followed.

HDF5 can point outside of its file (soft and external links, external storage, virtual data sets),
can claim shapes that no memory holds, can hold a little that expands to much, and can name a
library that is to be loaded to unpack it.
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
