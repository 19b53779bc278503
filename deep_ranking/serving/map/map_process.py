"""What makes a map, in a process of its own: a search never waits for it, and it can be stopped.

The module imports little until its process ignores Ctrl-C, which reaches the server too: the server
ends this process.
"""

import os
import signal
import traceback
from pathlib import Path
from typing import Any


def make_map(*given: Any) -> None:
    """Do as `write_map` does, as the whole work of a process; Ctrl-C does not end it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(10)
    write_map(*given)


def write_map(output: Any, folder: Path, kept_in: Path, most_bytes: int, progress: Any) -> None:
    """Make the map of a collection, and keep it.

    It reads the rows of the folder itself and never asks the index, so an index in Milvus is as
    good as any.

    Args:
        output: the end of a pipe: as text, what whoever runs the server should read goes there.
            This process's own standard error may be discarded.
        folder: of the collection.
        kept_in: folder of maps.
        most_bytes: of all maps there together.
        progress: two numbers that others see: images that have their place, and images in all.

    Raises:
        SystemExit: the collection is damaged, or the map cannot be kept; the pipe has why.
    """
    from deep_ranking.files import InputError
    from deep_ranking.search.collection import Collection
    from deep_ranking.search.planar_map import planar_map
    from deep_ranking.serving.file_cache import FileCache
    from deep_ranking.serving.map.map_file import SEED, SUFFIX, map_body, read_map_images

    def count(placed: int) -> None:
        progress[0] = placed

    try:
        collection = Collection.open(folder)
        images = read_map_images(collection)
        progress[1] = len(images.ids)
        positions = planar_map(
            collection.embeddings(), images.rows, images.classes, seed=SEED, placed=count
        )
        cache = FileCache(kept_in, most_bytes, suffix=SUFFIX)
        cache.add(images.key + SUFFIX, map_body(images, positions))
        if cache.find(images.key + SUFFIX) is None:
            raise InputError(f"{kept_in}: cannot be written; free some room there")
    except (InputError, OSError) as error:
        output.send(f"{folder}: no map can be made: {error}")
        raise SystemExit(1) from None
    except Exception:
        output.send(f"{folder}: no map can be made:\n{traceback.format_exc()}")
        raise SystemExit(1) from None
