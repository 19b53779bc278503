import numpy as np
import pytest

from deep_ranking.config import TrainConfig
from deep_ranking.files import InputError
from deep_ranking.training.data import read_run_images


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Ten classes of 3 to 12 images."""
    root = tmp_path_factory.mktemp("folders")
    for number in range(10):
        for image in range(3 + number):
            path = root / f"class {number}" / f"{image:02}.png"
            path.parent.mkdir(exist_ok=True)
            path.touch()
    return root


def config(dataset, **options):
    return TrainConfig(batches="classes", dataset=dataset, **options)


def paths_and_classes(data):
    return ([], []) if data is None else (data.files(), data.classes_of_images())


def trained_on(config):
    return paths_and_classes(read_run_images(config).trained)


def held_back(config):
    return paths_and_classes(read_run_images(config).validated)


def test_all_images_train_where_nothing_is_held_back(folders):
    paths, labels = trained_on(config(folders))
    assert paths == sorted(str(path) for path in folders.glob("*/*.png"))
    assert labels.tolist() == [path.split("/")[-2] for path in paths]
    assert held_back(config(folders))[0] == []


@pytest.mark.parametrize("share", [0.01, 0.3, 0.8])
def test_whole_classes_are_held_back(folders, share):
    splits = []
    for seed in (0, 1, 7):
        settings = config(folders, validation_share=share, seed=seed)
        kept, held = trained_on(settings), held_back(settings)
        for paths, labels in (kept, held):
            assert labels.tolist() == [path.split("/")[-2] for path in paths]
        assert not set(kept[1]) & set(held[1])
        assert len(set(held[1])) == max(2, round(share * 10))
        assert sorted([*kept[0], *held[0]]) == sorted(map(str, folders.glob("*/*.png")))
        splits.append((kept[0], held[0]))
    assert splits[0] == splits[1] == splits[2]


def test_too_few_classes_to_hold_some_back(folders):
    for images in (trained_on, held_back):
        with pytest.raises(InputError, match="too few to hold 9 back"):
            images(config(folders, validation_share=0.9))


@pytest.mark.parametrize("most", [2, 5, 7, 12])
def test_some_images_of_each_class_spread_over_its_list(folders, most):
    paths, labels = trained_on(config(folders, max_images_per_class=most))
    assert labels.tolist() == [path.split("/")[-2] for path in paths]
    for number in range(10):
        name, size = f"class {number}", 3 + number
        numbers = [int(path[-6:-4]) for path in np.array(paths)[labels == name].tolist()]
        assert len(numbers) == min(most, size)
        # One in each of as many parts of the list, so that steps differ by one at most.
        steps = np.diff([*numbers, size])
        assert numbers[0] == 0
        assert set(steps) <= {size // len(numbers), -(-size // len(numbers))}


def test_images_held_back_are_not_thinned_out(folders):
    options = {"validation_share": 0.3}
    whole = held_back(config(folders, **options))
    thinned = config(folders, max_images_per_class=2, **options)
    assert held_back(thinned)[0] == whole[0]
    assert set(trained_on(thinned)[1]) == set(trained_on(config(folders, **options))[1])
