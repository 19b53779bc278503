"""Options of training that change what a step does: none of them may be ignored."""

import csv
import json
from dataclasses import replace

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from stubs import build_stub

from deep_ranking.cli.main import run_command
from deep_ranking.config import NetworkConfig, TrainConfig
from deep_ranking.files import InputError
from deep_ranking.losses import RankingLoss, kernel_penalty, penalise_kernels
from deep_ranking.model.file import load_model, save_model
from deep_ranking.model.network import build_network
from deep_ranking.training.run import TrainingRun, train

pytestmark = pytest.mark.usefixtures("thin_vgg16", "no_pictures")

STUB = NetworkConfig(image_size=32, weights=None, dropout=0.2, embedding_size=4)


@pytest.fixture(scope="module")
def colors(tmp_path_factory, write_colors):
    root = tmp_path_factory.mktemp("options")
    write_colors(root / "images")
    names = [f"images/{name}/{i}.png" for name in ("red", "green", "blue") for i in range(4)]
    lines = [",".join((names[i], names[i ^ 1], names[(i + 5) % 12])) for i in range(12)]
    (root / "triplets.txt").write_text("\n".join(lines) + "\n")
    return root


class NoFigure:
    def savefig(self, path):
        path.write_bytes(b"")


@pytest.fixture
def no_pictures(monkeypatch):
    """The picture of the history takes longer than such an epoch."""
    monkeypatch.setattr("deep_ranking.training.history.run_figure", lambda _: NoFigure())


def config_for(colors, output, **changes):
    settings = {
        "triplets": colors / "triplets.txt",
        "output": output,
        "network": STUB,
        "batch_size": 12,
        "epochs": 2,
        "seed": 4,
        "learning_rate": 0.01,
    }
    return TrainConfig(**(settings | changes))


