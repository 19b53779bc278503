"""Learning from answers of made-up raters who follow a hidden rule, about made-up pictures."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from deep_ranking.cli.main import run_command
from deep_ranking.config import NetworkConfig
from deep_ranking.datasets import read_folder
from deep_ranking.datasets.answer_log import AnswerLog
from deep_ranking.datasets.ratings import Answer
from deep_ranking.files import InputError
from deep_ranking.images import read_image
from deep_ranking.metrics.agreement import Agreement
from deep_ranking.metrics.intervals import Interval
from deep_ranking.model.file import load_model, save_model
from deep_ranking.model.layout import LAYOUT_SIZE
from deep_ranking.model.network import build_network
from deep_ranking.training.taught import lesson
from deep_ranking.training.taught.base_distances import base_distances
from deep_ranking.training.taught.features import (
    Head,
    embed_from_features,
    network_with_layout,
    read_parts,
    sizes_of,
    taught_features,
)
from deep_ranking.training.taught.fitting import Comparisons, fit, held_back_margins, query_folds
from deep_ranking.training.taught.forgetting import (
    BOUND,
    Bounded,
    Halves,
    bounded_mixture,
    halves_of,
    recall_at_1,
)
from deep_ranking.training.taught.head import compressed_head, joined_head
from deep_ranking.training.taught.report import HeldBack
from deep_ranking.training.taught.teaching import TaughtConfig, teach

pytestmark = pytest.mark.usefixtures("thin_vgg16", "eager")

SIZE = 32
CLASSES = 6


def squared(rows, one, another):
    return ((rows[one].astype(float) - rows[another]) ** 2).sum(axis=-1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Classes differ by stripes, and all images by the colour of their middle."""
    root = tmp_path_factory.mktemp("taught") / "photos"
    rng = np.random.default_rng(0)
    for number in range(120):
        folder = root / f"class {number % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        y, x = np.mgrid[:SIZE, :SIZE]
        angle = np.pi * (number % CLASSES) / CLASSES
        stripes = 127 + 100 * np.sin(0.8 * (x * np.cos(angle) + y * np.sin(angle)))
        pixels = np.repeat(stripes[:, :, None], 3, axis=2) + rng.normal(0, 12, (SIZE, SIZE, 3))
        pixels[8:24, 8:24] = 0.5 * pixels[8:24, 8:24] + 0.5 * rng.integers(0, 256, 3)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:03}.png")
    return root


@pytest.fixture(scope="module")
def model(photos, thin_vgg16):
    """It knows nothing but how it started."""
    config = NetworkConfig(
        image_size=SIZE, weights=None, hidden_layers=0, multiscale="none", embedding_size=24
    )
    path = photos.parent / "model.h5"
    save_model(build_network(config, seed=0), path)
    return path


@pytest.fixture(scope="module")
def cache(photos):
    return photos.parent / "cache"


@pytest.fixture(scope="module")
def middles(photos):
    """The mean colour of the middle of each image, by its path."""
    files = sorted(photos.rglob("*.png"))
    return {
        str(file.relative_to(photos)): read_image(file, SIZE)[8:24, 8:24].mean(axis=(0, 1))
        for file in files
    }


def answers_by(values, count, *, noise=0.05, seed=0, images=None, **more):
    """A rater who finds alike what has like values, and errs now and then."""
    rng = np.random.default_rng(seed)
    paths = sorted(values)[:images]
    found = []
    for number in range(count):
        query, one, other = (paths[each] for each in rng.choice(len(paths), 3, replace=False))
        lead = np.linalg.norm(values[query] - values[other]) - np.linalg.norm(
            values[query] - values[one]
        )
        if (lead < 0) != (rng.random() < noise):
            one, other = other, one
        options = {"side": "AB"[number % 2], "asked": "random"} | more
        found.append(Answer("2026-11-29T19:30:28Z", "Ann", query, one, other, **options))
    return found


@pytest.fixture
def ratings(tmp_path):
    def write(*answers, name="ratings.csv"):
        AnswerLog(tmp_path / name).add(*answers)
        return tmp_path / name

    return write


