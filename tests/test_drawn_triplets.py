import os
from dataclasses import replace
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from stopped_runs import history_of, interrupted

from deep_ranking.cli.main import run_command
from deep_ranking.config import NetworkConfig, SamplingConfig, TrainConfig
from deep_ranking.datasets import LabelledImages, Labels
from deep_ranking.embedding.embed import embed_images
from deep_ranking.files import InputError
from deep_ranking.images import read_image
from deep_ranking.sampling import make_strategy
from deep_ranking.training.batches import DrawnTriplets
from deep_ranking.training.data import epoch_triplets, image_source
from deep_ranking.training.resuming import RunState
from deep_ranking.training.run import TrainingRun, train

SIZE = 32
SMALL = NetworkConfig(image_size=SIZE, weights=None, embedding_size=4, dropout=0.2)
NUM_CLASSES, NUM_EACH = 6, 4
NUM_IMAGES = NUM_CLASSES * NUM_EACH
CLASSES = np.repeat(np.arange(NUM_CLASSES), NUM_EACH)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two categories of three items of four images, each unlike the others."""
    root = tmp_path_factory.mktemp("drawn") / "images"
    rng = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        path = root / f"category{number // 12}" / f"item{number // 4}" / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (2, 2, 3), dtype=np.uint8)
        Image.fromarray(pixels.repeat(16, axis=0).repeat(16, axis=1)).save(path)
    return root


@pytest.fixture(scope="module")
def flat(folder, tmp_path_factory):
    """The same images, a folder for each item."""
    root = tmp_path_factory.mktemp("flat") / "images"
    for path in sorted(folder.rglob("*.png")):
        (root / path.parent.name).mkdir(parents=True, exist_ok=True)
        os.link(path, root / path.parent.name / path.name)
    return root


def config_for(dataset, output, strategy, changes=(), **sampling):
    sampling = {"num_pos_images": 1, "num_neg_images": 2} | sampling
    settings = {
        "dataset": dataset,
        "output": output,
        "sampling": SamplingConfig(strategy=strategy, **sampling),
        "network": SMALL,
        "batch_size": 6,
        "epochs": 3,
        "learning_rate": 0.1,
        "seed": 7,
    }
    if strategy == "relevance":
        settings["relevance"] = "tree"
    return TrainConfig(**(settings | dict(changes)))


def triplets_in(source, epoch):
    """The triplets of an epoch, told from the pixels of its batches."""
    pixels = [read_image(path, SIZE).astype(np.float32).tobytes() for path in source.paths]
    number_of = {each: number for number, each in enumerate(pixels)}
    images = [image for batch, _ in source.dataset(epoch) for image in batch.numpy()]
    return np.array([number_of[image.tobytes()] for image in images]).reshape(-1, 3)


def source_for(dataset, tmp_path, strategy, changes=(), **sampling):
    changes = {"augmentation": None} | dict(changes)
    return image_source(config_for(dataset, tmp_path / "m.h5", strategy, changes, **sampling))


# Batches


def test_an_epoch_is_a_pass_of_the_strategy(flat, tmp_path):
    source = source_for(flat, tmp_path, "out-of-class")
    config = SamplingConfig(num_pos_images=1, num_neg_images=2)
    strategy = make_strategy(config, CLASSES)
    assert source.num_batches == 24  # 48 triplets, 2 a batch
    assert source.description == "24 images of 6 classes, strategy out-of-class"
    for epoch in (2, 0):
        wanted = np.concatenate([*strategy.triplets(7, epoch, shuffle=True)])
        np.testing.assert_array_equal(triplets_in(source, epoch), wanted)
    in_order = source_for(flat, tmp_path, "out-of-class", {"shuffle": False})
    wanted = np.concatenate([*strategy.triplets(7, 1)])
    np.testing.assert_array_equal(triplets_in(in_order, 1), wanted)


@pytest.mark.slow
def test_steps_go_on_through_the_endless_stream(flat, tmp_path):
    source = source_for(flat, tmp_path, "out-of-class", {"steps_per_epoch": 35})
    strategy = make_strategy(SamplingConfig(num_pos_images=1, num_neg_images=2), CLASSES)
    stream = np.concatenate([*islice(strategy.stream(7), 6)])  # 48 triplets a block
    epochs = [triplets_in(source, epoch) for epoch in range(4)]
    np.testing.assert_array_equal(np.concatenate(epochs), stream[:280])
    again = source_for(flat, tmp_path, "out-of-class", {"steps_per_epoch": 35})
    for epoch in (2, 0):  # at once, as when a run goes on there; and back
        np.testing.assert_array_equal(triplets_in(again, epoch), epochs[epoch])


@pytest.mark.parametrize("steps", [None, 5])
def test_triplets_stay_until_others_are_drawn(flat, tmp_path, steps):
    changes = {"resample_every": 2, "steps_per_epoch": steps}
    source = source_for(flat, tmp_path, "out-of-class", changes)
    first, again, other = (triplets_in(source, epoch) for epoch in range(3))
    assert sorted(map(tuple, first)) == sorted(map(tuple, again))
    assert not np.array_equal(first, again)
    assert sorted(map(tuple, first)) != sorted(map(tuple, other))
    anew = source_for(flat, tmp_path, "out-of-class", changes)
    np.testing.assert_array_equal(triplets_in(anew, 1), again)


def test_negatives_in_class_are_other_items_of_the_category(folder, tmp_path):
    source = source_for(folder, tmp_path, "in-class")
    query, positive, negative = triplets_in(source, 0).T
    assert len(query) == 48
    assert (CLASSES[query] == CLASSES[positive]).all() and (query != positive).all()
    assert (CLASSES[query] != CLASSES[negative]).all()
    assert (query // 12 == negative // 12).all()
    assert "6 items in 2 categories" in source.description
    with pytest.raises(InputError, match="no category has two items"):
        source_for(folder, tmp_path, "in-class", {"level": 2})


def test_relevance_by_the_folders(folder, tmp_path):
    source = source_for(folder, tmp_path, "relevance", out_of_class_share=0.0)
    query, positive, negative = triplets_in(source, 0).T
    # Of one category, 1 in the same folder and 1/2 in another one: only that order leaves a gap.
    assert len(query) == 48
    assert (CLASSES[query] == CLASSES[positive]).all()
    assert (CLASSES[query] != CLASSES[negative]).all() and (query // 12 == negative // 12).all()


def test_relevance_of_pixels_passes_over_broken_images(tmp_path, write_colors):
    root = tmp_path / "images"
    write_colors(root)
    (root / "green" / "1.png").write_bytes(b"no image")
    changes = {"relevance": "features"}
    config = config_for(root, tmp_path / "m.h5", "relevance", changes, out_of_class_share=1.0)
    with pytest.raises(InputError, match=r"green/1\.png"):
        epoch_triplets(config)
    triplets = epoch_triplets(replace(config, skip_broken=True))
    first, other = (
        triplets.of_epoch(epoch, count=None, seed=0, shuffle=True).rows for epoch in (0, 1)
    )
    broken = [path.endswith("green/1.png") for path in triplets.paths].index(True)
    assert len(first) == 24 and not np.array_equal(first, other)
    assert broken not in first[:, :2]  # relevant to nothing: a negative at most


def test_neighbours_of_a_file_that_is_not_there(flat, tmp_path):
    config = config_for(flat, tmp_path / "m.h5", "hard", {"neighbours_of": tmp_path / "none.h5"})
    with pytest.raises(InputError, match=r"none\.h5: no such file; check --neighbours_of"):
        epoch_triplets(config)


def test_classes_can_be_limited_and_held_back(flat, tmp_path):
    source = source_for(flat, tmp_path, "out-of-class", {"validation_share": 0.34})
    assert source.description.startswith("16 images of 4 classes")
    source = source_for(flat, tmp_path, "out-of-class", {"max_images_per_class": 3})
    assert source.description.startswith("18 images of 6 classes")


# Training


def weights_of(model):
    return np.concatenate([weight.numpy().ravel() for weight in model.weights])


@pytest.mark.slow
@pytest.mark.usefixtures("stub_network")
@pytest.mark.parametrize(
    "case",
    [
        ("hard", 1, {"resample_every": 2, "steps_per_epoch": 5}),
        ("hard", 2, {"resample_every": 2}),
        ("out-of-class", 1, {"steps_per_epoch": 5}),
    ],
)
def test_a_stopped_run_goes_on_to_the_same_result(flat, tmp_path, monkeypatch, case):
    strategy, after, changes = case

    def config(name):
        return config_for(flat, tmp_path / name, strategy, changes, num_neighbours=3)

    undisturbed = train(config("whole.h5"), verbose=0)
    interrupted(config("m.h5"), monkeypatch, after)
    resumed = train(config("m.h5"), resume=True, verbose=0)
    np.testing.assert_array_equal(weights_of(resumed), weights_of(undisturbed))
    assert history_of(config("m.h5")) == history_of(config("whole.h5"))


def nearest_by_hand(rows, count):
    """For each image the set of the nearest of other classes."""
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    distances[CLASSES[:, None] == CLASSES] = np.inf
    return [set(order[:count].tolist()) for order in np.argsort(distances, axis=1)]


def watched(config, monkeypatch, **options):
    """Train; give for each epoch the network's embeddings before it, and its triplets."""
    seen = []
    whole = TrainingRun.train_epoch

    def train_epoch(run, verbose):
        rows = embed_images(run.trainer.model, run.source.paths)
        epoch = run.state.num_epochs
        whole(run, verbose)
        seen.append((rows, triplets_of(run.source, epoch)))

    def triplets_of(source, epoch):
        found = source._of_epoch(epoch)
        return found.rows[found.order]

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "train_epoch", train_epoch)
        train(config, verbose=0, **options)
    return seen