@pytest.mark.usefixtures("stub_network")
@pytest.mark.parametrize(
    "settings",
    [{"distance_norm": 1.0}, {"clip": True}, {"distance": "squared"}, {"hinge": "batch"}],
)
def test_validation_is_by_the_loss_that_trains(colors, tmp_path, settings):
    """On the training triplets themselves, without a step: the epoch's loss is the same."""
    changes = {"validation_triplets": colors / "triplets.txt", "epochs": 1, "augmentation": None}
    changes["gap"] = 5.0  # every triplet counts
    network = replace(STUB, dropout=0.0)
    config = config_for(colors, tmp_path / "m.h5", **changes, network=network, **settings)
    train(replace(config, learning_rate=1e-12), verbose=0)
    with (tmp_path / "m.run" / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    trained, validated = (float(rows[-1][name]) for name in ("loss", "val_loss"))
    assert validated == pytest.approx(trained, rel=1e-4)
    assert float(rows[-1]["val_active_triplets"]) == pytest.approx(
        float(rows[-1]["active_triplets"]), abs=1e-6
    )


def history_of(config):
    with (config.run_dir / "history.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def kernel_of(model):
    return keras.ops.convert_to_numpy(model.get_layer("embedding").kernel)


def watched(config, monkeypatch, look, *, stop_after=None, resume=False):
    """Train; `look` sees the run after each epoch. Stops as if by Ctrl+C if so wanted."""
    whole = TrainingRun.train_epoch

    def train_epoch(run, verbose):
        if run.state.num_epochs == stop_after:
            raise KeyboardInterrupt
        whole(run, verbose)
        look(run)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "train_epoch", train_epoch)
        if stop_after is None:
            return train(config, resume=resume, verbose=0)
        with pytest.raises(KeyboardInterrupt):
            train(config, verbose=0)


# Weight penalty.


def small_model():
    rows = keras.Input((5,))
    x = keras.layers.Dense(4, name="frozen", trainable=False)(rows)
    x = keras.layers.Dense(6, name="first")(x)
    x = keras.layers.BatchNormalization(name="normalised")(x)
    model = keras.Model(rows, keras.layers.Dense(3, name="second")(x))
    rng = np.random.default_rng(2)
    model.set_weights([rng.normal(0.5, 0.2, each.shape) for each in model.weights])
    return model


def trained_kernels(model):
    return [np.array(model.get_layer(name).kernel, np.float64) for name in ("first", "second")]


def test_penalty_adds_the_squares_of_trained_kernels():
    rows = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    model = small_model()
    wanted = 0.3 * sum((kernel**2).sum() for kernel in trained_kernels(model))
    losses = []
    for penalty in (0.0, 0.3, 0.0):  # the last: it can be taken away again
        penalise_kernels(model, penalty)
        model.compile("sgd", RankingLoss())
        losses.append(model.evaluate(rows, np.zeros(6), batch_size=6, verbose=0))
    assert losses[1] - losses[0] == pytest.approx(wanted, rel=1e-5)
    assert losses[2] == losses[0]
    assert kernel_penalty(model, 0.3) == pytest.approx(wanted, rel=1e-6)
    assert kernel_penalty(model, 0.0) == 0


def test_penalty_pulls_each_step_by_its_gradient():
    rows = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    after = []
    for penalty in (0.0, 0.3):
        model = small_model()
        start = trained_kernels(model)
        penalise_kernels(model, penalty)
        model.compile(keras.optimizers.SGD(0.1), RankingLoss())
        model.train_on_batch(rows, np.zeros(6))
        after.append(model)
    # d/dw of 0.3 w^2 is 0.6 w, times the rate.
    for plain, pulled, kernel in zip(*map(trained_kernels, after), start, strict=True):
        np.testing.assert_allclose(pulled, plain - 0.1 * 0.6 * kernel, atol=1e-6)
    for name in ("first", "second"):
        biases = [np.array(model.get_layer(name).bias) for model in after]
        np.testing.assert_array_equal(*biases)
    np.testing.assert_array_equal(*[np.array(model.get_layer("frozen").kernel) for model in after])


@pytest.mark.slow
@pytest.mark.usefixtures("stub_network")
def test_penalty_is_in_the_history_and_not_in_the_file(colors, tmp_path, monkeypatch):
    config = config_for(colors, tmp_path / "m.h5", weight_penalty=0.5, learning_rate=0.1)
    kernels = []
    model = watched(config, monkeypatch, lambda run: kernels.append(kernel_of(run.trainer.model)))
    shown = [float(row["weight_penalty"]) for row in history_of(config)]
    wanted = [0.5 * (kernel.astype(np.float64) ** 2).sum() for kernel in kernels]
    assert shown == pytest.approx(wanted, rel=1e-5)
    plain = config_for(colors, tmp_path / "plain.h5", learning_rate=0.1)
    unpenalised = train(plain, verbose=0)
    assert np.linalg.norm(kernel_of(model)) < 0.9 * np.linalg.norm(kernel_of(unpenalised))
    assert "weight_penalty" not in history_of(plain)[0]
    for path in (config.output, config.run_dir / "best.h5"):
        with h5py.File(path) as file:
            layers = json.loads(file.attrs["model_config"])["config"]["layers"]
        embedding = next(each for each in layers if each["config"]["name"] == "embedding")
        assert embedding["config"]["kernel_regularizer"] is None


@pytest.mark.slow
@pytest.mark.usefixtures("stub_network")
def test_a_run_with_penalty_and_clipping_goes_on_to_the_same_result(colors, tmp_path, monkeypatch):
    whole = config_for(colors, tmp_path / "a.h5", weight_penalty=0.5, clip_norm=0.1)
    undisturbed = train(whole, verbose=0)
    config = replace(whole, output=tmp_path / "b.h5")
    watched(config, monkeypatch, lambda _: None, stop_after=1)
    resumed = train(config, resume=True, verbose=0)
    np.testing.assert_array_equal(kernel_of(resumed), kernel_of(undisturbed))
    assert history_of(config) == history_of(whole)


# Plateau.


def worse_and_worse(monkeypatch, values):
    values = iter(values)
    monkeypatch.setattr(
        "deep_ranking.training.validation.TripletValidation.measure",
        lambda *_: ({"val_similarity_precision": next(values), "val_loss": 1.0}, None),
    )


def rate_of(run):
    return float(run.trainer.optimizer.learning_rate)


@pytest.mark.slow
@pytest.mark.usefixtures("stub_network")
@pytest.mark.parametrize("decay", ["plateau", "none"])
def test_plateau_lowers_the_rate(colors, tmp_path, monkeypatch, capsys, decay):
    # Epoch 1 is the best so far; 2 and 3 are no better; 4 is; 5 to 8 are not.
    judged = [0.5, 0.6, 0.6, 0.5, 0.7, 0.6, 0.6, 0.6, 0.6]
    worse_and_worse(monkeypatch, judged)
    config = config_for(
        colors,
        tmp_path / "m.h5",
        validation_triplets=colors / "triplets.txt",
        decay=decay,
        plateau_patience=2,
        plateau_factor=0.5,
        epochs=8,
        steps_per_epoch=1,
    )
    seen = []
    watched(
        config,
        monkeypatch,
        lambda run: seen.append((rate_of(run), int(run.trainer.optimizer.iterations))),
    )
    rates, iterations = zip(*seen, strict=True)
    falls = [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]
    wanted = [0.01 * fall for fall in (falls if decay == "plateau" else [1] * 8)]
    assert rates == pytest.approx(wanted)
    assert iterations == tuple(range(1, 9))
    said = [line for line in capsys.readouterr().out.splitlines() if "On a plateau" in line]
    assert len(said) == (3 if decay == "plateau" else 0)
    if decay == "plateau":
        assert "now 0.125 times what it was at first" in said[-1]


@pytest.mark.slow
@pytest.mark.usefixtures("stub_network")
def test_plateau_keeps_momentum_and_a_resumed_run_the_lower_rate(colors, tmp_path, monkeypatch):
    def config(name, epochs=4):
        worse_and_worse(monkeypatch, [0.5] * 10)
        return config_for(
            colors,
            tmp_path / name,
            validation_triplets=colors / "triplets.txt",
            decay="plateau",
            plateau_patience=2,
            epochs=epochs,
            steps_per_epoch=1,
        )

    momenta, rates = [], []

    def look(run):
        variables = run.trainer.optimizer.variables
        momenta.append([np.array(each) for each in variables if "momentum" in each.path])

    undisturbed = watched(config("a.h5"), monkeypatch, look)
    assert len(momenta[2]) == 2 and all(np.abs(each).max() > 0 for each in momenta[2])
    watched(config("b.h5"), monkeypatch, lambda _: None, stop_after=3)
    resumed = watched(
        config("b.h5"), monkeypatch, lambda run: rates.append(rate_of(run)), resume=True
    )
    assert rates == pytest.approx([0.001])  # the first judgement counts after an epoch
    np.testing.assert_array_equal(kernel_of(resumed), kernel_of(undisturbed))


@pytest.mark.usefixtures("stub_network")
def test_a_plateau_where_the_upper_layers_begin_to_train(colors, tmp_path, monkeypatch):
    """The optimizer is a new one then, of other weights."""
    monkeypatch.setattr(
        "deep_ranking.training.trainer.set_trainable_from",
        lambda model, first, **_: setattr(model.get_layer("hidden"), "trainable", first != "head"),
    )

    def with_hidden(config, *, seed=None):
        model = build_stub(config, seed=seed)
        x = keras.layers.Dense(5, name="hidden")(model.get_layer("dropout").output)
        x = keras.layers.Dense(config.embedding_size, name="embedding")(x)
        whole = keras.Model(model.input, keras.layers.UnitNormalization(name="unit_embedding")(x))
        whole.network_config, whole.backbone_layers = config, ["hidden"]
        return whole

    monkeypatch.setattr("deep_ranking.training.trainer.build_network", with_hidden)
    worse_and_worse(monkeypatch, [0.5] * 10)
    config = config_for(
        colors,
        tmp_path / "m.h5",
        validation_triplets=colors / "triplets.txt",
        decay="plateau",
        plateau_patience=1,
        head_epochs=2,
        epochs=3,
        steps_per_epoch=1,
    )
    rates = []
    watched(config, monkeypatch, lambda run: rates.append(rate_of(run)))
    # A plateau after 2, where the next epoch has an optimizer of its own, and after 3.
    assert rates == pytest.approx([0.01, 0.01, 0.0001])


# Start epoch.


@pytest.mark.slow
@pytest.mark.usefixtures("stub_network")
def test_start_epoch_is_the_later_epoch_of_an_undisturbed_run(colors, tmp_path, monkeypatch):
    seen, dropout = {}, {}
    original = TrainingRun.train_epoch

    def train_epoch(run, verbose):
        epoch = run.state.num_epochs
        datasets = []
        source_dataset = run.source.dataset
        with monkeypatch.context() as patch:
            patch.setattr(
                run.source, "dataset", lambda each: datasets.append(each) or source_dataset(each)
            )
            original(run, verbose)
        seen.setdefault(run.config.output.stem, []).append((epoch, datasets))
        state = run.trainer.model.get_layer("dropout").seed_generator.state
        dropout[run.config.output.stem, epoch] = np.array(state).tolist()

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "train_epoch", train_epoch)
        whole = config_for(colors, tmp_path / "whole.h5", epochs=3)
        train(whole, verbose=0)
        later = replace(whole, output=tmp_path / "later.h5", start_epoch=2)
        train(later, verbose=0)
    assert seen["whole"] == [(0, [0]), (1, [1]), (2, [2])]
    assert seen["later"] == [(2, [2])]
    assert dropout["later", 2] == dropout["whole", 2] != dropout["whole", 1]
    assert [row["epoch"] for row in history_of(later)] == ["3"]