@pytest.fixture
def config(tmp_path, model, photos, cache):
    def made(*files, **more):
        options = {"model": model, "images": photos, "cache_dir": cache}
        return TaughtConfig(ratings=files, output=tmp_path / "taught.h5", **options | more)

    return made


def embedded(path, photos):
    network = load_model(path)
    files = sorted(photos.rglob("*.png"))
    pixels = np.stack([read_image(file, network.input_shape[1]) for file in files])
    return np.asarray(network(pixels.astype(np.float32)))


def agreement(rows, values, seed=9):
    """How often rows agree with a rater without noise about other questions."""
    names = sorted(values)
    colours = np.stack([values[name] for name in names])
    rng = np.random.default_rng(seed)
    query, one, other = (rng.integers(len(names), size=2000) for _ in range(3))
    wanted = squared(colours, query, one) < squared(colours, query, other)
    return np.mean((squared(rows, query, one) < squared(rows, query, other)) == wanted)


@pytest.mark.slow
def test_it_learns_the_colour_of_the_middle_and_says_how_sure_it_is(
    photos, model, middles, ratings, config
):
    report = teach(config(ratings(*answers_by(middles, 150))))
    before, after = (agreement(embedded(path, photos), middles) for path in (model, report.output))
    assert report.is_better and after > 0.85 and before < 0.7
    held, with_noise = report.held_back, 0.05 + 0.9 * after
    assert held.after.share.low - 0.03 < with_noise < held.after.share.high + 0.03
    assert held.difference.mean == pytest.approx(held.after.share.mean - held.before.share.mean)
    assert held.after.num_compared == report.num_questions == 150
    assert "Better: agreement +" in str(report) and "not known, as no question came" in str(report)
    assert json.dumps(report.as_json(), allow_nan=False)


def test_answers_by_chance_are_not_called_better(middles, ratings, config):
    rng = np.random.default_rng(3)
    chance = {name: rng.normal(size=3) for name in middles}
    report = teach(config(ratings(*answers_by(chance, 60, noise=0.5))))
    assert not report.is_better
    assert str(report).splitlines()[1].startswith("Not better yet")


@pytest.mark.slow
def test_what_was_known_is_not_forgotten(photos, model, middles, ratings, config):
    """Colours say nothing of a class: a model that knew the classes must not lose them."""
    knowing = photos.parent / "knowing.h5"
    network = load_model(model)
    files = sorted(photos.rglob("*.png"))
    features = taught_features(network, files, photos.parent / "cache")
    classes = np.array([int(file.parent.name[-1]) for file in files])
    parts = read_parts(features, np.arange(len(files)))
    wanted = np.eye(CLASSES)[classes]
    kernel = np.zeros((parts[1].shape[1], 24))
    kernel[:, :CLASSES] = np.linalg.lstsq(parts[1] - parts[1].mean(0), wanted, rcond=1e-3)[0]
    network.get_layer("embedding").set_weights(
        [kernel.astype(np.float32), (-parts[1].mean(0) @ kernel).astype(np.float32)]
    )
    save_model(network, knowing)
    labelled = read_folder(photos)
    path = ratings(*answers_by(middles, 150))
    report = teach(config(path, model=knowing, labelled=labelled))
    assert report.recall.before > 0.9 and report.recall.of_held_out_classes
    assert report.recall.after >= report.recall.before - BOUND
    rows = embedded(report.output, photos)
    judged = halves_of(labelled.items.codes, seed=0).judging
    found = recall_at_1(rows[judged], classes[judged])
    assert found == pytest.approx(report.recall.after, abs=0.02)
    own = load_model(report.output).calibration
    assert own == report.calibration and f"Calibrated on {own.num_pairs:,} pairs" in str(report)
    one, other = np.triu_indices(len(judged), 1)
    same = classes[judged[one]] == classes[judged[other]]
    apart = np.sqrt(squared(rows[judged], one, other))
    chances = np.array([own.probability(each) for each in apart])
    assert chances[same].mean() > 0.8 and chances[~same].mean() < 0.2
    free = teach(config(path, model=knowing))
    assert free.calibration is None and "Not calibrated: compare tells no chance" in str(free)
    assert free.recall is None and free.mixture > report.mixture
    assert "What was forgotten is not known" in str(free)