def assert_negatives_are_near(triplets, near):
    assert all(negative in near[query] for query, _, negative in triplets.tolist())
    assert len(triplets) == 48


@pytest.mark.slow
@pytest.mark.usefixtures("stub_network")
def test_hard_negatives_are_the_nearest_by_the_network_as_it_is(flat, tmp_path, monkeypatch):
    changes = {"resample_every": 2, "learning_rate": 1.0, "batch_size": 24}
    config = config_for(flat, tmp_path / "m.h5", "hard", changes, num_neighbours=3)
    seen = watched(config, monkeypatch)
    near = [nearest_by_hand(rows, 3) for rows, _ in seen]
    assert near[0] != near[1] and near[1] != near[2]  # the network does learn
    for epoch, found_before in ((0, 0), (1, 0), (2, 2)):
        assert_negatives_are_near(seen[epoch][1], near[found_before])
    assert not np.array_equal(seen[0][1], seen[1][1])
    assert sorted(os.listdir(tmp_path)) == ["m.h5", "m.run"]  # no triplet file
    with h5py.File(config.run_dir / "neighbours.h5") as file:
        assert [set(row) for row in file["neighbours"][()].tolist()] == near[2]


@pytest.mark.slow
@pytest.mark.usefixtures("stub_network")
def test_neighbours_of_a_given_model_stay(flat, tmp_path, monkeypatch):
    first = config_for(flat, tmp_path / "first.h5", "out-of-class", {"epochs": 1, "batch_size": 24})
    model = train(first, verbose=0)
    monkeypatch.setattr("deep_ranking.model.file.load_model", lambda path: model)
    changes = {"neighbours_of": first.output, "seed": 8, "learning_rate": 1.0, "epochs": 2}
    changes["batch_size"] = 24
    config = config_for(flat, tmp_path / "m.h5", "hard", changes, num_neighbours=3)
    seen = watched(config, monkeypatch)
    paths = sorted(map(str, flat.rglob("*.png")))
    near = nearest_by_hand(embed_images(model, paths), 3)
    assert near != nearest_by_hand(seen[0][0], 3)
    for _, triplets in seen:
        assert_negatives_are_near(triplets, near)


