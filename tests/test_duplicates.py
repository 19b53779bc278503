import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from collections_of import make_collection
from PIL import Image

from deep_ranking.cli.main import main
from deep_ranking.files import InputError
from deep_ranking.files.words import byte_size
from deep_ranking.reports.page.duplicate_groups import proportional_pixels
from deep_ranking.search import links
from deep_ranking.search.detail import measured_sharpness
from deep_ranking.search.duplicates import find_duplicates
from deep_ranking.search.index import near_groups
from deep_ranking.search.index.base import RowsWithin
from deep_ranking.search.index.clusters import ClusterIndex
from deep_ranking.search.index.exact import ExactIndex
from deep_ranking.search.index.near_groups import group_near_rows
from deep_ranking.search.links import freed_bytes


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def at_angles(*angles):
    """Points of the unit circle: those at angles a and b are 2 sin(|a - b| / 2) apart."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def groups_by_walking(embeddings, rows, threshold):
    """Sets of rows that are joined, by visiting neighbours of neighbours."""
    left, groups = set(rows), []
    while left:
        reached, todo = set(), [min(left)]
        while todo:
            row = todo.pop()
            if row in reached:
                continue
            reached.add(row)
            for other in rows:
                difference = embeddings[row].astype(np.float64) - embeddings[other]
                if np.sqrt((difference**2).sum()) < threshold:
                    todo.append(other)
        groups.append(sorted(reached))
        left -= reached
    return sorted(groups)


def groups_of_labels(rows, labels):
    return sorted(sorted(rows[labels == label].tolist()) for label in np.unique(labels))


class Watched:
    """An index that notes how many queries come at once."""

    def __init__(self, inner):
        self.inner, self.sizes = inner, []

    def within(self, queries, radius):
        self.sizes.append(len(queries))
        return self.inner.within(queries, radius)


class Products(Watched):
    """An index that multiplies in float32, and finds what rounding lets it find."""

    def within(self, queries, radius):
        squared = np.float32(2) - 2 * (queries @ self.inner.T)
        found = squared < radius**2
        limits = np.concatenate([[0], np.cumsum(found.sum(axis=1))])
        return RowsWithin(limits, np.sqrt(np.maximum(squared[found], 0)), np.nonzero(found)[1])


@pytest.mark.parametrize("threshold", [0.08, 0.12, 0.2])
def test_groups_are_those_of_naive_loops(threshold, monkeypatch):
    monkeypatch.setattr(near_groups, "QUERIES_AT_ONCE", 23)
    monkeypatch.setattr(near_groups, "FIRST_QUERIES", 5)
    monkeypatch.setattr(near_groups, "PAIRS_MEASURED_AT_ONCE", 7)
    embeddings = unit(np.random.default_rng(3).normal(size=(150, 3)))
    # The index holds rows that do not count, which must not join others.
    rows = np.setdiff1d(np.arange(150), np.arange(4, 150, 6))
    index = Watched(ExactIndex(embeddings, np.arange(150)))
    labels = group_near_rows(embeddings, rows, index, threshold)
    expected = groups_by_walking(embeddings, rows.tolist(), threshold)
    assert any(len(group) > 2 for group in expected) and len(expected) > 1
    assert groups_of_labels(rows, labels) == expected
    assert index.sizes[:2] == [5, 20] and max(index.sizes) == 23
    assert sum(index.sizes) == len(rows)


def test_many_neighbours_make_few_queries_at_once(monkeypatch):
    monkeypatch.setattr(near_groups, "FIRST_QUERIES", 8)
    monkeypatch.setattr(near_groups, "PAIRS_AT_ONCE", 200)
    embeddings = unit(np.ones((100, 4)))
    index = Watched(ExactIndex(embeddings, np.arange(100)))
    labels = group_near_rows(embeddings, np.arange(100), index, 0.5)
    assert len(set(labels.tolist())) == 1
    assert index.sizes[0] == 8 and set(index.sizes[1:]) == {2}


def test_nearly_equal_rows_are_found_and_decided_exactly():
    rng = np.random.default_rng(0)
    first = unit(rng.normal(size=(60, 512)))
    second = first.copy()
    second[:, 0] += 2e-4  # float32 products are wrong by more than its square
    embeddings = np.concatenate([first, second])
    rows = np.arange(120)
    index = Products(embeddings)
    exact = np.sqrt(((first.astype(np.float64) - second) ** 2).sum(axis=1))
    labels = group_near_rows(embeddings, rows, index, exact.max() * 1.0001)
    assert (labels[:60] == labels[60:]).all()
    # Nearer than the threshold, not as near: the pair at the threshold itself is none.
    labels = group_near_rows(embeddings, rows, index, float(np.median(exact[:-1])))
    joined = labels[:60] == labels[60:]
    assert (joined == (exact < np.median(exact[:-1]))).all()


def test_clusters_find_what_is_in_the_clusters_visited(tmp_path):
    embeddings = unit(np.random.default_rng(1).normal(size=(200, 4)))
    index = ClusterIndex(tmp_path / "index.faiss", probes=5)
    index.update(embeddings, np.arange(200), np.empty(0, np.int64))
    assert index.num_clusters == 5
    labels = group_near_rows(embeddings, np.arange(200), index, 0.2)
    assert groups_of_labels(np.arange(200), labels) == groups_by_walking(
        embeddings, range(200), 0.2
    )


def scene(seed, width=48, height=32):
    """An image with coarse and fine structure."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.integers(0, 256, (4, 6, 3), np.uint8), (width, height))
    fine = rng.integers(0, 40, (height, width, 1), np.uint8)
    return np.clip(coarse.astype(int) + fine - 20, 0, 255).astype(np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def png(pixels, level):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


@pytest.fixture
def make(tmp_path):
    """A function of images by path and their embeddings, which makes a collection."""

    def made(pictures, embeddings, **options):
        root = tmp_path / "images"
        for number, (path, picture) in enumerate(pictures.items()):
            if isinstance(picture, bytes):
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_bytes(picture)
            else:
                save(root / path, scene(number) if picture is None else picture)
        by_path = dict(zip(pictures, embeddings, strict=True))
        return make_collection(tmp_path / "index", root, by_path, **options)

    return made


def paths_of(found):
    return [[image.path for image in group.images] for group in found.groups]


def test_images_near_the_one_to_keep_are_its_group(make):
    pictures = dict.fromkeys(["a/1.png", "a/3.png", "b/far.png"]) | {"b/2.png": scene(0, 90, 60)}
    collection = make(pictures, at_angles(0.0, 0.2, 1.0, 0.1))
    (group,) = find_duplicates(collection, 0.11).groups
    assert [image.path for image in group.images] == ["b/2.png", "a/1.png", "a/3.png"]
    assert [image.label for image in group.images] == ["b", "a", "a"]
    assert group.labels == ["a", "b"]
    assert [image.distance for image in group.others] == pytest.approx(
        [2 * np.sin(0.05)] * 2, abs=1e-6
    )
    assert find_duplicates(collection, 0.09).groups == []


@pytest.mark.parametrize("best", range(9))
def test_in_a_chain_each_image_is_near_the_one_kept_in_its_place(make, best):
    """Nine images, each 0.1 from the next: with a limit of 0.25, groups of five at most."""
    names = [f"{number}.png" for number in range(9)]
    pictures = {
        name: scene(0, 96, 64) if number == best else scene(number)
        for number, name in enumerate(names)
    }
    step = 2 * np.arcsin(0.05)
    collection = make(pictures, at_angles(*np.arange(9) * step))
    found = find_duplicates(collection, 0.25)
    places = {name: number for number, name in enumerate(names)}
    seen = []
    for group in found.groups:
        for image in group.images:
            apart = abs(places[image.path] - places[group.keeper.path])
            assert apart <= 2
            assert image.distance < 0.25
            seen.append(image.path)
    assert len(seen) == len(set(seen))
    (largest,) = [group for group in found.groups if group.keeper.path == f"{best}.png"]
    assert {places[image.path] for image in largest.images} == {
        place for place in range(9) if abs(place - best) <= 2
    }
    kept = {each.keeper.path for each in found.groups} | (set(names) - set(seen))
    for name in names:  # nothing would be lost that has no near one left
        assert any(abs(places[name] - places[other]) <= 2 for other in kept)


def test_equal_files_are_duplicates_at_any_threshold(make):
    pictures = {"b/copy.png": scene(0), "a.png": scene(0), "c/other.png": scene(1)}
    collection = make(pictures, at_angles(0.0, 0.0, 1e-3))
    assert len(collection.rows()) == 2
    assert paths_of(find_duplicates(collection, 0)) == [["a.png", "b/copy.png"]]
    (group,) = find_duplicates(collection, 0.1).groups
    assert len(group.images) == 3


def test_groups_are_ordered_by_size_and_path(make):
    pictures = dict.fromkeys(["z.png", "y.png", "x.png", "d.png", "c.png", "b.png", "a.png"])
    angles = at_angles(0, 0.01, 0.02, 1, 1.01, 2, 2.01)
    collection = make(pictures, angles)
    sets = [sorted(group) for group in paths_of(find_duplicates(collection, 0.05))]
    assert sets == [["x.png", "y.png", "z.png"], ["a.png", "b.png"], ["c.png", "d.png"]]
    assert find_duplicates(collection, 0.05) == find_duplicates(collection, 0.05)


def photograph(seed, width, height):
    """Noise with as much energy in each octave of frequencies, as photographs have."""
    rng = np.random.default_rng(seed)
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequencies[0, 0] = np.inf
    layers = []
    for _ in range(3):
        spectrum = np.fft.rfft2(rng.normal(size=(height, width))) / frequencies
        plane = np.fft.irfft2(spectrum, s=(height, width))
        layers.append(128 + 40 * plane / plane.std())
    return np.clip(np.stack(layers, axis=2), 0, 255).astype(np.uint8)


def resized(pixels, factor, blur=0.0, how=cv2.INTER_CUBIC):
    size = round(pixels.shape[1] * factor), round(pixels.shape[0] * factor)
    result = cv2.resize(pixels, size, interpolation=how)
    return cv2.GaussianBlur(result, (0, 0), blur) if blur else result


def jpeg(pixels, quality):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


ORIGINAL = photograph(0, 192, 128)
WORSE = {
    "enlarged": resized(ORIGINAL, 2),
    "enlarged by four": resized(ORIGINAL, 4),
    "enlarged and blurred": resized(ORIGINAL, 2, blur=2),
    "enlarged with steps, then blurred": resized(ORIGINAL, 3, 2.0, cv2.INTER_NEAREST),
    "enlarged and compressed": jpeg(resized(ORIGINAL, 2), 85),
    "blurred": resized(ORIGINAL, 1, blur=1),
    "reduced": resized(ORIGINAL, 0.5, how=cv2.INTER_AREA),
    "reduced and enlarged": resized(resized(ORIGINAL, 0.5, how=cv2.INTER_AREA), 2),
    "compressed": jpeg(ORIGINAL, 60),
    "cut": ORIGINAL[20:-20, 30:-30],
}


@pytest.mark.parametrize("kind", WORSE)
@pytest.mark.parametrize("first", [True, False])
def test_the_image_with_the_most_detail_is_kept(make, kind, first):
    names = ["a.png", "b.png"] if first else ["b.png", "a.png"]
    pictures = {names[0]: png(ORIGINAL, 9), names[1]: WORSE[kind]}
    (group,) = find_duplicates(make(pictures, at_angles(0, 0.02)), 0.1).groups
    assert group.keeper.path == names[0]


def test_a_large_photograph_is_kept_over_all_that_was_made_of_it(make):
    pictures = {"original.png": ORIGINAL} | {f"{kind}.png": each for kind, each in WORSE.items()}
    (group,) = find_duplicates(make(pictures, at_angles(*np.linspace(0, 0.01, 11))), 0.1).groups
    assert group.keeper.path == "original.png"
    assert group.keeper.width == 192 and group.keeper.is_keeper and group.keeper.distance == 0
    assert not any(image.is_keeper for image in group.others)


def test_a_soft_original_is_kept_over_its_copy_of_half_the_size(make):
    rng = np.random.default_rng(3)
    soft = cv2.GaussianBlur(photograph(2, 400, 300), (0, 0), 0.8).astype(float)
    soft = np.clip(soft + rng.normal(0, 2, soft.shape), 0, 255).astype(np.uint8)
    half = resized(soft, 0.5, how=cv2.INTER_AREA)
    pictures = {"a.jpg": jpeg(half, 95), "b.jpg": jpeg(soft, 90)}
    (group,) = find_duplicates(make(pictures, at_angles(0, 0)), 0.1).groups
    assert group.keeper.path == "b.jpg"


@pytest.mark.parametrize("factor", [1 / 3, 1 / 8])
def test_a_soft_original_is_kept_over_a_sharp_thumbnail(make, factor):
    """The thumbnail is several times as sharp by its own pixels, and has little detail."""
    soft = cv2.GaussianBlur(photograph(2, 400, 300), (0, 0), 1.0)
    small = resized(soft, factor, how=cv2.INTER_AREA)
    assert measured_sharpness(soft) < 0.5 * measured_sharpness(small)
    pictures = {"a.png": small, "b.png": soft}
    (group,) = find_duplicates(make(pictures, at_angles(0, 0)), 0.1).groups
    assert group.keeper.path == "b.png"


def test_of_equal_detail_more_pixels_then_no_loss_then_bytes_count(make):
    larger = photograph(0, 211, 141)
    pictures = {
        "a.jpg": jpeg(larger, 100),
        "b.png": png(larger, 9),
        "c.png": png(larger, 0),
        "d.bmp": ORIGINAL,
    }
    embeddings = at_angles(0, 0, 0, 0)
    collection = make(pictures, embeddings)
    (group,) = find_duplicates(collection, 0.1).groups
    assert group.keeper.path == "c.png"
    for name, following in (("c.png", "b.png"), ("b.png", "a.jpg")):
        os.unlink(os.path.join(collection.settings.root, name))
        (group,) = find_duplicates(collection, 0.1).groups
        assert group.keeper.path == following


def test_sharpness_is_the_share_of_the_frequencies_in_use():
    """Level weighted energy up to a limit: its roll-off is at 0.9 of the limit."""
    for limit in (0.25, 0.5, 1.0):
        rng = np.random.default_rng(0)
        frequencies = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512))
        frequencies[0, 0] = np.inf
        spectrum = np.fft.rfft2(rng.normal(size=(512, 512))) / frequencies**1
        # Equal energy of each ring of frequencies times the frequency: amplitude as its inverse.
        spectrum[frequencies > limit / 2] = 0
        plane = np.fft.irfft2(spectrum)
        gray = np.clip(128 + 30 * plane / plane.std(), 0, 255).astype(np.uint8)
        pixels = np.repeat(gray[:, :, None], 3, axis=2)
        assert measured_sharpness(pixels) == pytest.approx(0.9 * limit, abs=0.04)
        assert measured_sharpness(255 - pixels // 2) == pytest.approx(0.9 * limit, abs=0.05)
    assert measured_sharpness(np.full((9, 5, 3), 7, np.uint8)) == 1
    assert 0 < measured_sharpness(ORIGINAL[:1, :1]) <= 1


def test_what_compression_makes_seem_sharper_is_no_reason_to_keep_it(make):
    plain = scene(0)
    blocks = png(np.clip((plain.astype(int) - 128) * 1.2 + 128, 0, 255).astype(np.uint8), level=9)
    pictures = {"a.png": blocks, "b.png": png(plain, level=0)}
    (group,) = find_duplicates(make(pictures, at_angles(0, 0)), 0.1).groups
    assert group.keeper.path == "b.png"


def test_of_equal_sharpness_the_largest_file_is_kept_and_then_the_first_path(make):
    buffers = {level: png(scene(0), level) for level in (0, 9)}
    pictures = {"a.png": buffers[9], "c.png": buffers[0], "b.png": buffers[0]}
    collection = make(pictures, at_angles(0, 0.01, 0.01))
    (group,) = find_duplicates(collection, 0.1).groups
    assert len(buffers[0]) > len(buffers[9])
    assert [image.path for image in group.images] == ["b.png", "c.png", "a.png"]
    assert group.keeper.num_bytes == len(buffers[0])


def test_what_is_gone_changed_or_broken_is_left_out(make, tmp_path):
    names = ["bridge.png", "broken.png", "changed.png", "gone.png", "one.png", "two.png"]
    # one and two are near each other only by way of what has changed.
    collection = make(dict.fromkeys(names), at_angles(0.1, 1, 0, 2, 0, 0.2))
    save(tmp_path / "images" / "changed.png", scene(9))
    save(tmp_path / "images" / "bridge.png", scene(8))
    (tmp_path / "images" / "gone.png").unlink()
    found = find_duplicates(collection, 0.11)
    assert found.groups == []
    assert [path for path, _ in found.left_out] == ["bridge.png", "changed.png", "gone.png"]
    assert "changed since" in found.left_out[1][1] and "gone since" in found.left_out[2][1]


def test_a_file_that_cannot_be_read_any_more_is_left_out(make, tmp_path):
    collection = make(dict.fromkeys(["a.png", "b.png", "c.png"]), at_angles(0, 0.01, 0.02))
    path = tmp_path / "images" / "b.png"
    status, data = path.stat(), path.read_bytes()
    path.write_bytes(data[:60] + bytes(len(data) - 60))  # damaged, with its size and time
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    found = find_duplicates(collection, 0.1)
    assert [sorted(group) for group in paths_of(found)] == [["a.png", "c.png"]]
    ((path, problem),) = found.left_out
    assert path == "b.png" and problem and "b.png" not in problem


def test_a_link_is_no_duplicate_of_its_file(make, tmp_path):
    root = tmp_path / "images"
    save(root / "z.png", scene(0))
    (root / "a.png").symlink_to("z.png")
    data = (root / "z.png").read_bytes()
    collection = make_collection(
        tmp_path / "index", root, {"a.png": at_angles(0)[0], "z.png": at_angles(0)[0]}
    )
    found = find_duplicates(collection, 0.1)
    assert found.groups == []
    assert found.left_out == [("a.png", "a link that leads to z.png")]
    assert (root / "z.png").read_bytes() == data


def linked(tmp_path, angles, links=()):
    """A collection of files and links in the folder of images, by their angles."""
    root = tmp_path / "images"
    for name, target in links:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).symlink_to(target)
    embeddings = {name: at_angles(angle)[0] for name, angle in angles.items()}
    return make_collection(tmp_path / "index", root, embeddings)


