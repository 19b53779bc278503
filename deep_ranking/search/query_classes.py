"""The classes of query images, where they are known."""

import os
from collections.abc import Collection as Container
from collections.abc import Sequence
from contextlib import closing

from deep_ranking.datasets.labels import normal_label
from deep_ranking.search.collection.searchable import Searchable


def classes_of_queries(collection: Searchable, queries: Sequence[str]) -> list[str]:
    """Return the class of each query image; "" where it is not known.

    An image of the collection has the class that is stored. Any other has the class that is named
    as the folder that holds it, with the folders before it where the name has them.
    """
    root = collection.settings.root
    labels = []
    with closing(collection.images()) as table:
        names = [name for name in table.classes() if name]
        for query in queries:
            folder, name = os.path.split(os.path.abspath(query))
            inner = [
                os.path.relpath(os.path.join(form(folder), name), form(root))
                for form in (os.path.abspath, os.path.realpath)
            ]
            stored = [file.label for file, _ in table.recorded(inner)]
            labels.append(stored[0] if stored else _by_folder(query, names))
    return labels


def _by_folder(query: str, names: Container[str]) -> str:
    """Return the longest name of a class that the folder of an image ends in; "" for none."""
    folder = normal_label(os.path.dirname(os.path.abspath(query)))
    whole = [name for name in names if f"/{folder}".endswith(f"/{name}")]
    if whole:
        return max(whole, key=len)
    last = folder.rpartition("/")[2]
    ending = [name for name in names if name.rpartition("/")[2] == last]
    return ending[0] if len(ending) == 1 else ""
