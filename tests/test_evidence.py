"""What an evaluation says about what it compared, without a model: embeddings are given."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from deep_ranking.datasets import read_folder
from deep_ranking.metrics.evaluation import EmbeddedImages, evaluate_embeddings
from deep_ranking.reports.compared_images import compare_contents
from deep_ranking.reports.evaluating import without_nan
from deep_ranking.reports.evidence import gather_evidence

CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox")


def write_noise(root, classes=CLASSES, images=6, seed=0):
    """Images of noise, no two alike, and nothing that tells the classes apart."""
    rng = np.random.default_rng(seed)
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(images):
            cells = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(cells.repeat(8, 0).repeat(8, 1)).save(root / name / f"{number}.png")
    return root


def evidence_of(*roots):
    """The evidence about folders, each image embedded by the colours of its cells."""
    compared = compare_contents(*map(read_folder, roots))
    sets = [
        EmbeddedImages(
            images.files(),
            images.classes_of_images(),
            np.stack([np.asarray(Image.open(file).resize((4, 4))) for file in images.files()])
            .reshape(len(images), -1)
            .astype(np.float32),
        )
        for images in compared.sets()
    ]
    return gather_evidence(compared, evaluate_embeddings(*sets, exclude=compared.own))


def lines_of(evidence):
    return list(evidence.lines(None if evidence.num_gallery is None else "7 of 35"))


def test_a_good_folder_needs_one_line(tmp_path):
    found = evidence_of(write_noise(tmp_path))
    assert lines_of(found) == [
        "36 queries of 6 classes, each searched for among the others; figures are means over "
        "queries, with 95 % bootstrap intervals over queries; a random order has recall@1 0.143."
    ]
    assert found.chance == pytest.approx(5 / 35)
    assert (found.num_looked_at, found.num_near_copies) == (36, 0)


def test_chance_is_what_random_orders_find(tmp_path):
    root = write_noise(tmp_path, ("small", "other"), 3)
    write_noise(root, ("large",), 12, seed=1)
    found = evidence_of(root)
    rng = np.random.default_rng(0)
    labels = np.repeat(["small", "other", "large"], [3, 3, 12])
    hits = []
    for _ in range(3000):
        others = (np.arange(18) + rng.integers(1, 18, 18)) % 18
        hits.append((labels == labels[others]).mean())
    assert found.chance == pytest.approx(np.mean(hits), abs=0.01)
    assert "large classes weigh more (3 to 12 queries a class)" in lines_of(found)[0]


def test_a_gallery_names_the_classes_in_both_and_in_one_only(tmp_path):
    queries = write_noise(tmp_path / "q", CLASSES)
    gallery = write_noise(tmp_path / "g", (*CLASSES[1:], "gnu", "hen"), 5, seed=1)
    found = evidence_of(queries, gallery)
    lines = lines_of(found)
    assert lines[:3] == [
        "36 queries of 6 classes, searched for in 35 images: median rank 7 of 35.",
        "5 classes in both, 1 in the queries only (ant), 2 in the gallery only (gnu, hen); figures "
        "are means over queries, with 95 % bootstrap intervals over queries; a random order has "
        "recall@1 0.143.",
        "6 queries of 1 class without an image in the gallery (ant): in no figure.",
    ]
    assert len(lines) == 3
    assert (found.num_judged, found.num_judged_classes) == (30, 5)


def test_what_was_left_out_is_counted_with_an_example(tmp_path):
    root = write_noise(tmp_path)
    shutil.copy(root / "ant" / "1.png", root / "ant" / "copy.png")
    (root / "bee" / "link.png").symlink_to(root / "bee" / "0.png")
    shutil.copy(root / "ant" / "2.png", root / "fox" / "wrong.png")
    found = evidence_of(root)
    assert lines_of(found)[0].startswith("36 queries of 6 classes, each searched")
    assert lines_of(found)[1:] == [
        "Content left out: 2 images, copies of others or links to them (ant/copy.png of ant/1.png);"
        " 1 image, copies of images of another class (fox/wrong.png of ant/2.png), one of the two "
        "labels is wrong."
    ]
    both = evidence_of(root, root)
    assert both.compared.num_own == both.num_queries == 37
    assert lines_of(both)[2:] == [
        "Content left out: 2 queries, copies of others or links to them (ant/copy.png of "
        "ant/1.png); 2 images of the gallery, copies of others or links to them (ant/copy.png of "
        "ant/1.png); the file, copy or link of 37 queries in the gallery, from their results.",
        "1 image with a copy in another class (fox/wrong.png of ant/2.png): one of the labels may "
        "be wrong.",
    ]


def test_queries_whose_only_right_image_is_their_own_are_in_no_figure(tmp_path):
    queries = write_noise(tmp_path / "q")
    gallery = write_noise(tmp_path / "g", CLASSES[1:], 6, seed=1)
    (gallery / "ant").mkdir()
    shutil.copy(queries / "ant" / "3.png", gallery / "ant" / "shop.png")
    found = evidence_of(queries, gallery)
    assert (found.compared.num_own, found.num_only_own, found.num_without_class) == (1, 1, 0)
    assert found.num_judged == 35
    line = "1 query whose right images are all copies of it: in no figure."
    assert line in lines_of(found)


@pytest.mark.parametrize(
    ("classes", "images", "said"),
    [
        (CLASSES[:4], 10, "Only 4 classes: the figures say little about other classes, and a "),
        (CLASSES[:5], 6, None),  # 5 / 29 by chance
        (CLASSES[:5], 5, "Only 25 queries: one moves the figures a lot, and the intervals are "),
    ],
)
def test_few_classes_and_few_queries_are_said(tmp_path, classes, images, said):
    found = evidence_of(write_noise(tmp_path, classes, images))
    if classes == CLASSES[:4]:
        assert next(found.warnings()).endswith("a random order already has recall@1 0.231.")
    if said is None:
        assert list(found.warnings()) == []
    else:
        (line,) = found.warnings()
        assert line.startswith(said)
        assert line in lines_of(found)


def test_few_queried_classes_of_a_large_gallery_are_hard_all_the_same(tmp_path):
    queries = write_noise(tmp_path / "q", CLASSES[:2], 20)
    found = evidence_of(queries, write_noise(tmp_path / "g", CLASSES, 6, seed=1))
    assert list(found.warnings()) == ["Only 2 classes: the figures say little about other classes."]


def test_one_class_with_most_images_is_said(tmp_path):
    root = write_noise(tmp_path, CLASSES, 2)
    write_noise(root, ("gnu",), 40, seed=1)
    found = evidence_of(root)
    (line,) = found.warnings()
    assert line == (
        "A few classes have most of the images: a random order already has recall@1 "
        f"{found.chance:.3f}."
    )
    assert found.chance == pytest.approx((40 * 39 + 12 * 1) / 51 / 52)


def test_pictures_that_are_saved_again_are_said(tmp_path):
    root = write_noise(tmp_path, images=5)
    for name in CLASSES[:2]:
        for number in range(5):
            with Image.open(root / name / f"{number}.png") as picture:
                picture.save(root / name / f"{number} again.bmp")  # other bytes
    found = evidence_of(root)
    assert (found.num_looked_at, found.num_near_copies) == (40, 20)
    assert list(found.warnings()) == [
        "The nearest image of 20 of 40 queries looked at is a near copy of it: recall@1 says "
        "little about other pictures."
    ]


def test_classes_of_one_image_are_named(tmp_path):
    root = write_noise(tmp_path, images=7)
    for name in ("gnu", "hen"):
        write_noise(root, (name,), 1, seed=ord(name[0]))
    shutil.copy(root / "hen" / "0.png", root / "hen" / "1.png")  # a copy is no second image
    assert lines_of(evidence_of(root))[-1] == "2 classes of one image (gnu, hen): in no figure."


def test_as_json_has_all_of_it(tmp_path):
    queries = write_noise(tmp_path / "q", CLASSES[:3], 2)
    gallery = write_noise(tmp_path / "g", CLASSES[1:], 2, seed=1)
    shutil.copy(queries / "bee" / "0.png", gallery / "bee" / "again.png")
    shutil.copy(gallery / "cat" / "0.png", gallery / "cat" / "copy.png")
    shutil.copy(gallery / "cat" / "0.png", gallery / "dog" / "wrong.png")
    found = evidence_of(queries, gallery)
    result = json.loads(json.dumps(without_nan(found.as_json())))
    assert (result["queries"], result["gallery"]) == (6, 12)
    assert result["queries_of_class"] == {"ant": 2, "bee": 2, "cat": 2}
    assert result["classes_in_both"] == ["bee", "cat"]
    assert result["classes_in_queries_only"] == ["ant"]
    assert result["classes_in_gallery_only"] == ["dog", "eel", "fox"]
    assert result["copies_left_out"] == {
        "queries": [],
        "gallery": [
            {"path": f"{gallery}/cat/copy.png", "of": f"{gallery}/cat/0.png"},
        ],
    }
    assert result["copies_in_another_class"] == [
        {"path": f"{gallery}/dog/wrong.png", "of": f"{gallery}/cat/0.png"}
    ]
    assert result["queries_with_own_content_left_out"] == 1
    assert result["queries_in_figures"] == 4
    assert result["queries_in_no_figure"] == {
        "class_not_in_gallery": 2,
        "only_own_content": 0,
        "class_of_one_image": 0,
    }
    # Of bee, one query ranks 2 of 11 and the other 3 of 12; of cat, both 2 of 12.
    assert result["recall_at_1_by_chance"] == pytest.approx((2 / 11 + 3 / 12 + 2 / 12 * 2) / 4)
    assert "mean over queries" in result["averaging"]["per query"]
    assert result["near_copies"] == {"looked_at": 4, "found": 0}
    assert len(result["warnings"]) == 3