def test_a_file_that_a_link_leads_to_is_never_moved(tmp_path):
    root = tmp_path / "images"
    save(root / "large.png", scene(0, 96, 64))
    save(root / "target.png", scene(0))
    save(root / "other.png", scene(1))
    angles = {"large.png": 0, "target.png": 0.02, "other.png": 0.03, "a/link.png": 0.02}
    collection = linked(tmp_path, angles, [("a/link.png", "../target.png")])
    found = find_duplicates(collection, 0.1)
    (group,) = found.groups
    assert group.keeper.path == "large.png"
    assert [image.path for image in group.movable] == ["other.png"]
    assert "1 could go" in found.summary
    assert "target.png  (stays: the link a/link.png leads to it)" in found.text()
    moved = found.move_aside(tmp_path / "aside")
    assert moved.left == [("target.png", "the link a/link.png leads to it")]
    assert moved.num_images == 1
    assert (root / "a/link.png").read_bytes() == (root / "target.png").read_bytes()


@pytest.mark.parametrize("name", ["latest", ".hidden/x.png", "a/other.txt"])
def test_links_that_the_collection_does_not_hold_count_too(tmp_path, name):
    root = tmp_path / "images"
    save(root / "large.png", scene(0, 96, 64))
    save(root / "target.png", scene(0))
    collection = linked(tmp_path, {"large.png": 0, "target.png": 0.02})
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).symlink_to(root / "target.png")
    found = find_duplicates(collection, 0.1)
    assert found.groups[0].movable == ()
    assert f"(stays: the link {name} leads to it)" in found.text()


