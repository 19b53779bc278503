"""Public data sets, downloaded or generated as folders of images.

A data set's folder holds SPLIT/CLASS/IMAGE, `split.csv` (path, label, split: an image a line) and
`dataset.json` (what it was made from). The folder is complete, or does not exist.
"""

from deep_ranking.datasets.public.catalogue import CATALOGUE, Dataset
from deep_ranking.datasets.public.digits import write_digits
from deep_ranking.datasets.public.folder import Contents, prepare, prepare_digits

__all__ = [
    "CATALOGUE",
    "Contents",
    "Dataset",
    "prepare",
    "prepare_digits",
    "write_digits",
]
