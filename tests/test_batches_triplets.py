import os
import subprocess
import sys
import threading
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deep_ranking.datasets import read_folder
from deep_ranking.embedding.batches import ImageSource
from deep_ranking.files import InputError
from deep_ranking.images import read_image
from deep_ranking.images.augmentation import Augmentation
from deep_ranking.sampling import sample_triplets
from deep_ranking.sampling.triplet_file import read_triplets, write_triplets
from deep_ranking.training.batches import FileTriplets, TripletSource, triplet_dataset

NUM_COLORS = 30
SIZE = 8


def color(number):
    """A color for each number; what augmentation does to an image of one color is nothing."""
    return (8 * number, 255 - 5 * number, (number * 77) % 256)


NUMBERS = {color(number): number for number in range(NUM_COLORS)}


@pytest.fixture(scope="module")
def colors(tmp_path_factory):
    """Folder of images of one color each: 0.png, 1.png and so on."""
    folder = tmp_path_factory.mktemp("colors")
    for number in range(NUM_COLORS):
        Image.new("RGB", (10, 6), color(number)).save(folder / f"{number}.png")
    return folder


def write(folder, rows, name="triplets.txt"):
    path = folder / name
    path.write_text("".join(f"{q}.png,{p}.png,{n}.png\n" for q, p, n in rows))
    return path


def some_triplets(count):
    """Triplets that each start with a number of their own."""
    rng = np.random.default_rng(0)
    return [(number, *rng.integers(0, NUM_COLORS, 2).tolist()) for number in range(count)]


def number_of(image):
    """Which of the colored images this is; it must be of that color all over."""
    flat = image.reshape(-1, 3)
    assert (flat == flat[0]).all()
    return NUMBERS[tuple(flat[0].astype(int).tolist())]