def test_a_link_to_elsewhere_is_not_the_one_to_keep(tmp_path):
    root = tmp_path / "images"
    save(tmp_path / "outside.png", scene(0))
    save(root / "m.png", scene(0))
    save(root / "n.png", scene(0))
    link = ("a.png", tmp_path / "outside.png")
    found = find_duplicates(linked(tmp_path, {"a.png": 0, "m.png": 0, "n.png": 0}, [link]), 0.1)
    assert found.groups[0].keeper.path == "m.png"
    assert [image.path for image in found.groups[0].movable] == ["n.png"]
    assert found.move_aside(tmp_path / "aside").num_images == 1


def test_a_folder_mounted_twice_is_one(tmp_path, monkeypatch):
    """Its files have one inode each, and go from both places at once."""
    root = tmp_path / "images"
    save(root / "a/x.png", scene(0))
    save(root / "b/x.png", scene(0))
    plain = links.folder_id
    same = {str(root / name): (1, 2) for name in "ab"}
    monkeypatch.setattr(links, "folder_id", lambda folder: same.get(folder) or plain(folder))
    collection = linked(tmp_path, {"a/x.png": 0, "b/x.png": 0})
    found = find_duplicates(collection, 0.1)
    assert found.groups == []
    assert found.left_out == [("b/x.png", "a link that leads to a/x.png")]


