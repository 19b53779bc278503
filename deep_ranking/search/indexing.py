"""Open the collection of a folder of images to write to it, or make it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deep_ranking.files import InputError
from deep_ranking.model.header import read_header
from deep_ranking.search.collection import DTYPES, Collection, Settings, fitting_batch_size, locked
from deep_ranking.search.collection.folder import SETTINGS


@contextmanager
def writable_collection(
    folder: Path,
    *,
    model: Path | None = None,
    images: Path | None = None,
    dtype: str | None = None,
    shard: tuple[int, int] | None = None,
) -> Iterator[Collection]:
    """Open a collection as its only writer; make it if it does not exist.

    Args:
        folder: folder of the collection.
        model: model file; needed to make a collection.
        images: folder of the images; needed to make a collection. For an existing one it says
            where the images are now.
        dtype: type of the embeddings on disk, one of `DTYPES`; None for the first of these.
        shard: (i, n) to embed only the i-th of n parts of the images, from 1.

    Yields:
        The collection.

    Raises:
        InputError: a file or folder is missing or damaged, another process writes to the
            collection, or it was made with another model, dtype or shard.
    """
    if images is not None and not images.is_dir():
        raise InputError(f"{images}: no such folder; check --images")
    header = None if model is None else read_header(model)
    with locked(folder):
        if (folder / SETTINGS).exists():
            collection = Collection.open(folder)
            for name, wanted in (("shard", shard), ("dtype", dtype)):
                found = getattr(collection.settings, name)
                if wanted not in (None, found):
                    text = "/".join(map(str, found)) if isinstance(found, tuple) else found
                    raise InputError(
                        f"{folder}: made with --{name} {text}, which cannot change; choose another "
                        "--output"
                    )
            if model is not None and header is not None:
                collection.check_model(header.fingerprint)
                collection.take_calibration(model)
            if images is not None and str(images.absolute()) != collection.settings.root:
                collection.change(root=str(images.absolute()))
        elif model is None or header is None or images is None:
            raise InputError(f"{folder}: no index here; give --model and --images to make one")
        else:
            settings = Settings(
                fingerprint=header.fingerprint,
                dimension=header.network.embedding_size,
                image_size=header.network.image_size,
                dtype=dtype or DTYPES[0],
                batch_size=fitting_batch_size(header.network.seen_size),
                root=str(images.absolute()),
                shard=shard,
            )
            collection = Collection.make(folder, settings, model)
        yield collection