@pytest.mark.slow
def test_a_taught_model_has_the_features_that_it_started_from(
    work, middles, ratings, config, capsys
):
    photos, model, _ = work
    files = sorted(photos.rglob("*.png"))
    report = teach(config(ratings(*answers_by(middles, 60))))
    before, after = (taught_features(path, files, photos.parent / "cache") for path in
                     (model, report.output))  # fmt: skip
    np.testing.assert_array_equal(before.rows, after.rows)
    capsys.readouterr()
    for path in (model, report.output):
        rows = embed_from_features(path, before)
        np.testing.assert_allclose(rows, embedded(path, photos), atol=0.02)  # of float16
    again = teach(config(*[report.output.parent / "ratings.csv"], model=report.output))
    assert "Computing" not in capsys.readouterr().out
    assert load_model(again.output).output_shape == load_model(model).output_shape


@pytest.mark.slow
def test_a_network_that_is_loaded_teaches_as_its_file_does_and_stays_as_it_was(
    model, middles, ratings, config
):
    answers = ratings(*answers_by(middles, 60))
    wanted = load_model(teach(config(answers)).output).get_weights()
    network = network_with_layout(load_model(model))
    before = [each.copy() for each in network.get_weights()]
    for _ in range(2):  # the second goes on from the same
        found = load_model(teach(config(answers), network=network).output).get_weights()
        for each, due in zip(found, wanted, strict=True):
            np.testing.assert_allclose(each, due, atol=1e-5)
        for each, due in zip(network.get_weights(), before, strict=True):
            np.testing.assert_array_equal(each, due)


def test_a_network_gets_a_layout_and_keeps_its_embeddings(model):
    network = load_model(model)
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3)).astype(np.float32)
    extended = network_with_layout(network)
    np.testing.assert_allclose(extended(pixels), network(pixels), atol=1e-6)
    assert network_with_layout(extended) is extended


@pytest.mark.slow
def test_broken_images_are_left_out_and_counted(photos, middles, ratings, config, tmp_path):
    broken = tmp_path / "photos"
    for name in middles:
        (broken / name).parent.mkdir(parents=True, exist_ok=True)
        (broken / name).write_bytes((photos / name).read_bytes())
    answers = answers_by(middles, 60)
    (broken / answers[5].query).write_bytes(b"no image")
    (broken / answers[1].chosen).unlink()
    (broken / answers[2].other).write_bytes((broken / answers[2].chosen).read_bytes())
    report = teach(config(ratings(*answers), images=broken))
    said = "; ".join(report.left_out)
    assert "with a broken image" in said or "with broken images" in said
    assert "gone" in said and "about two copies" in said
    assert report.num_questions < 60


def few(middles):
    return answers_by(middles, 4)