def test_one_name_of_one_file_is_not_moved(tmp_path, monkeypatch):
    root = tmp_path / "images"
    for name in ("x.png", "y.png"):
        save(root / name, scene(0))
    found = find_duplicates(linked(tmp_path, {"x.png": 0, "y.png": 0}), 0.1)
    monkeypatch.setattr(os.path, "samefile", lambda *_: True)
    moved = found.move_aside(tmp_path / "aside")
    assert moved.left == [("y.png", "y.png is x.png under another name")]
    assert (root / "x.png").is_file() and (root / "y.png").is_file()


@pytest.mark.parametrize("through", ["file", "folder"])
def test_nothing_is_moved_through_a_link(tmp_path, through):
    root, outside = tmp_path / "images", tmp_path / "outside"
    save(root / "large.png", scene(0, 96, 64))
    save(outside / "x.png", scene(0))
    link = ("x.png", outside / "x.png") if through == "file" else ("in", outside)
    name = "x.png" if through == "file" else "in/x.png"
    collection = linked(tmp_path, {"large.png": 0, name: 0.02}, [link])
    found = find_duplicates(collection, 0.1)
    assert found.groups[0].movable == ()
    moved = found.move_aside(tmp_path / "aside")
    assert moved.left == [(name, "reached through a link")]
    assert (outside / "x.png").is_file() and (root / name).is_file()