@pytest.mark.usefixtures("stub_network")
def test_cosine_ends_at_the_last_epoch_whatever_the_first(colors, tmp_path, monkeypatch):
    rates = []
    config = config_for(colors, tmp_path / "m.h5", epochs=5, start_epoch=3, decay="cosine")
    watched(config, monkeypatch, lambda run: rates.append(rate_of(run)))
    assert rates == pytest.approx([0.005, 0.0], abs=1e-7)  # half of two epochs, and all


@pytest.mark.slow
@pytest.mark.usefixtures("stub_network")
def test_a_start_between_judgements_is_judged_and_goes_on(colors, tmp_path, monkeypatch):
    config = config_for(
        colors,
        tmp_path / "m.h5",
        validation_triplets=colors / "triplets.txt",
        validate_every=2,
        epochs=5,
        start_epoch=3,
    )
    watched(config, monkeypatch, lambda _: None, stop_after=4)
    train(config, resume=True, verbose=0)
    rows = history_of(config)
    assert [row["epoch"] for row in rows] == ["3", "4", "5"]
    assert all(row["val_similarity_precision"] for row in rows)


@pytest.mark.slow
@pytest.mark.usefixtures("stub_network")
@pytest.mark.parametrize("start_epoch", [2, 3])
def test_a_start_behind_the_heads_epochs_can_be_mended(colors, tmp_path, monkeypatch, start_epoch):
    """What there is to go back to was made before the first epoch."""
    from deep_ranking.training.diagnosis import TrainingDiagnosis

    found = iter([TrainingDiagnosis("Collapse.", {"learning_rate": 0.001}, spoilt=True)])
    monkeypatch.setattr("deep_ranking.training.run.diagnose_training", lambda *_: next(found, None))
    trained_from = []
    monkeypatch.setattr(
        "deep_ranking.training.trainer.set_trainable_from",
        lambda model, first, **_: (
            trained_from.append(first) or setattr(model.get_layer("embedding"), "trainable", True)
        ),
    )
    config = config_for(
        colors,
        tmp_path / "m.h5",
        epochs=4,
        start_epoch=start_epoch,
        head_epochs=2,
        auto_fix=True,
    )
    train(config, verbose=0)
    assert "head" not in trained_from
    assert len(history_of(config)) == 4 - start_epoch