BAD = {
    "nothing": (lambda middles: [], "no such ratings file"),
    "too few": (few, "4 questions about . query images to learn from; it takes at least 10"),
    "one query": (
        lambda middles: [
            each
            for each in answers_by(middles, 4000, images=12)
            if each.query == sorted(middles)[0]
        ][:40],
        "about 1 query image to learn from",
    ),
    "cannot say": (
        lambda middles: answers_by(middles, 30, answer="cannot_say"),
        "30 answers, and none chose an image",
    ),
    "contradicting": (
        lambda middles: [
            each
            for one in answers_by(middles, 20)
            for each in (one, Answer(one.time, "Ann", one.query, one.other, one.chosen))
        ],
        "no question has more votes for one image than for the other .20 questions that a rater",
    ),
    "another collection": (
        lambda middles: answers_by({f"x/{name}": each for name, each in middles.items()}, 30),
        "holds none of the .* rated images.*give the folder that the ratings' paths start from",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_answers_that_nothing_can_be_learned_from(case, middles, ratings, config, tmp_path):
    make, said = BAD[case]
    answers = make(middles)
    path = ratings(*answers) if answers else tmp_path / "none.csv"
    with pytest.raises(InputError, match=said) as error:
        teach(config(path))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "taught.h5").exists()


@pytest.mark.slow
def test_always_the_same_side_is_said(middles, ratings, config):
    report = teach(config(ratings(*answers_by(middles, 40, side="A"))))
    assert "All 40 answers chose side A" in str(report)


@pytest.mark.slow
def test_steadiness_counts_repeats(middles, ratings, config):
    answers = answers_by(middles, 40)
    again = [Answer("2026-11-29T20:00:00Z", "Ann", *(getattr(each, name) for name in
             ("query", "chosen", "other")), asked="repeat") for each in answers[:8]]  # fmt: skip
    swapped = Answer("2026-11-29T20:00:01Z", "Ann", answers[8].query, answers[8].other,
                     answers[8].chosen, asked="repeat")  # fmt: skip
    report = teach(config(ratings(*answers, *again, swapped)))
    assert report.steadiness.num_compared == 9
    assert report.steadiness.share.mean == pytest.approx(8 / 9)
    assert report.num_answers == 49 and report.num_questions == 39


@pytest.fixture
def work(photos, model, tmp_path):
    return photos, model, tmp_path


def command(photos, model, ratings, tmp_path, *more):
    flags = ["--recipe", "taught", "--ratings", ratings, "--weights", model, "--no-compile"]
    flags += ["--output", tmp_path / "m.h5", "--cache_dir", photos.parent / "cache", *more]
    return run_command("train", list(map(str, flags)))


@pytest.mark.slow
def test_the_command_says_what_it_learned(work, middles, ratings, capsys):
    photos, model, tmp_path = work
    path = ratings(*answers_by(middles, 100))
    assert command(photos, model, path, tmp_path, "--dataset", photos) == 0
    said = capsys.readouterr().out
    assert f"The ratings' paths start from {photos}; --images names another folder." in said
    assert "Class recall@1 of 60 images (held-out classes)" in said
    assert command(photos, model, path, tmp_path, "--images", photos) == 1
    assert "m.h5: exists; give --overwrite" in capsys.readouterr().err
    assert command(photos, model, path, tmp_path, "--images", photos, "--overwrite") == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--epochs", "3"], "--epochs has no effect with --recipe taught"),
        (["--label", "parent"], "--label has no effect without --dataset"),
        ([], "give --images, the folder that the ratings' paths start from"),
        (["--weights", "none"], "needs --weights"),
    ],
)
def test_flags_that_cannot_act_are_refused(flags, said, work, capsys):
    photos, model, tmp_path = work
    with pytest.raises(SystemExit) as end:
        command(photos, model, tmp_path / "r.csv", tmp_path, *flags)
    assert end.value.code == 2 and said in capsys.readouterr().err