def test_a_folder_that_became_a_link_since_is_not_moved_through(tmp_path):
    root = tmp_path / "images"
    save(root / "large.png", scene(0, 96, 64))
    save(root / "in/x.png", scene(0))
    found = find_duplicates(linked(tmp_path, {"large.png": 0, "in/x.png": 0.02}), 0.1)
    (root / "in").rename(tmp_path / "outside")
    (root / "in").symlink_to(tmp_path / "outside")
    moved = found.move_aside(tmp_path / "aside")
    assert moved.left == [("in/x.png", "in/x.png is reached through a link")]
    assert (tmp_path / "outside/x.png").is_file()


def test_hard_links_free_no_space_before_the_last_name_goes(tmp_path):
    root = tmp_path / "images"
    save(root / "a.png", scene(0, 96, 64))
    os.link(root / "a.png", root / "b.png")
    save(root / "c.png", scene(0))
    for name in ("d.png", "e.png"):
        os.link(root / "c.png", root / name)
    save(root / "f.png", scene(1))
    os.link(root / "f.png", tmp_path / "elsewhere.png")
    angles = {"a.png": 0, "b.png": 0, "c.png": 0.01, "d.png": 0.01, "e.png": 0.01, "f.png": 0.02}
    found = find_duplicates(linked(tmp_path, angles), 0.1)
    size = (root / "c.png").stat().st_size
    assert freed_bytes(found.groups[0].movable) == size
    assert f"1 group, 6 images, 5 could go, {byte_size(size)}" == found.summary
    assert "b.png  (a file with 2 names (hard links): frees no space" in found.text()
    moved = found.move_aside(tmp_path / "aside")
    assert (moved.num_images, moved.num_bytes) == (5, size)