@pytest.mark.parametrize("start_epoch", [2, 3])
def test_a_start_behind_the_end_is_refused(colors, tmp_path, start_epoch):
    said = rf"start_epoch must be below epochs \(2\).*Received: {start_epoch}"
    with pytest.raises(InputError, match=said):
        config_for(colors, tmp_path / "m.h5", start_epoch=start_epoch)


# XLA.


@pytest.mark.usefixtures("stub_network")
@pytest.mark.parametrize(("xla", "wanted"), [(True, True), (False, False), (None, "auto")])
def test_xla_is_passed_on(colors, tmp_path, monkeypatch, xla, wanted):
    asked = []
    whole = tf.function

    def function(*args, **options):
        asked.append(options.get("jit_compile"))
        return whole(*args, **options)

    monkeypatch.setattr(tf, "function", function)
    monkeypatch.setattr(keras.Model, "_resolve_auto_jit_compile", lambda _: "auto")
    monkeypatch.setattr(TrainingRun, "is_over", True)
    train(config_for(colors, tmp_path / "m.h5", xla=xla), verbose=0)
    assert asked[:2] == [wanted, None]  # the step, and what reads its batch


@pytest.mark.slow
@pytest.mark.graph
@pytest.mark.usefixtures("stub_network")
def test_a_run_compiled_by_xla_is_the_same_run(colors, tmp_path):
    network = replace(STUB, dropout=0.0)
    plain = train(config_for(colors, tmp_path / "a.h5", network=network, epochs=1), verbose=0)
    config = config_for(colors, tmp_path / "b.h5", network=network, epochs=1, xla=True)
    np.testing.assert_allclose(kernel_of(train(config, verbose=0)), kernel_of(plain), atol=1e-5)