def test_ratings_need_their_recipe(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_command("train", ["--ratings", str(tmp_path / "r.csv"), "--triplets", "t.txt"])
    assert "--ratings has no effect without --recipe taught" in capsys.readouterr().err


# The parts.


def random_parts(count=40, sizes=(5, 112, 9), seed=0):
    rng = np.random.default_rng(seed)
    return [rng.random((count, size)).astype(np.float32) for size in sizes]


def test_weighted_columns_have_the_weighted_sum_of_base_distances():
    parts = random_parts()
    rows = np.concatenate(parts, axis=1)
    rng = np.random.default_rng(1)
    pairs = rng.integers(40, size=(60, 2))
    columns = base_distances(parts, pairs)
    questions = rng.integers(40, size=(30, 3))
    weights = rng.random(len(columns.typical)) * (rng.random(len(columns.typical)) < 0.2)
    learned = rows @ columns.weighted(weights)
    query, chosen, other = questions.T
    lead = squared(learned, query, other) - squared(learned, query, chosen)
    found = columns.differences(rows, questions) @ weights
    np.testing.assert_allclose(found, lead, rtol=1e-3, atol=1e-4)
    means = [squared(rows @ columns.weighted(row), *pairs.T).mean() for row in
             np.eye(len(columns.typical))[::25]]  # fmt: skip
    np.testing.assert_allclose(means, columns.typical[::25], rtol=1e-3)
    # All members of a family together weigh as much as the single one of another.
    assert columns.typical[0] == pytest.approx(1)
    assert np.isclose(columns.typical, 1 / np.sqrt(10)).sum() == 2 * 10


def test_base_distances_tell_the_middle_from_the_border():
    """There is one that only the colour of the middle changes, whatever the rest is."""
    parts = random_parts(count=50)
    rows = np.concatenate(parts, axis=1)
    other = rows.copy()
    grid = other[:, 5:53].reshape(-1, 4, 4, 3)
    grid[:, [0, 3], :] = grid[:, :, [0, 3]] = 0.5
    other[:, 5:53] = grid.reshape(-1, 48)
    pairs = np.stack([np.arange(49), np.arange(1, 50)], axis=1)
    columns = base_distances(parts, pairs)
    same = np.all(np.isclose(rows @ columns.kernel, other @ columns.kernel, atol=1e-5), axis=0)
    only_same = (columns.members[~same] == 0).all(axis=0)
    of_middle = columns.members[:, only_same & (columns.members > 0).any(axis=0)]
    assert ((of_middle > 0).sum(axis=0) == 3).any()


def synthetic(count, *, noise=0.05, seed=0):
    """Questions whose answers follow the third of twenty base distances."""
    rng = np.random.default_rng(seed)
    differences = rng.normal(size=(count, 20))
    flipped = (differences[:, 3] < 0) != (rng.random(count) < noise)
    differences[flipped] *= -1
    votes = np.tile([1.0, 0.0], (count, 1))
    return Comparisons(differences, votes, rng.integers(count // 2, size=count))


def test_the_fit_finds_the_base_distance_that_answers_follow():
    found = fit(synthetic(150), np.ones(19))
    assert found.weights.argmax() == 2 and found.weights[2] > 0.7
    assert found.weights.sum() == pytest.approx(1) and (found.weights >= 0).all()


def test_votes_for_the_other_image_count_against():
    known = synthetic(100)
    half = len(known.votes) // 2
    known.differences[:half] *= -1
    known.votes[:half] = known.votes[:half, ::-1]
    same = fit(synthetic(100), np.ones(19))
    np.testing.assert_allclose(fit(known, np.ones(19)).weights, same.weights, atol=1e-3)
    even = known._replace(votes=np.ones_like(known.votes))
    assert not fit(even, np.ones(19)).weights.any()


def test_answers_held_back_are_not_seen():
    """Where answers are chance, agreement with those held back is chance too."""
    shares = [
        np.mean(held_back_margins(synthetic(80, noise=0.5, seed=seed), np.ones(19), most=30) > 0)
        for seed in range(8)
    ]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.08)


def test_what_broken_images_leave_is_counted_and_too_little_judges_nothing():
    """Images 20 to 29 have a class; all but two of those that judge are broken."""
    rows = np.arange(30)[:, None]
    rows[26:] = -1
    rows[26] = 26
    features = SimpleNamespace(
        rows=rows, read=lambda images, _: [np.ones((len(images), 2), np.float16)]
    )
    questions = np.array([[each % 6, 6 + each % 7, 13 + each % 7] for each in range(30)])
    answers = SimpleNamespace(
        questions=questions, votes=np.ones((30, 2)), at_random=np.zeros(30, bool)
    )
    halves = Halves(np.arange(20, 25), np.arange(25, 30))
    labels = np.repeat([-1, 0, 1, 2], [20, 5, 1, 4])
    found = lesson.Lesson.of(answers, None, features, halves=halves, labels=labels)
    assert found.left_out == ["3 broken images of classes"] and found.halves is None
    rows[2:6] = -1
    with pytest.raises(InputError, match="10 questions about 2 query images to learn from"):
        lesson.Lesson.of(answers, None, features, halves=None, labels=labels)


def test_a_model_that_stays_as_it_was_agrees_as_before(monkeypatch):
    """Its distances are those of unit rows, and what is added to them is not."""
    monkeypatch.setattr(lesson, "bounded_mixture", lambda *_: Bounded(0.0, False))
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(40, size)).astype(np.float32) for size in (6, LAYOUT_SIZE, 8)]
    kernel = rng.normal(size=(14 + LAYOUT_SIZE, 4)).astype(np.float32)
    head = Head(kernel, 30 * rng.normal(size=4).astype(np.float32), has_layout=True)
    questions = np.stack([rng.choice(40, 3, replace=False) for _ in range(60)])
    halves = Halves(np.arange(20), np.arange(20, 40))
    votes, never = np.tile([1.0, 0.0], (60, 1)), np.zeros(60, bool)
    labels = np.arange(40) % 4
    given = lesson.Lesson(head, parts, questions, votes, never, halves, labels, [])
    learned = given.learn(0)
    assert learned.head is head
    assert learned.calibration.num_pairs > 0
    assert replace(given, halves=None).learn(0).calibration is None
    assert learned.held_back.difference == (0, 0, 0)