@pytest.mark.slow
@pytest.mark.usefixtures("stub_network")
def test_neighbours_that_are_not_those_of_the_run(flat, tmp_path, monkeypatch):
    config = config_for(
        flat, tmp_path / "m.h5", "hard", {"resample_every": 3, "batch_size": 24}, num_neighbours=3
    )
    interrupted(config, monkeypatch, 1)
    path = config.run_dir / "neighbours.h5"
    whole = path.read_bytes()
    for name, value in (("epoch", 1), ("neighbours", 1), ("neighbours", NUM_IMAGES)):
        path.write_bytes(whole)
        with h5py.File(path, "a") as file:
            file[name][0] = value  # another epoch; an image of the same class; none at all
        with pytest.raises(InputError, match=r"neighbours\.h5: not the neighbours"):
            epoch_triplets(config).prepare(1, None)
    path.unlink()
    with pytest.raises(InputError, match=r"neighbours\.h5: no such file"):
        train(config, resume=True, verbose=0)


@pytest.mark.slow
@pytest.mark.usefixtures("stub_network")
def test_broken_images_are_named_or_left_out(tmp_path, write_colors, capsys):
    root = tmp_path / "images"
    write_colors(root)
    (root / "green" / "1.png").write_bytes(b"no image")
    changes = {"epochs": 1, "batch_size": 24}
    for strategy in ("out-of-class", "hard"):
        config = config_for(root, tmp_path / f"{strategy}.h5", strategy, changes)
        with pytest.raises(InputError, match=r"green/1\.png"):
            train(config, verbose=0)
        train(replace(config, skip_broken=True), overwrite=True, verbose=0)
    assert "1 image left out: a missing or broken image." in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("stub_network")
