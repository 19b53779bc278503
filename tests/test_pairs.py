"""Two domains of images: `--pairs` of `train`, from a file or from two folders."""

import os

import numpy as np
import pytest
from stubs import training_stubs

from deep_ranking.cli.main import run_command
from deep_ranking.config import NetworkConfig, TrainConfig
from deep_ranking.datasets import limit_classes, read_pairs
from deep_ranking.files import InputError
from deep_ranking.sampling import ClassBatches
from deep_ranking.training.batches import FeatureSource
from deep_ranking.training.data import image_source, read_run_images
from deep_ranking.training.run import TrainingRun
from deep_ranking.training.validation import make_validation

ITEMS = ("fruit/lime", "fruit/plum", "tool/saw", "tool/axe")


@pytest.fixture
def shop(tmp_path, write_colors):
    """Four photographs and one picture of each of four items."""
    for folder, images in (("photos", 4), ("pictures", 1)):
        for category in ("fruit", "tool"):
            names = [item.split("/")[1] for item in ITEMS if item.startswith(category)]
            write_colors(tmp_path / folder / category, classes=names, images=images)
    return tmp_path


def pair_file(shop, items=ITEMS, category=False):
    lines = [
        f"photos/{item}/{number}.png,pictures/{item}/0.png,{item}"
        + (f",{item.partition('/')[0]}" if category else "")
        for item in items
        for number in range(4)
    ]
    (shop / "pairs.csv").write_text("\n".join(lines) + "\n")
    return shop / "pairs.csv"


def config_for(shop, **changes):
    settings = {
        "batches": "classes",
        "dataset": shop / "photos",
        "pairs": shop / "pictures",
        "output": shop / "m.h5",
        "network": NetworkConfig(
            image_size=32, weights=None, hidden_layers=0, multiscale="none", embedding_size=4
        ),
        "batch_size": 8,
        "images_per_class": 2,
        "steps_per_epoch": 2,
        "epochs": 1,
        "loss": "supervised_contrastive",
        "augmentation": None,
    }
    return TrainConfig(**(settings | changes))


# What is read


def test_two_folders(shop):
    data = read_pairs(shop / "photos", shop / "pictures")
    assert data.items.names == sorted(ITEMS)
    assert data.categories.names == ["fruit", "tool"]
    assert len(data) == 20
    for path, item, in_gallery in zip(
        data.paths, data.items.of_images(), data.gallery.tolist(), strict=True
    ):
        assert path.startswith(f"{'pictures' if in_gallery else 'photos'}/{item}/")
    assert all(map(os.path.isfile, data.files()))
    assert data.describe() == [
        "20 images, 4 items (the folder that holds the image), 2 categories.",
        f"Queries: 16 images of {shop / 'photos'}; gallery: 4 images of {shop / 'pictures'}; "
        "4 items in both.",
    ]


def test_items_in_one_folder_only_are_told(shop):
    for path in ("photos/tool/saw", "pictures/fruit/plum"):
        (shop / path).rename(shop / f"{path}x")
    notes = "\n".join(read_pairs(shop / "photos", shop / "pictures").notes)
    assert "2 items in both" in notes
    assert f"2 items in {shop / 'photos'} only, without a pair: fruit/plum, tool/sawx." in notes
    assert f"2 items in {shop / 'pictures'} only, without a pair: fruit/plumx, tool/saw." in notes


def test_flat_folders(tmp_path, write_colors):
    for folder in ("photos", "pictures"):
        write_colors(tmp_path / folder, images=2)
    data = read_pairs(tmp_path / "photos", tmp_path / "pictures")
    assert (data.items.names, len(data)) == (["blue", "green", "red"], 12)