def test_xla_on_several_devices_is_refused(colors, tmp_path):
    with pytest.raises(InputError, match="xla or devices, not both"):
        config_for(colors, tmp_path / "m.h5", xla=True, devices="all")


# First weights from a model of ours.

SMALL = NetworkConfig(
    image_size=32, weights=None, multiscale="none", hidden_layers=1, hidden_size=6, embedding_size=4
)


@pytest.fixture(scope="module")
def own_model(tmp_path_factory):
    model = build_network(SMALL, seed=1)
    path = tmp_path_factory.mktemp("own") / "own.h5"
    save_model(model, path)
    return path, model


def taken(path, seed=2, **changes):
    config = replace(SMALL, weights=str(path), normalisation="unit", **changes)
    return build_network(config, seed=seed)


def kernels_of(model, name):
    return [np.array(each) for each in model.get_layer(name).weights]


def test_a_model_of_ours_gives_all_layers_that_fit(own_model):
    path, model = own_model
    same = taken(path)
    for name in [layer.name for layer in model.layers if layer.weights]:
        for got, wanted in zip(kernels_of(same, name), kernels_of(model, name), strict=True):
            np.testing.assert_array_equal(got, wanted, err_msg=name)
    other = taken(path, embedding_size=5, multiscale="paper")
    for name in ("block1_conv1", "block5_conv3", "hidden_1"):
        np.testing.assert_array_equal(kernels_of(other, name)[0], kernels_of(model, name)[0])
    fresh = build_network(replace(SMALL, embedding_size=5, multiscale="paper"), seed=2)
    for name in ("embedding", "branch_1_conv"):  # of another size, and new: as drawn
        np.testing.assert_array_equal(kernels_of(other, name)[0], kernels_of(fresh, name)[0])


def test_a_model_of_ours_that_does_not_fit_is_refused(own_model):
    path, _ = own_model
    with pytest.raises(InputError, match=r"own\.h5.*backbone vgg16.*give --backbone vgg16"):
        taken(path, backbone="vgg19")
    with pytest.raises(InputError, match=r"own\.h5.*give --normalisation unit"):
        build_network(replace(SMALL, weights=str(path), normalisation="backbone"))


@pytest.mark.parametrize("damage", ["cut", "no layer", "no kernel", "other shape"])
def test_a_damaged_model_of_ours_is_refused(own_model, tmp_path, damage):
    data = own_model[0].read_bytes()
    path = tmp_path / "damaged.h5"
    path.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    if damage != "cut":
        with h5py.File(path, "r+") as file:
            layer = file["model_weights/block3_conv1"]
            if damage == "no layer":
                del file["model_weights/block3_conv1"]
            else:
                del layer["block3_conv1/kernel"]
            if damage == "other shape":
                layer["block3_conv1/kernel"] = np.zeros((3, 3, 1, 1), np.float32)
    with pytest.raises(InputError, match=r"damaged\.h5"):
        taken(path)


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_the_command_goes_on_from_a_model_of_ours(own_model, colors, tmp_path, capsys):
    path, model = own_model
    flags = [
        *("--weights", path, "--triplets", colors / "triplets.txt", "--output", tmp_path / "m.h5"),
        *("--image_size", 32, "--multiscale", "none", "--hidden_layers", 1, "--hidden_size", 6),
        *("--embedding_size", 4, "--epochs", 1, "--steps_per_epoch", 1, "--batch_size", 3),
        *("--learning_rate", 1e-9, "--dropout", 0),
    ]
    flags = list(map(str, flags))
    assert run_command("train", flags) == 1  # pre-trained weights mean the backbone's pixels
    assert "give --normalisation unit" in capsys.readouterr().err
    assert run_command("train", [*flags, "--normalisation", "unit"]) == 0
    got = load_model(tmp_path / "m.h5")
    for name in ("block1_conv1", "hidden_1", "embedding"):
        np.testing.assert_allclose(
            kernels_of(got, name)[0], kernels_of(model, name)[0], atol=1e-6, err_msg=name
        )