def triplets_in(dataset):
    """The batches as lists of triplets of numbers."""
    batches = []
    for images, roles in dataset:
        numbers = [number_of(image) for image in images.numpy()]
        wanted = [0, 1, 2] * (len(numbers) // 3)
        if roles.ndim == 2:  # as `triplet_dataset` has them
            wanted = np.eye(3)[wanted].tolist()
        assert roles.numpy().tolist() == wanted
        assert len(numbers) % 3 == 0
        batches.append([tuple(numbers[row : row + 3]) for row in range(0, len(numbers), 3)])
    return batches


def flat(batches):
    return [triplet for batch in batches for triplet in batch]


def source(path, **options):
    options = {"image_size": SIZE, "batch_size": 6} | options
    return TripletSource(FileTriplets(read_triplets(path)), **options)


# Rows and batches


def test_rows_are_query_positive_and_negative_in_turn(colors):
    path = write(colors, [(1, 2, 3), (4, 5, 6), (7, 8, 9)])
    dataset = triplet_dataset(path, image_size=SIZE, batch_size=6, shuffle=False)
    assert triplets_in(dataset) == [[(1, 2, 3), (4, 5, 6)], [(7, 8, 9)]]


def test_kind_of_the_batches(colors):
    path = write(colors, some_triplets(3))
    images, roles = triplet_dataset(path, image_size=SIZE, batch_size=6).element_spec
    assert (images.dtype, images.shape.as_list()) == (tf.float32, [None, SIZE, SIZE, 3])
    assert (roles.dtype, roles.shape.as_list()) == (tf.int32, [None, 3])
    roles = source(path).dataset(0).element_spec[1]
    assert (roles.dtype, roles.shape.as_list()) == (tf.int32, [None])


@pytest.mark.parametrize("batch_size", [3, 6, 24])
@pytest.mark.parametrize("count", [1, 2, 7, 8, 9])
def test_any_number_of_triplets_makes_batches_with_a_short_last(colors, count, batch_size):
    rows = some_triplets(count)
    path = write(colors, rows)
    batches = triplets_in(
        triplet_dataset(path, image_size=SIZE, batch_size=batch_size, shuffle=False)
    )
    per_batch = batch_size // 3
    assert batches == [rows[begin : begin + per_batch] for begin in range(0, count, per_batch)]
    assert source(path, batch_size=batch_size).num_batches == len(batches)


@pytest.mark.parametrize("augmentation", [None, Augmentation(shift=3, random_crop=0.7)])
def test_shuffling_moves_triplets_and_never_images(colors, augmentation):
    rows = some_triplets(20)
    path = write(colors, rows)
    order = flat(
        triplets_in(triplet_dataset(path, image_size=SIZE, batch_size=9, augmentation=augmentation))
    )
    assert sorted(order) == sorted(rows)
    assert order != rows


def test_order_depends_on_seed_and_epoch_alone(colors):
    path = write(colors, some_triplets(20))
    first = source(path, seed=3)
    orders = [flat(triplets_in(first.dataset(epoch))) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    # Another object, a later epoch at once, another batch size: the same order.
    for batch_size in (6, 15):
        again = source(path, seed=3, batch_size=batch_size)
        assert flat(triplets_in(again.dataset(2))) == orders[2]
        assert flat(triplets_in(again.dataset(0))) == orders[0]
    options = {"image_size": SIZE, "batch_size": 6, "seed": 3, "epoch": 1}
    assert flat(triplets_in(triplet_dataset(path, **options))) == orders[1]
    assert flat(triplets_in(source(path, seed=4).dataset(0))) != orders[0]


def test_dataset_can_be_gone_through_again(colors):
    dataset = source(write(colors, some_triplets(7))).dataset(0)
    assert triplets_in(dataset) == triplets_in(dataset)


def test_every_triplet_is_as_likely_to_come_first(colors):
    walk = source(write(colors, some_triplets(4)), batch_size=12, steps_per_epoch=60)
    first = Counter(batch[0][0] for batch in triplets_in(walk.dataset(0)))
    # 60 passes over 4 triplets: 15 each, with a standard deviation of 3.4.
    assert sorted(first) == [0, 1, 2, 3]
    assert all(3 <= count <= 27 for count in first.values())


# Steps per epoch


@pytest.mark.parametrize(("steps", "shuffle"), [(3, True), (9, True), (3, False)])
def test_steps_walk_through_all_triplets_equally_often(colors, steps, shuffle):
    rows = some_triplets(7)
    walk = source(write(colors, rows), steps_per_epoch=steps, shuffle=shuffle)
    assert walk.num_batches == steps
    epochs = [triplets_in(walk.dataset(epoch)) for epoch in range(7)]
    assert all(len(batch) == 2 for epoch in epochs for batch in epoch)
    assert all(len(epoch) == steps for epoch in epochs)
    order = [triplet for epoch in epochs for triplet in flat(epoch)]
    passes = [order[begin : begin + 7] for begin in range(0, len(order), 7)]
    assert len(passes) == 2 * steps
    for each in passes:  # one whole pass over the file after the other
        assert sorted(each) == rows
    if not shuffle:
        assert all(each == rows for each in passes)
    else:
        assert len({tuple(each) for each in passes}) > 1
    assert triplets_in(walk.dataset(5)) == epochs[5]  # as when a run goes on there


def test_more_steps_than_one_pass_has(colors):
    rows = some_triplets(2)
    walk = source(write(colors, rows), steps_per_epoch=5, shuffle=False)
    assert triplets_in(walk.dataset(0)) == [rows] * 5


# Pixels


@pytest.fixture(scope="module")
def tree_triplets(image_tree, tmp_path_factory):
    """Triplet file of conftest's tree, with a photograph-sized JPEG more than it has."""
    data = read_folder(image_tree)
    folder = tmp_path_factory.mktemp("tree_triplets")
    large = np.random.default_rng(0).integers(0, 256, (90, 140, 3), np.uint8)
    Image.fromarray(large).save(folder / "large.jpg")
    paths = [*(str(image_tree / path) for path in data.paths), "large.jpg"]
    blocks = [*sample_triplets(data.items.codes, num_positives=1, num_negatives=1, seed=0)]
    blocks.append(np.array([[len(paths) - 1, 0, 1]]))
    write_triplets(folder / "triplets.txt", paths, blocks)
    return folder / "triplets.txt"


def test_without_augmentation_pixels_are_those_of_read_image(tree_triplets):
    triplets = read_triplets(tree_triplets)
    dataset = triplet_dataset(tree_triplets, image_size=20, batch_size=6, shuffle=False)
    images = np.concatenate([images.numpy() for images, _ in dataset])
    assert images.dtype == np.float32
    assert len(images) == triplets.rows.size
    for image, index in zip(images, triplets.rows.ravel(), strict=True):
        path = tree_triplets.parent / triplets.paths[index]
        np.testing.assert_array_equal(image, read_image(path, 20).astype(np.float32))


def pixels_of(path, epoch=0, **options):
    options = {"image_size": 20, "batch_size": 6, "augmentation": Augmentation()} | options
    walk = TripletSource(FileTriplets(read_triplets(path)), **options)
    return np.concatenate([images.numpy() for images, _ in walk.dataset(epoch)])


def test_same_seed_and_epoch_same_bytes(tree_triplets):
    first = pixels_of(tree_triplets, seed=1)
    np.testing.assert_array_equal(pixels_of(tree_triplets, seed=1), first)
    np.testing.assert_array_equal(pixels_of(tree_triplets, seed=1, batch_size=9), first)
    assert not np.array_equal(pixels_of(tree_triplets, seed=2), first)
    assert not np.array_equal(pixels_of(tree_triplets, seed=1, epoch=1), first)


def test_augmentation_is_another_in_each_epoch_and_for_each_seed(tree_triplets):
    plain = pixels_of(tree_triplets, shuffle=False, augmentation=None)
    first = pixels_of(tree_triplets, shuffle=False)
    later = pixels_of(tree_triplets, epoch=1, shuffle=False)
    other = pixels_of(tree_triplets, seed=1, shuffle=False)
    for images in zip(plain, first, later, other, strict=True):
        assert len({image.tobytes() for image in images}) == 4


def test_each_image_of_a_triplet_has_its_own_draw(tree_triplets, tmp_path):
    path = tmp_path / "triplets.txt"
    image = tree_triplets.parent / "large.jpg"
    write_triplets(path, [str(image)], [np.zeros((4, 3), int)])
    images = pixels_of(path)
    assert len({image.tobytes() for image in images}) == 12


def test_flips_alone_are_numpys(tree_triplets):
    flips = Augmentation(rotation=0, zoom=0, shear=0)
    flipped = pixels_of(tree_triplets, augmentation=flips, shuffle=False)
    plain = pixels_of(tree_triplets, augmentation=None, shuffle=False)
    seen = Counter()
    for one, image in zip(flipped, plain, strict=True):
        flips = {axes: np.flip(image, axes) for axes in ((), (0,), (1,), (0, 1))}
        # Halves between pixels may be rounded the other way.
        (axes,) = [axes for axes, each in flips.items() if np.abs(one - each).max() <= 1]
        seen[axes] += 1
    assert len(seen) == 4


def test_grayscale_alone_is_luma_of_a_share_of_the_images(tree_triplets):
    colors = {"horizontal_flip": False, "vertical_flip": False, "rotation": 0, "zoom": 0}
    some = Augmentation(**colors, shear=0, grayscale=0.5)
    changed = pixels_of(tree_triplets, augmentation=some, shuffle=False)
    plain = pixels_of(tree_triplets, augmentation=None, shuffle=False)
    gray = 0
    for one, image in zip(changed, plain, strict=True):
        if not np.array_equal(one, image):
            luma = image @ [0.299, 0.587, 0.114]
            assert np.abs(one - luma[:, :, None]).max() <= 0.51
            gray += 1
    assert 0 < gray < len(plain)


def test_shift_alone_moves_and_repeats_the_border(tree_triplets):
    """A ramp from left to right, shifted by up to 3 pixels: the same ramp, cut off at its ends."""
    path = tree_triplets.parent / "ramp.txt"
    ramp = np.tile(np.arange(20, dtype=np.uint8) * 10, (20, 1))
    Image.fromarray(ramp).save(path.with_suffix(".png"))
    write_triplets(path, ["ramp.png"], [np.zeros((4, 3), int)])
    shift = Augmentation(
        horizontal_flip=False, vertical_flip=False, rotation=0, zoom=0, shear=0, shift=3
    )
    moves = set()
    for image in pixels_of(path, augmentation=shift):
        assert (image == image[0, :, :1]).all()  # rows and channels alike
        row = image[0, :, 0]
        move = row[10] - 100
        assert abs(move) <= 30
        assert np.abs(row - np.clip(ramp[0] + move, 0, 190)).max() <= 1
        moves.add(float(move))
    assert len(moves) > 6


# What the network sees, saved


@pytest.mark.parametrize("batch_size", [3, 12])
def test_saved_images_are_those_of_the_batches(tree_triplets, tmp_path, batch_size):
    folder = tmp_path / "new" / "folder"
    images = pixels_of(tree_triplets, batch_size=batch_size, save_dir=folder)
    names = [
        f"{number:04}_{role}.png"
        for number in range(1, len(images) // 3 + 1)
        for role in ("query", "positive", "negative")
    ]
    assert sorted(os.listdir(folder)) == sorted(names)
    for name, image in zip(names, images, strict=True):
        np.testing.assert_array_equal(np.array(Image.open(folder / name)), image)


def test_only_the_first_triplets_are_saved(colors, tmp_path, monkeypatch):
    monkeypatch.setattr("deep_ranking.training.batches.triplets.NUM_SAVED_TRIPLETS", 3)
    walk = source(write(colors, some_triplets(8)), save_dir=tmp_path)
    shown = flat(triplets_in(walk.dataset(0)))[:3]
    saved = [
        tuple(
            number_of(np.array(Image.open(tmp_path / f"{position:04}_{role}.png")))
            for role in ("query", "positive", "negative")
        )
        for position in (1, 2, 3)
    ]
    assert saved == shown
    assert len(os.listdir(tmp_path)) == 9


def test_folder_to_save_to_that_cannot_be_made(colors, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make this folder"):
        source(write(colors, some_triplets(1)), save_dir=tmp_path / "file")


# Paths


def test_where_the_images_are_looked_for(tmp_path, monkeypatch):
    folders = [tmp_path / name for name in ("dataset", "file", "working")]
    for number, folder in enumerate(folders):
        folder.mkdir()
        Image.new("RGB", (4, 4), color(number)).save(folder / "x.png")
    dataset, file, working = folders
    monkeypatch.chdir(working)
    path = file / "triplets.txt"
    path.write_text("x.png,x.png,x.png\n")
    options = {"image_size": SIZE, "batch_size": 3}
    assert triplets_in(triplet_dataset(path, dataset_dir=dataset, **options)) == [[(0, 0, 0)]]
    assert triplets_in(triplet_dataset(path, **options)) == [[(1, 1, 1)]]
    (dataset / "x.png").unlink()
    assert triplets_in(triplet_dataset(path, dataset_dir=dataset, **options)) == [[(1, 1, 1)]]
    (file / "x.png").unlink()
    assert triplets_in(triplet_dataset(path, dataset_dir=dataset, **options)) == [[(2, 2, 2)]]
    (working / "x.png").unlink()
    with pytest.raises(InputError, match=r"triplets\.txt:1: image x\.png not found"):
        triplet_dataset(path, dataset_dir=dataset, **options)


# Bad input


@pytest.mark.parametrize("batch_size", [25, 4, 2, 1, 0, -3])
def test_batch_that_is_no_multiple_of_3(colors, batch_size):
    with pytest.raises(InputError, match=f"multiple of 3.*Received: {batch_size}$"):
        triplet_dataset(write(colors, some_triplets(1)), batch_size=batch_size)


@pytest.fixture
def broken(colors, tmp_path):
    """A folder like `colors`, where 20.png is no image and 21.png is missing."""
    for path in colors.glob("*.png"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "20.png").write_text("no image")
    (tmp_path / "21.png").unlink()
    return tmp_path


ROWS = [(0, 1, 2), (3, 20, 4), (5, 6, 7), (8, 9, 20), (10, 11, 12), (20, 13, 14)]


def test_broken_image_stops_with_the_triplets_line(broken):
    path = write(broken, [*ROWS[:3], (10, 11, 12)])
    walk = source(path, shuffle=False)
    with pytest.raises(InputError) as caught, walk.raising_image_errors():
        list(walk.dataset(0))
    message = str(caught.value)
    assert message.startswith(f"{path}:2: {broken / '20.png'}: not an image")
    assert "--skip_broken" in message
    assert "\n" not in message
    with pytest.raises(tf.errors.OpError) as caught:
        list(triplet_dataset(path, image_size=SIZE, batch_size=6, shuffle=False))
    assert message in str(caught.value)


def test_line_is_that_of_the_file_when_shuffled(broken):
    path = write(broken, [*[(0, 1, 2)] * 12, (20, 1, 2), *[(3, 4, 5)] * 7])
    walk = source(path)
    with (
        pytest.raises(InputError, match=r"triplets\.txt:13: .*20\.png"),
        walk.raising_image_errors(),
    ):
        list(walk.dataset(0))


def test_batches_before_the_broken_one_arrive(broken):
    walk = source(write(broken, [(0, 1, 2), (3, 4, 5), (6, 7, 20)]), shuffle=False, batch_size=3)
    seen = []
    with pytest.raises(InputError), walk.raising_image_errors():
        for images, _ in walk.dataset(0):
            seen.append(number_of(images.numpy()[0]))
    assert seen == [0, 3]


def test_first_of_many_broken_images_is_named(broken):
    walk = source(write(broken, [ROWS[0], *[ROWS[1]] * 8]), shuffle=False, batch_size=3)
    batches = iter(walk.dataset(0))
    next(batches)
    threading.Event().wait(0.2)  # meanwhile other threads meet later ones
    with pytest.raises(InputError, match=r"triplets\.txt:2: "), walk.raising_image_errors():
        next(batches)


def test_missing_image_is_found_before_the_first_batch(broken):
    path = write(broken, [(0, 1, 2), (3, 4, 5), (6, 21, 7)])
    with pytest.raises(InputError) as caught:
        source(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:3: {broken / '21.png'}: no such image")
    assert "--skip_broken" in message


def test_skip_broken_drops_the_triplets_and_counts_them(broken):
    rows = [*ROWS, (21, 0, 1), (15, 16, 21), (17, 18, 19)]
    walk = source(write(broken, rows), skip_broken=True, shuffle=False, batch_size=12)
    for epoch in range(2):
        assert triplets_in(walk.dataset(epoch)) == [
            [(0, 1, 2), (5, 6, 7)],
            [(10, 11, 12)],
            [(17, 18, 19)],
        ]
        assert walk.broken == {1, 3, 5, 6, 7}


def test_batch_of_which_nothing_is_left_takes_the_next_whole_triplet(broken):
    whole = [(0, 1, 2), (3, 4, 5)]
    rows = [ROWS[1], ROWS[3], whole[0], ROWS[5], whole[1], ROWS[1], ROWS[3], ROWS[5]]
    walk = source(write(broken, rows), skip_broken=True, shuffle=False)
    # Batches of two. Nothing follows the last one: it goes on from the start.
    assert triplets_in(walk.dataset(0)) == [[whole[0]], [whole[0]], [whole[1]], [whole[0]]]
    assert walk.broken == {0, 1, 3, 5, 6, 7}


def test_skip_broken_where_every_triplet_has_a_broken_image(broken):
    walk = source(write(broken, [ROWS[1], ROWS[3], ROWS[5]]), skip_broken=True)
    with pytest.raises(InputError, match="missing or broken image"), walk.raising_image_errors():
        list(walk.dataset(0))


def test_skip_broken_where_the_first_image_is_missing(broken):
    rows = [(21, 0, 1), (2, 3, 4), (5, 6, 7)]
    walk = source(write(broken, rows), skip_broken=True, shuffle=False)
    assert flat(triplets_in(walk.dataset(0))) == rows[1:]
    assert walk.broken == {0}


def test_skip_broken_where_every_triplet_has_a_missing_image(broken):
    with pytest.raises(InputError, match="every triplet has a missing image"):
        source(write(broken, [(0, 1, 21), (2, 21, 3)]), skip_broken=True)


def test_other_errors_are_not_explained_away(colors):
    walk = source(write(colors, some_triplets(1)))
    with pytest.raises(tf.errors.NotFoundError), walk.raising_image_errors():
        raise tf.errors.NotFoundError(None, None, "something else")


# Images by path


def test_images_by_path_in_order_with_a_short_last_batch(colors):
    paths = [colors / f"{number}.png" for number in (4, 9, 2, 7, 5)]
    batches = list(ImageSource(paths, image_size=SIZE, batch_size=2).dataset())
    assert [len(batch) for batch in batches] == [2, 2, 1]
    images = np.concatenate(batches)
    assert images.dtype == np.float32
    assert [number_of(image) for image in images] == [4, 9, 2, 7, 5]
    for image, path in zip(images, paths, strict=True):
        np.testing.assert_array_equal(image, read_image(path, SIZE))


def test_broken_image_by_path(broken):
    images = ImageSource([broken / "1.png", broken / "20.png"], image_size=SIZE, batch_size=1)
    with pytest.raises(InputError, match=r"20\.png: not an image"), images.raising_image_errors():
        list(images.dataset())


def test_skip_broken_by_path_gives_black_and_remembers(broken):
    paths = [broken / name for name in ("1.png", "20.png", "2.png", "21.png")]
    source = ImageSource(paths, image_size=SIZE, batch_size=3, skip_broken=True)
    images = np.concatenate(list(source.dataset()))
    assert source.broken == {1, 3}
    assert [number_of(image) for image in images[[0, 2]]] == [1, 2]
    assert not images[[1, 3]].any()


# Interruption


def test_interrupted_iteration_does_not_hang(colors):
    walk = source(write(colors, some_triplets(20)), batch_size=3, steps_per_epoch=10_000)
    done = []

    def interrupt():
        for _ in range(3):
            for number, _ in enumerate(walk.dataset(0)):
                if number == 2:
                    break
            done.append(number)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    thread.join(timeout=20)
    assert done == [2, 2, 2]


@pytest.mark.slow
def test_program_that_ends_amid_an_epoch_does_not_hang(colors):
    path = write(colors, some_triplets(20))
    program = """if True:
        import sys
        from deep_ranking.training.batches import FileTriplets, TripletSource
        from deep_ranking.sampling.triplet_file import read_triplets
        walk = TripletSource(
            FileTriplets(read_triplets(sys.argv[1])),
            image_size=224,
            batch_size=3,
            steps_per_epoch=10_000,
        )
        batches = iter(walk.dataset(0))
        next(batches)
        print("one batch")
    """
    done = subprocess.run(
        [sys.executable, "-c", program, path],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "one batch\n"