def test_a_file_names_the_images_and_others_are_left_out(shop):
    data = read_pairs(shop, pair_file(shop, items=ITEMS[:3], category=True))
    assert data.items.names == sorted(ITEMS[:3])
    assert data.categories.names == ["fruit", "tool"]
    in_pictures = [path.startswith("pictures") for path in data.paths]
    assert data.gallery.tolist() == in_pictures and sum(in_pictures) == 3
    assert data.notes == (
        "12 pairs: 12 images of the queries' domain and 3 of the gallery's.",
        f"5 images of {shop} left out: not in {shop / 'pairs.csv'}.",
    )


def test_level_makes_categories_where_a_file_has_none(shop):
    file = pair_file(shop)
    assert read_pairs(shop, file).categories is None
    assert read_pairs(shop, file, level=2).categories.names == ["pictures/fruit", "pictures/tool"]


def test_a_query_of_one_line_that_is_found_in_another_is_a_query(shop):
    file = pair_file(shop)
    with file.open("a") as handle:
        handle.write("photos/fruit/lime/1.png,photos/fruit/lime/0.png,fruit/lime\n")
    data = read_pairs(shop, file)
    assert data.gallery.sum() == 4
    assert not data.gallery[data.paths.index("photos/fruit/lime/0.png")]


@pytest.mark.parametrize(
    ("dataset", "pairs", "message"),
    [
        ("photos", "photos", "overlap"),
        (".", "pictures", "overlap"),
        ("photos", ".", "overlap"),
        ("photos", "photos/fruit", "overlap"),
        ("photos/fruit", "pictures/tool", r"no class of .* \(lime, plum\) is in .* \(axe, saw\)"),
    ],
)
def test_folders_that_are_no_pairs(shop, dataset, pairs, message):
    with pytest.raises(InputError, match=message):
        read_pairs(shop / dataset, shop / pairs)


def test_the_gallery_stays_where_a_class_is_limited(shop):
    data = limit_classes(read_pairs(shop / "photos", shop / "pictures"), most=2)
    sizes = np.bincount(2 * data.items.codes + data.gallery)
    assert sizes.tolist() == [2, 1] * 4


# Batches


def test_half_of_the_images_of_a_class_are_of_each_domain():
    # Classes 0 to 3 have 9 and 6, 9 and 1, 1 and 9, 3 and no images of the two domains.
    shares = [(9, 6), (9, 1), (1, 9), (3, 0)]
    labels = np.repeat(range(4), [sum(each) for each in shares])
    gallery = np.concatenate([np.repeat([False, True], each) for each in shares])
    order = np.random.default_rng(0).permutation(len(labels))
    labels, gallery = labels[order], gallery[order]
    batches = ClassBatches(labels, batch_size=16, images_per_class=4, seed=0, gallery=gallery)
    np.testing.assert_array_equal(batches.gallery, gallery)
    seen = set()
    for step in range(100):
        drawn = batches.draw(0, step)
        assert len(set(drawn.tolist())) == len(drawn)
        seen |= set(drawn.tolist())
        counts = np.zeros((4, 2), int)
        np.add.at(counts, (labels[drawn], gallery[drawn].astype(int)), 1)
        assert counts.tolist() == [[2, 2], [3, 1], [1, 3], [3, 0]]
    assert len(seen) == len(labels)


def test_classes_of_a_category_share_a_batch():
    # Ten classes in each of five categories, classes and categories mixed up.
    categories_of = np.random.default_rng(0).permutation(np.repeat(range(5), 10))
    labels = np.repeat(range(50), 3)
    options = {"batch_size": 24, "images_per_class": 2, "seed": 0}
    batches = ClassBatches(labels, **options, categories=categories_of[labels])
    drawn_classes = set()
    for step in range(100):
        classes = labels[batches.draw(0, step)][::2]
        assert len(set(classes.tolist())) == 12
        drawn_classes |= set(classes.tolist())
        sizes = np.bincount(categories_of[classes])
        # Groups of six, cut from a category of ten into 6 and 4: two or three groups fill 12.
        assert sizes[sizes > 0].min() >= 2 and (sizes > 0).sum() <= 4
        assert (sizes > 0).sum() >= 2 or sizes.max() == 10
    assert len(drawn_classes) == 50