def disguise(path, pixels):
    """Another picture in the place of a file, of equal size and time of change."""
    status = path.stat()
    save(path, pixels)
    assert path.stat().st_size == status.st_size
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("when", ["before it looks", "before it moves"])
@pytest.mark.parametrize("which", ["a.bmp", "b.bmp"])
def test_a_picture_replaced_unseen_is_not_taken_for_a_copy(make, tmp_path, when, which):
    collection = make({"a.bmp": scene(0), "b.bmp": scene(0)}, at_angles(0, 0))
    root = tmp_path / "images"
    (root / "b.bmp").write_bytes((root / "a.bmp").read_bytes())
    if when == "before it looks":
        disguise(root / which, scene(5))
        found = find_duplicates(collection, 0)
        assert found.groups == []
        assert [path for path, _ in found.left_out] == [which]
        assert "run `index` again" in found.left_out[0][1]
        return
    found = find_duplicates(collection, 0)
    (group,) = found.groups
    assert group.keeper.path == "a.bmp"
    disguise(root / which, scene(5))
    moved = found.move_aside(tmp_path / "aside")
    assert moved.num_images == 0
    assert moved.left == [("b.bmp", f"{which} has changed since it was embedded")]
    assert sorted(each.name for each in root.iterdir()) == ["a.bmp", "b.bmp"]


