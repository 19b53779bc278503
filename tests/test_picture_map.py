import itertools
import re

import numpy as np
import pytest

from deep_ranking.reports.page.picture_map import MOST_NAMED, lay_out, map_html


def overlap(one, other):
    """Whether two boxes overlap: the upper left corner of each, then its size."""
    return all(
        low < other_low + other_size and other_low < low + size
        for low, size, other_low, other_size in zip(*one, *other, strict=True)
    )


def boxes_of(layout):
    images = [(tuple(corner), (1, 1)) for corner in layout.corners]
    names = [(tuple(each.corner), tuple(each.size)) for each in layout.names]
    return images, names


@pytest.mark.parametrize("spread", [0, 0.1, 5])
def test_no_image_and_no_name_hides_another(spread):
    rng = np.random.default_rng(0)
    classes = [f"Fruit/Some sort number {number % 25}" for number in range(150)]
    points = 10 * rng.normal(size=(25, 2))[np.arange(150) % 25] + spread * rng.normal(size=(150, 2))
    layout = lay_out(points, classes)
    images, names = boxes_of(layout)
    assert len(set(images)) == 150 and len(names) == MOST_NAMED
    html = map_html(layout, [np.zeros((1, 1, 3), np.uint8)] * 150, classes, points[:, 0] > 0)
    assert html.count("<img") == 150
    for one, other in itertools.combinations(images + names, 2):
        assert not overlap(one, other), (one, other)
    for (left, top), (width, height) in images + names:
        assert (
            left >= 0
            and left + width <= layout.columns
            and top >= 0
            and top + height <= layout.rows
        )


def test_groups_stay_together_and_have_their_name_beside_them():
    points = np.repeat([[0.0, 0.0], [1, 0], [0, 1]], 8, axis=0)
    classes = [name for name in ("a", "b", "c") for _ in range(8)]
    layout = lay_out(points, classes)
    middles = {name: layout.corners[i * 8 :][:8].mean(axis=0) + 0.5 for i, name in enumerate("abc")}
    for number, name in enumerate(classes):
        far = {other: np.linalg.norm(layout.corners[number] - at) for other, at in middles.items()}
        assert min(far, key=far.get) == name
    for name in layout.names:
        assert np.linalg.norm(name.corner + name.size / 2 - middles[name.lines[0]]) < 4
    assert layout.columns * layout.rows < 4 * 24  # so that few pictures are large
    # Right and down on the map are where the points were.
    assert middles["b"][0] > middles["a"][0] + 3 and middles["c"][1] > middles["a"][1] + 2


def test_names_are_written_in_full():
    long = "Packages/Orange-Juice/Golden-Grapefruit with 100 % of everything"
    (name,) = lay_out(np.zeros((1, 2)), [long]).names
    assert len(name.lines) > 2 and max(map(len, name.lines)) <= 18
    assert "".join(name.lines).replace(" ", "") == long.replace(" ", "")


def test_the_map_as_html_places_and_frames_its_images():
    layout = lay_out(np.array([[0.0, 0], [1, 1]]), ["<b>", "c"])
    pixels = [np.zeros((2, 3, 3), np.uint8)] * 2
    html = map_html(layout, pixels, ["<i>", "second"], np.array([False, True]))
    images = re.findall("<img[^>]*>", html)
    assert [re.search('title="(.*?)"', each)[1] for each in images] == ["&lt;i&gt;", "second"]
    assert ["class=odd" in each for each in images] == [False, True]
    left, top = layout.corners[1]
    assert (
        f"left: {100 * left / layout.columns:.2f}%; top: {100 * top / layout.rows:.2f}%"
        in images[1]
    )
    assert left > layout.columns / 2 and top > layout.rows / 2
    assert "&lt;b&gt;</span>" in html and "<b>" not in html
    assert 'role="img" aria-label="Map of 2 pictures' in html


def test_images_come_before_names():
    """Names that would take the cells of images are left out."""
    classes = [f"a name that is far too long to be of any use to anybody, {n}" for n in range(150)]
    layout = lay_out(np.random.default_rng(0).normal(size=(150, 2)), classes)
    images, names = boxes_of(layout)
    assert len(set(images)) == 150 and 0 < len(names) < MOST_NAMED
    assert not any(overlap(*pair) for pair in itertools.combinations(images + names, 2))