# A run


def test_the_run_reads_pairs_and_holds_items_back(shop):
    said = []
    images = read_run_images(config_for(shop, validation_share=0.5), said.append)
    assert said[-1] == "Validation: 10 images of 2 classes held back."
    held, trained = (set(each.items.of_images()) for each in (images.validated, images.trained))
    assert len(held) == len(trained) == 2 and not held & trained
    assert images.validated.gallery.sum() == images.trained.gallery.sum() == 2
    source = image_source(config_for(shop), read_run_images(config_for(shop)))
    assert (~source.batches.gallery).sum() == 16


def test_validation_searches_the_gallery_with_the_queries(shop):
    config = config_for(shop)
    images = read_run_images(config_for(shop, validation_share=0.5))
    validation = make_validation(config, images)
    # All queries lie with the other item's picture: among themselves they would be perfect.
    gallery, codes = images.validated.gallery, images.validated.items.codes
    places = np.unique(codes, return_inverse=True)[1]
    rows = np.eye(2, dtype=np.float32)[np.where(gallery, 1 - places, places)]
    found, _ = validation.measure(rows)
    assert found["val_recall_at_1"] == found["val_similarity_precision"] == 0
    found, _ = validation.measure(np.eye(2, dtype=np.float32)[places])
    assert found["val_recall_at_1"] == found["val_similarity_precision"] == 1


@pytest.mark.usefixtures("thin_vgg16")
def test_the_embedding_starts_from_the_queries_alone(shop, monkeypatch, capsys):
    sources = []
    monkeypatch.setattr(TrainingRun, "train_epoch", lambda run, _: sources.append(run.source))
    monkeypatch.setattr(TrainingRun, "is_over", property(lambda _: bool(sources)))
    argv = (
        f"--dataset {shop / 'photos'} --pairs {shop / 'pictures'} --output {shop / 'm.h5'} "
        "--batches classes --batch_size 8 --images_per_class 2 --image_size 32 --weights none "
        "--hidden_layers 0 --multiscale none --embedding_size 4 --embedding_start whitened "
        "--cache_features --train_from head --no-augment --epochs 1"
    )
    with training_stubs():
        assert run_command("train", argv.split()) == 0, capsys.readouterr().err
    assert "starts whitened, from 16 images" in capsys.readouterr().out
    assert isinstance(sources[0], FeatureSource)


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batches": "triplets", "batch_size": 9}, "pairs needs batches of classes"),
        ({"classes": "c.csv"}, "give pairs or classes, not both"),
        ({"splits": True}, "give pairs or splits, not both"),
        ({"split": "train"}, "give pairs or split, not both"),
        ({"validation_split": "val"}, "give pairs or validation_split, not both"),
        ({"pairs": None, "level": 1}, "level needs --strategy, .*, or --pairs"),
    ],
)
def test_settings_that_do_not_go_with_pairs(shop, changes, message):
    with pytest.raises(InputError, match=message):
        config_for(shop, **changes)


def test_flags_of_folders_have_no_effect_with_a_file(shop, capsys):
    file = pair_file(shop)
    with pytest.raises(InputError, match="label has no effect"):
        read_run_images(config_for(shop, dataset=shop, pairs=file, label="parent"))
    argv = ["--batches", "classes", "--dataset", str(shop), "--pairs", str(file)]
    for flags in (["--label", "parent"], ["--by_content"]):
        with pytest.raises(SystemExit):
            run_command("train", [*argv, *flags])
        message = f"{flags[0]} has no effect with a file in --pairs, which names each image's item"
        assert message in capsys.readouterr().err


def test_a_missing_pair_file_is_what_is_said(shop):
    with pytest.raises(InputError, match=r"none\.csv: no such table file"):
        read_pairs(shop, shop / "none.csv", label="parent")