def test_a_copy_of_the_folder_has_the_same_duplicates(make, tmp_path):
    collection = make({"a.png": scene(0), "b.png": scene(0, 60, 40)}, at_angles(0, 0.01))
    shutil.copytree(tmp_path / "images", tmp_path / "moved", copy_function=shutil.copy)
    collection.change(root=str(tmp_path / "moved"))
    found = find_duplicates(collection, 0.1)
    assert found.left_out == []
    assert paths_of(found) == [["b.png", "a.png"]]


def test_bad_thresholds_and_a_folder_that_is_gone_are_named(make, tmp_path):
    collection = make({"a.png": None}, at_angles(0))
    for threshold in (-0.1, 2.1, float("nan")):
        with pytest.raises(InputError, match="threshold must be 0 to 2"):
            find_duplicates(collection, threshold)
    assert find_duplicates(collection, 2).groups == []
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(InputError, match="the folder of the images is gone"):
        find_duplicates(collection, 0.1)


ODD = "a&b/<i>\"say\" 'hi' .png"


@pytest.fixture
def odd(make, tmp_path):
    pictures = {ODD: scene(0, 60, 40), "b/2.png": scene(0), "b/3.png": None, "b/4.png": None}
    make({**pictures, "c.png": None}, at_angles(0, 0.02, 1, 1.03, 2))
    return tmp_path / "index"


