"""One bit flipped in what indexes and caches keep, at random places: is it found and named?

Whatever is flipped, all of it is read as a search or a training reads it: the answer is either an
error that names the file, or the answer that the sound files give.
"""

import shutil

import numpy as np
from collections_of import make_collection

from deep_ranking.embedding.cached_features import CachedFeatures, feature_store, flattened
from deep_ranking.files import InputError
from deep_ranking.search.collection import Collection

FLIPS = 200  # in each file
SHAPES = ((4, 4, 8), (16,))
NUM_IMAGES, DIMENSION = 600, 16


def run(tally, folder, seed):
    """Flip bits in each file, and count what became of it."""
    rng = np.random.default_rng(seed)
    sound = folder / "sound"
    sound.mkdir()
    _make_features(sound / "features", rng)
    for kind in ("exact", "clusters", "hierarchy"):
        _make_index(sound / kind, kind, rng)
    for name, read in (
        ("features/features.bin", _read_features),
        ("features/blocks.bin", _read_features),
        ("exact/embeddings.bin", _search),
        ("exact/blocks.bin", _search),
        ("clusters/clusters.faiss", _search),
        ("hierarchy/hierarchy.faiss", _search),
    ):
        _flip(tally, sound, folder / "work", name=name, read=read, rng=rng)


def _flip(tally, sound, work, *, name, read, rng):
    place = work / name.split("/")[0]
    whole = (sound / name).read_bytes()
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(sound / place.name, place)
    wanted = read(place)
    refused = 0
    for bit in rng.choice(8 * len(whole), FLIPS, replace=False).tolist():
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        (work / name).write_bytes(content)
        tally.tried += 1
        try:
            found = read(place)
        except InputError as error:
            if str(place) in str(error):
                tally.refused += 1
                refused += 1
            else:
                tally.problem("wrong", f"{name}, bit {bit}: {error}")
            continue
        if all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True)):
            tally.accepted += 1
        else:
            tally.problem("wrong", f"{name}, bit {bit}: another answer, and no error")
    print(f"  {name}: {refused} of {FLIPS} flipped bits named, the others without effect")


def _make_features(folder, rng):
    store = feature_store(folder, SHAPES)
    for _ in range(NUM_IMAGES // 50):
        arrays = [rng.normal(size=(50, *shape)).astype(np.float32) for shape in SHAPES]
        store.extend([([rng.bytes(32) for _ in range(50)], flattened(arrays))])


def _read_features(folder):
    store = feature_store(folder, SHAPES)
    rows = np.arange(NUM_IMAGES)[:, None]
    features = CachedFeatures(store.rows(), rows, SHAPES)
    order = np.random.default_rng(0).permutation(NUM_IMAGES)  # as training does
    parts = [features.read(part, 0 * part) for part in np.array_split(order, 20)]
    return [np.concatenate(each) for each in zip(*parts, strict=True)]


def _make_index(folder, kind, rng):
    folder.parent.mkdir(exist_ok=True)
    root = folder.with_name(f"{folder.name} images")
    embeddings = rng.normal(size=(NUM_IMAGES, DIMENSION)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    paths = [f"class/{number}.png" for number in range(NUM_IMAGES)]
    (root / "class").mkdir(parents=True)
    for number, path in enumerate(paths):
        (root / path).write_bytes(number.to_bytes(4, "big"))
    make_collection(folder, root, dict(zip(paths, embeddings, strict=True)), {"kind": kind})


def _search(folder):
    from deep_ranking.search.index.kinds import open_index

    collection = Collection.open(folder)
    index = open_index(collection)
    queries = np.random.default_rng(1).normal(size=(50, DIMENSION)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    found = index.search(queries, 10, probes=10_000)
    return found.distances, found.rows