def test_folds_hold_back_whole_queries():
    query = np.random.default_rng(0).integers(30, size=200)
    folds = list(query_folds(query, 0))
    assert (np.sum(folds, axis=0) == 1).all()
    for out in folds:
        assert not set(query[out]) & set(query[~out])
        assert 20 <= out.sum() <= 60


def test_the_new_head_adds_the_distances():
    parts = random_parts(count=80)
    rows = np.concatenate(parts, axis=1) - 0.5
    rng = np.random.default_rng(2)
    old = Head(rng.normal(size=(126, 6)).astype(np.float32), np.zeros(6, np.float32), True)
    learned = rng.normal(size=(126, 2)).astype(np.float32)
    head = joined_head(old, learned, rows, of_old=0.5, of_learned=9.0)
    one, another = rng.integers(80, size=(2, 300))
    wanted = 0.5 * squared(rows @ old.kernel, one, another) + 9 * squared(
        rows @ learned, one, another
    )
    for each in (head, compressed_head(head, rows, 9), compressed_head(head, rows, 20)):
        found = squared(each.embed([rows]), one, another)
        assert np.corrcoef(found, wanted)[0, 1] > 0.95
    assert compressed_head(head, rows, 6).kernel.shape == (126, 6)


def test_the_mixture_is_the_largest_within_the_bound_of_both_halves():
    halves = Halves(np.array([0]), np.array([1]))

    def recall(mixture, images):
        return 0.9 - (0.02 if mixture > (3 if images[0] == 0 else 1) else 0)

    found = bounded_mixture(recall, halves)
    assert found.mixture == 1.0 and found.lowered
    assert "recall@1 falls by no more than 0.01" in found.notes(30.0)[0] and not found.notes(0.5)


def test_halves_share_no_class_or_no_image():
    many = np.repeat(np.arange(10), 5)
    choosing, judging = halves_of(many, 0)
    assert not set(many[choosing]) & set(many[judging])
    assert len(choosing) + len(judging) == 50
    two = np.repeat([0, 1], 20)
    choosing, judging = halves_of(two, 0)
    assert not set(choosing) & set(judging) and set(two[judging]) == {0, 1}
    with pytest.raises(InputError, match="two classes with two images"):
        halves_of(np.arange(7), 0)


@pytest.mark.parametrize(
    ("mean", "low", "more"),
    [
        (0.05, 0.01, None),  # better already
        (0.05, -0.05, 300),  # half the width needs four times as many of 100
        (0.05, 0.0, 10),
        (0.0, -0.05, None),  # no number can be told
        (-0.02, -0.1, None),
        (0.001, -0.2, None),  # far too many
    ],
)
def test_how_many_more_answers_follows_from_the_interval(mean, low, more):
    agreement = Agreement(Interval(0.6, 0.5, 0.7), 100)
    held = HeldBack(agreement, agreement, Interval(mean, low, 2 * mean - low))
    assert held.num_more == more
    assert held.is_better == (low > 0)


def test_recall_at_1_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(30, 4)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = rng.integers(8, size=30)
    hits = []
    for number in range(30):
        if (labels == labels[number]).sum() > 1:
            distances = ((rows - rows[number]) ** 2).sum(axis=1)
            distances[number] = np.inf
            hits.append(labels[distances.argmin()] == labels[number])
    assert recall_at_1(rows, labels) == pytest.approx(np.mean(hits))


def test_a_head_of_another_network_is_refused(model, photos):
    features = taught_features(model, sorted(photos.rglob("*.png"))[:3], photos.parent / "cache")
    head = Head(np.zeros((7, 4), np.float32), np.zeros(4, np.float32), has_layout=True)
    with pytest.raises(InputError, match="of another network"):
        head.embed(read_parts(features, np.arange(3)))
    assert sizes_of(features)[-2] == 112
    with pytest.raises(InputError, match=r"no_model\.h5"):
        embed_from_features(Path("no_model.h5"), features)