def test_the_command_prints_groups_and_a_last_line(odd, tmp_path, capsys):
    assert main(["duplicates", "--index", str(odd), "--threshold", "0.1"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "5 images, 2 classes (the first folder)."
    assert str(tmp_path / "images") in lines[0]
    assert lines[0].startswith("Each group: the image to keep, and those nearer than 0.1 to it")
    assert lines[2] == "Group 1: 2 images of 2 classes (a&b, b)"
    assert lines[3].split()[:2] == ["keep", "60x40"] and lines[3].endswith(ODD)
    assert lines[4].split()[:2] == ["0.0200", "48x32"] and lines[4].endswith("b/2.png")
    assert lines[6] == "Group 2: 2 images"
    assert "--html FILE" in lines[-2] and "--move DIR" in lines[-2]
    assert re.fullmatch(r"2 groups, 4 images, 2 could go, \d+\.\d KiB", lines[-1])
    assert main(["duplicates", "--index", str(odd), "--threshold", "0"]) == 0
    assert capsys.readouterr().out == f"{first}\n0 groups, 0 images, 0 could go, 0 bytes\n"


def test_json_has_all_of_it(odd, tmp_path):
    (tmp_path / "images" / "c.png").unlink()
    file = tmp_path / "found.json"
    assert main(["duplicates", "--index", str(odd), "--threshold", "0.1", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert found["threshold"] == 0.1 and found["root"] == str(tmp_path / "images")
    assert [len(group) for group in found["groups"]] == [2, 2]
    keeper, other = found["groups"][0]
    assert keeper["path"] == str(tmp_path / "images" / ODD) and keeper["class"] == "a&b"
    assert (keeper["width"], keeper["height"], keeper["distance"]) == (60, 40, 0)
    assert keeper["is_keeper"] and not other["is_keeper"]
    assert other["distance"] == pytest.approx(0.02, abs=1e-5)
    assert other["bytes"] == (tmp_path / "images" / "b" / "2.png").stat().st_size
    assert other["sharpness"] > 0
    assert [each["path"] for each in found["left_out"]] == [str(tmp_path / "images" / "c.png")]


class Page(HTMLParser):
    """Images with their attributes, and the text of captions, marks included."""

    def __init__(self, text):
        super().__init__()
        self.images, self.captions, self.tags, self.within = [], [], set(), ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        if tag == "figcaption":
            self.captions.append("")
            self.within = tag

    def handle_endtag(self, tag):
        self.within = "" if tag == "figcaption" else self.within

    def handle_data(self, data):
        if self.within:
            self.captions[-1] += data


def test_the_page_shows_each_image_and_frames_the_keeper(odd, tmp_path):
    file = tmp_path / "page.html"
    assert main(["duplicates", "--index", str(odd), "--threshold", "0.1", "--html", str(file)]) == 0
    text = file.read_text()
    found = Page(text)
    assert "i" not in found.tags and "script" not in found.tags
    root = tmp_path / "images"
    assert [image["title"] for image in found.images][:2] == [
        str(root / ODD),
        str(root / "b" / "2.png"),
    ]
    assert [image.get("class") for image in found.images] == ["hit", None, "hit", None]
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in found.images)
    assert found.captions[0].startswith("✓ keep 60x40, ") and ODD in found.captions[0]
    assert found.captions[1].startswith("0.020 48x32, ")
    shown = Image.open(io.BytesIO(base64.b64decode(found.images[0]["src"].split(",")[1])))
    assert shown.size == (224, 149)  # in proportion
    expected = cv2.resize(scene(0, 60, 40), shown.size, interpolation=cv2.INTER_AREA)
    assert np.abs(np.asarray(shown, int) - expected).mean() < 12
    assert "2 groups, 4 images, 2 could go" in text
    assert "are shown" not in text and "more in this group" not in text


def test_thumbnails_keep_their_proportions(tmp_path):
    wide = cv2.resize(scene(0), (600, 500))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    save(tmp_path / "wide.jpg", wide)
    save(tmp_path / "tall.jpg", wide, exif=exif)
    assert proportional_pixels(tmp_path / "wide.jpg").shape == (187, 224, 3)
    assert proportional_pixels(tmp_path / "tall.jpg").shape == (224, 187, 3)
    assert (proportional_pixels(tmp_path / "gone.jpg") == 255).all()


def test_a_long_page_says_what_it_leaves_out(odd, tmp_path, monkeypatch):
    monkeypatch.setattr("deep_ranking.reports.page.duplicate_groups.MOST_GROUPS", 1)
    monkeypatch.setattr("deep_ranking.reports.page.duplicate_groups.MOST_IMAGES", 1)
    file = tmp_path / "page.html"
    assert main(["duplicates", "--index", str(odd), "--threshold", "0.1", "--html", str(file)]) == 0
    text = file.read_text()
    assert len(Page(text).images) == 1
    assert "The 1 largest of 2 groups are shown" in text
    assert "and 1 more in this group" in text


def test_wrong_calls_exit_with_2_and_bad_data_with_1(odd, tmp_path, capsys):
    index = ["duplicates", "--index", str(odd)]
    undo = ["duplicates", "--undo", str(tmp_path / "no.jsonl")]
    for wrong in (["duplicates"], [*index, "--threshold", "3"], [*index, *undo[1:]]):
        with pytest.raises(SystemExit) as end:
            main(wrong)
        assert end.value.code == 2
    with pytest.raises(SystemExit) as end:
        main([*undo, "--move", str(tmp_path / "aside")])
    assert end.value.code == 2
    capsys.readouterr()
    for bad in (
        undo,
        ["duplicates", "--index", str(tmp_path / "none")],
        [*index, "--json", str(tmp_path)],
        [*index, "--html", str(tmp_path / "none" / "page.html")],
        [*index, "--move", str(tmp_path / "images" / "aside")],
    ):
        assert main(bad) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_pruned_index_says_that_it_may_miss_some(make, tmp_path, capsys):
    names = [f"{number}.png" for number in range(80)]
    embeddings = unit(np.random.default_rng(0).normal(size=(80, 8)))
    embeddings[1] = embeddings[0]
    make(dict.fromkeys(names), embeddings, index={"kind": "clusters", "clusters": 2, "probes": 1})
    assert main(["duplicates", "--index", str(tmp_path / "index")]) == 0
    printed = capsys.readouterr()
    assert "those of 1 of the index's 2 clusters" in printed.err
    assert printed.out.splitlines()[-1].startswith("1 group, 2 images, 1 could go")


@pytest.mark.slow
def test_it_runs_without_tensorflow(odd, tmp_path):
    code = (
        "import sys\nfrom deep_ranking.cli.main import main\n"
        f"assert main(['duplicates', '--index', {str(odd)!r}, '--threshold', '0.1', '--html', "
        f"{str(tmp_path / 'page.html')!r}, '--move', {str(tmp_path / 'aside')!r}]) == 0\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Moved 2 images" in done.stdout
    assert (tmp_path / "aside" / "b" / "2.png").exists()