def test_another_folder_is_another_run(flat, folder, tmp_path, monkeypatch):
    config = config_for(flat, tmp_path / "m.h5", "out-of-class", {"batch_size": 24})
    interrupted(config, monkeypatch, 1)
    with pytest.raises(InputError, match="not what the run began with"):
        train(replace(config, dataset=folder), resume=True, verbose=0)
    with pytest.raises(InputError, match="began with num_neg_images 2"):
        other = replace(config.sampling, num_neg_images=3)
        train(replace(config, sampling=other), resume=True, verbose=0)


@pytest.mark.slow
@pytest.mark.usefixtures("stub_network")
def test_a_run_goes_on_with_the_flags_that_it_began_with(flat, tmp_path, capsys):
    output = str(tmp_path / "m.h5")
    flags = ["--dataset", flat, "--strategy", "hard", "--output", output, "--image_size", SIZE]
    flags += ["--embedding_size", 4, "--weights", "none", "--num_neighbours", 3, "--epochs", 1]
    flags += ["--steps_per_epoch", 2, "--validation_share", 0.34, "--tensorboard"]
    assert run_command("train", list(map(str, flags))) == 0
    assert "16 images of 4 classes, strategy hard, 2 batches" in capsys.readouterr().out
    assert run_command("train", ["--output", output, "--resume", "--epochs", "2"]) == 0
    assert "Before epoch 2: nearest images of other classes found by" in capsys.readouterr().out


def test_another_file_of_relevance_is_another_run(folder, tmp_path):
    file = tmp_path / "scores.csv"
    file.write_text("a.png,b.png,1\n")
    config = config_for(folder, tmp_path / "m.h5", "relevance", {"relevance": str(file)})
    before = RunState.at_start(config).fingerprints
    assert RunState.at_start(config).fingerprints == before
    file.write_text("a.png,b.png,2\n")
    assert RunState.at_start(config).fingerprints != before
    tree = RunState.at_start(replace(config, relevance="tree")).fingerprints
    assert tree != RunState.at_start(replace(config, relevance="features")).fingerprints


# Wrong calls


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--strategy", "hard"], "--dataset"),
        (["--strategy", "hard", "--dataset", "x", "--triplets", "triplets.txt"], "not both"),
        (["--strategy", "hard", "--dataset", "x", "--batches", "classes"], "--batches triplets"),
        (["--strategy", "hard", "--dataset", "x", "--resample_every", "0"], "resample_every"),
        (["--strategy", "relevance", "--dataset", "x"], "--relevance"),
        (["--strategy", "hard", "--dataset", "x", "--relevance", "tree"], "--relevance"),
        (["--strategy", "in-class", "--dataset", "x", "--neighbours_of", "m.h5"], "neighbours_of"),
        (["--strategy", "hard", "--dataset", "x", "--level", "1"], "level"),
        (["--num_neighbours", "3"], "num_neighbours needs --strategy"),
        (["--resample_every", "3"], "resample_every needs --strategy"),
        (["--validation_share", "0.2"], "or --strategy"),
        (["--strategy", "easy", "--dataset", "x"], "strategy"),
    ],
)
def test_flags_that_do_not_go_together(capsys, flags, said):
    with pytest.raises(SystemExit) as ended:
        run_command("train", flags)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_stream_that_finds_nothing(tmp_path):
    class Nothing:
        num_triplets = 0

        def triplets(self, seed, epoch=0, *, shuffle=False):
            return iter(())

    data = LabelledImages(Path("photos"), ["a.png"], Labels.of(["a"]))
    triplets = DrawnTriplets(data, Nothing(), strategy_name="")
    with pytest.raises(InputError, match="photos: the strategy finds no triplet"):
        triplets.of_epoch(0, count=None, seed=0, shuffle=True)


def test_a_broken_model_of_neighbours_is_named_before_an_earlier_run_gives_way(tmp_path):
    root = tmp_path / "data"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (8, 8)).save(root / name / f"{number}.png")
    (tmp_path / "broken.h5").write_bytes(b"no model")
    (tmp_path / "m.run").mkdir()
    (tmp_path / "m.run" / "kept.txt").write_text("an earlier run")
    (tmp_path / "empty").mkdir()
    for given in ("broken.h5", "empty"):
        flags = ["--dataset", str(root), "--strategy", "hard", "--overwrite", "--weights", "none"]
        flags += ["--neighbours_of", str(tmp_path / given), "--output", str(tmp_path / "m.h5")]
        assert run_command("train", flags) == 1
        assert (tmp_path / "m.run" / "kept.txt").exists()
