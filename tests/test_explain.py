import json
from dataclasses import replace
from functools import cache

import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from deep_ranking.cli.main import run_command
from deep_ranking.cli.output import PICTURE_SUFFIXES
from deep_ranking.config import NetworkConfig
from deep_ranking.files import InputError
from deep_ranking.model.file import load_model, save_model
from deep_ranking.model.network import build_network
from deep_ranking.reports.explain import explain_pixels
from deep_ranking.reports.plots.explanation import explanation_figure

pytestmark = pytest.mark.usefixtures("thin_vgg16", "eager", "models_loaded_once")

SMALL = NetworkConfig(image_size=32, weights=None, hidden_size=16, embedding_size=8)
PARTS = ["convnet", "branch_1", "branch_2", "bias"]


def random_images(size=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (2, size, size, 3), np.uint8)


@cache
def network(size=32, *, biases=False, **options):
    """A random network, not to be changed; Keras' biases are 0 until it is trained."""
    config = replace(SMALL, image_size=size, **options)
    model = build_network(config, seed=3)
    if biases:
        rng = np.random.default_rng(4)
        for layer in model.layers:
            if layer.weights:
                kernel, bias = layer.get_weights()
                layer.set_weights([kernel, rng.normal(0, 0.05, bias.shape)])
    return model


@pytest.fixture(scope="module")
def unset_network():
    return build_network(replace(SMALL, hidden_size=3, embedding_size=3))


@pytest.fixture
def color_network(unset_network):
    """A network whose embedding is the largest red, green and blue of the image, and no more."""
    model = unset_network
    for layer in model.layers:
        if layer.weights:
            kernel, bias = (np.zeros_like(values) for values in layer.get_weights())
            for color in range(3):
                if layer.name.startswith("block"):
                    kernel[1, 1, color, color] = 1  # the middle of 3 x 3
                elif layer.name.startswith("hidden"):
                    kernel[color, color] = 1
                elif layer.name == "embedding":
                    kernel[color - 3, color] = 1  # the ConvNet's rows come last
            layer.set_weights([kernel, bias])
    return model


def patches(size, **places):
    """A black image with a patch of a quarter of its side for each color: its row and column."""
    image = np.zeros((size, size, 3), np.uint8)
    for name, (row, column) in places.items():
        side = size // 4
        channel = ("red", "green", "blue").index(name)
        image[row : row + side, column : column + side, channel] = 255
    return image


@pytest.mark.parametrize(
    ("size", "normalisation", "biases"),
    [(32, "backbone", True), (50, "unit", False)],
)
def test_parts_add_up_to_the_cosine_from_either_side(size, normalisation, biases):
    model = network(size, normalisation=normalisation, biases=biases)
    images = random_images(size)
    explanation = explain_pixels(model, *images)
    first, second = np.asarray(model(images.astype(np.float32)))
    assert explanation.cosine == pytest.approx(first @ second, abs=1e-5)
    assert explanation.distance == pytest.approx(np.linalg.norm(first - second), abs=1e-5)
    assert list(explanation.parts) == PARTS
    assert sum(explanation.parts.values()) == pytest.approx(explanation.cosine, abs=1e-5)
    sums = np.sum(list(explanation.parts_of_image.values()), axis=0)
    np.testing.assert_allclose(sums, explanation.cosine, atol=1e-5)
    assert (explanation.parts["bias"] != 0) == biases
    for heatmap in explanation.heatmaps.values():
        assert heatmap.shape == (2, size, size)
        assert heatmap.min() >= 0
        assert set(heatmap.max(axis=(1, 2))) <= {0, 1}


def test_parts_equal_the_formula_on_the_layers_outputs():
    model = network(biases=True)
    images = random_images()
    names = ("unit_branch_1", "unit_branch_2", "unit_convnet", "embedding", "unit_embedding")
    probe = keras.Model(model.input, [model.get_layer(name).output for name in names])
    branch_1, branch_2, convnet, linear, unit = (
        np.asarray(rows, np.float64) for rows in probe(images.astype(np.float32))
    )
    kernel, bias = model.get_layer("embedding").get_weights()
    expected = {name: [] for name in PARTS}
    for own, other in ((0, 1), (1, 0)):
        length = np.linalg.norm(linear[own])
        # Branches of 96 units at 32 pixels.
        expected["branch_1"].append(branch_1[own] @ kernel[:96] @ unit[other] / length)
        expected["branch_2"].append(branch_2[own] @ kernel[96:192] @ unit[other] / length)
        expected["convnet"].append(convnet[own] @ kernel[192:] @ unit[other] / length)
        expected["bias"].append(bias @ unit[other] / length)
    parts = explain_pixels(model, *images).parts_of_image
    for name in PARTS:
        np.testing.assert_allclose(parts[name], expected[name], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "options", "layer"),
    [
        (32, {"multiscale": "none"}, "block3_conv3"),
        (64, {"hidden_layers": 0}, "block4_conv3"),
        (
            64,
            {
                "hidden_layers": 0,
                "pooling": "average+max",
                "pooled_blocks": 2,
                "multiscale": "none",
            },
            "block4_conv3",
        ),
        (32, {"hidden_layers": 0, "pooling": "gem", "pooled_blocks": 4}, "block2_conv2"),
        (32, {"hidden_layers": 1, "pooling": "gem"}, "block3_conv3"),
        (32, {"hidden_layers": 4, "pooled_blocks": 5}, "block1_conv2"),
        (32, {"backbone_size": 64}, "block4_conv3"),
        # A place is 2 / 3 of a pixel wide.
        (32, {"backbone_size": 96, "pooled_blocks": 4, "pooling": "max"}, "block2_conv2"),
    ],
)
def test_every_choice_of_layers_is_explained(size, options, layer):
    images = random_images(size)
    model = network(size, biases=True, **options)
    explanation = explain_pixels(model, *images)
    assert explanation.layer == layer
    branches = ["branch_1", "branch_2"] if options.get("multiscale", "blog") == "blog" else []
    assert list(explanation.parts) == ["convnet", *branches, "bias"]
    assert list(explanation.heatmaps) == list(explanation.evidence) == ["convnet", *branches]
    sums = np.sum(list(explanation.parts_of_image.values()), axis=0)
    np.testing.assert_allclose(sums, explanation.cosine, atol=1e-5)

    names = ("unit_convnet", "embedding", "unit_embedding")
    probe = keras.Model(model.input, [model.get_layer(name).output for name in names])
    convnet, linear, unit = (np.asarray(rows) for rows in probe(images.astype(np.float32)))
    assert explanation.cosine == pytest.approx(unit[0] @ unit[1], abs=1e-5)
    kernel = model.get_layer("embedding").get_weights()[0][-convnet.shape[1] :]
    expected = np.sum(convnet @ kernel * unit[::-1], axis=1) / np.linalg.norm(linear, axis=1)
    np.testing.assert_allclose(explanation.parts_of_image["convnet"], expected, atol=1e-5)

    without_biases = explain_pixels(network(size, **options), *images)
    for name, evidence in without_biases.evidence.items():
        np.testing.assert_allclose(
            evidence.sum(axis=(1, 2)), without_biases.parts_of_image[name], atol=1e-5
        )

    positive = np.maximum(explanation.evidence["convnet"], 0)[..., np.newaxis]
    stretched = tf.image.resize(positive, (size, size), antialias=True).numpy()[..., 0]
    stretched /= stretched.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(explanation.heatmaps["convnet"], stretched, atol=1e-5)


@pytest.mark.parametrize(("size", "layer"), [(32, "block3_conv3"), (64, "block4_conv3")])
def test_places_add_up_to_their_part(size, layer):
    """Without biases the ConvNet is linear for one image, so all that it adds has its place."""
    explanation = explain_pixels(network(size), *random_images(size))
    assert explanation.layer == layer
    assert explanation.evidence["convnet"].shape == (2, 8, 8)
    for name, evidence in explanation.evidence.items():
        np.testing.assert_allclose(
            evidence.sum(axis=(1, 2)), explanation.parts_of_image[name], atol=1e-5
        )


def test_places_of_the_branches_add_up_with_biases_as_well():
    explanation = explain_pixels(network(biases=True), *random_images())
    for name in ("branch_1", "branch_2"):
        np.testing.assert_allclose(
            explanation.evidence[name].sum(axis=(1, 2)),
            explanation.parts_of_image[name],
            atol=1e-5,
        )


def test_equal_images_have_cosine_1_and_still_something_to_show():
    image = random_images()[0]
    explanation = explain_pixels(network(), image, image)
    assert explanation.cosine == pytest.approx(1, abs=1e-5)
    assert explanation.distance == 0
    for name, evidence in explanation.evidence.items():
        np.testing.assert_array_equal(evidence[0], evidence[1])
        assert evidence.sum() == pytest.approx(2 * explanation.parts[name], abs=1e-5)
    assert explanation.heatmaps["convnet"].max() == 1


def test_each_cell_of_the_layout_has_its_part():
    images = random_images(64)
    explanation = explain_pixels(network(64, layout=True, multiscale="none"), *images)
    names = ("layout_flat_colours", "layout_flat_shares")
    assert list(explanation.parts) == ["convnet", *names, "bias"]
    sums = np.sum(list(explanation.parts_of_image.values()), axis=0)
    np.testing.assert_allclose(sums, explanation.cosine, atol=1e-5)
    for name in names:
        evidence = explanation.evidence[name]
        assert evidence.shape == (2, 4, 4)
        np.testing.assert_allclose(
            evidence.sum(axis=(1, 2)), explanation.parts_of_image[name], atol=1e-5
        )
        heat = explanation.heatmaps[name]
        np.testing.assert_array_equal(heat[:, ::16, ::16], heat[:, 15::16, 15::16])
    assert {"hues", "edges"} <= set(repr(explanation).split())


def test_swapped_images_give_the_same_swapped():
    first, second = random_images()
    model = network(biases=True)
    one, other = explain_pixels(model, first, second), explain_pixels(model, second, first)
    for name in PARTS:
        assert one.parts[name] == pytest.approx(other.parts[name], abs=1e-6)
    for name, heatmap in one.heatmaps.items():
        np.testing.assert_allclose(heatmap, other.heatmaps[name][::-1], atol=1e-3)


@pytest.mark.parametrize("color", ["red", "green"])
def test_the_convnet_lights_up_where_the_other_image_is_alike(color, color_network):
    """The same image with a red and a green patch: which one counts is up to the other image."""
    places = {"red": (0, 0), "green": (24, 16)}
    both = patches(32, **places)
    alike = patches(32, **{color: (8, 24)})
    explanation = explain_pixels(color_network, both, alike)
    # Embeddings (1, 1, 0) / sqrt(2) and (1, 0, 0) or (0, 1, 0): all of it from the ConvNet.
    assert explanation.parts == pytest.approx(
        {"convnet": 0.5**0.5, "branch_1": 0, "branch_2": 0, "bias": 0}, abs=1e-5
    )
    other = "green" if color == "red" else "red"
    for heatmap, place in zip(
        explanation.heatmaps["convnet"], (places[color], (8, 24)), strict=True
    ):
        row, column = (slice(start, start + 8) for start in place)
        assert heatmap[row, column].max() == 1
        assert heatmap[row, column].sum() > 0.6 * heatmap.sum()  # the rest: bilinear borders
    row, column = (slice(start, start + 8) for start in places[other])
    assert explanation.heatmaps["convnet"][0, row, column].max() == 0
    assert explanation.heatmaps["branch_1"].max() == 0


def test_evidence_against_is_in_no_heatmap(color_network):
    """Both are red, and green, which counts as the opposite of red, makes them less alike."""
    model = color_network
    kernel, bias = model.get_layer("embedding").get_weights()
    kernel[-2] = [-0.5, 0, 0]  # green counts against red
    model.get_layer("embedding").set_weights([kernel, bias])
    both = patches(32, red=(0, 0), green=(24, 16))
    explanation = explain_pixels(model, both, patches(32, red=(8, 24)))
    evidence = explanation.evidence["convnet"][0]
    assert evidence[:4].sum() > 0 > evidence[5:].sum()
    assert explanation.heatmaps["convnet"][0, 24:, 16:24].max() == 0


def test_branches_paint_the_pixels_that_they_see(size=50):
    """Oracle: what changes when a row of pixels is lit, with a kernel that adds up its window."""
    model = network(size)
    layer = model.get_layer("branch_1_conv")
    lit = np.zeros((size, size, size, 3), np.float32)
    lit[np.arange(size), np.arange(size)] = 1
    seen = np.asarray(layer(lit)).any(axis=(2, 3))  # (pixel row, place row)
    explanation = explain_pixels(model, *random_images(size))
    positive = np.maximum(explanation.evidence["branch_1"], 0)
    assert positive.max() > 0
    expected = np.einsum("pr,qc,irc->ipq", seen, seen, positive)
    expected /= expected.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(explanation.heatmaps["branch_1"], expected, atol=1e-6)


def test_black_images_have_no_place_and_the_picture_says_so(color_network):
    black = np.zeros((32, 32, 3), np.uint8)
    explanation = explain_pixels(color_network, black, black)
    assert explanation.cosine == 0
    assert not any(heatmap.any() for heatmap in explanation.heatmaps.values())
    labels = [ax.get_xlabel() for ax in explanation_figure(explanation).axes]
    assert labels.count("(+0.000),\nno place for it") == 6


def test_shares_are_told_in_words_with_their_numbers(color_network):
    both = patches(32, red=(0, 0), green=(24, 16))
    explanation = explain_pixels(color_network, both, patches(32, red=(8, 24)))
    words = repr(explanation).splitlines()[6:]
    assert words[0] == "Most of the likeness, 100 %, comes from things and their shapes (ConvNet)."
    assert words[2].startswith("The remainder, 0 %, is what the model sees in every picture")
    figure = explanation_figure(explanation)
    assert words[0] in figure.get_suptitle().replace("\n", " ")
    labels = [ax.get_xlabel() for ax in figure.axes]
    assert labels.count("100 % (+0.707)") == 2  # cosine 1 / sqrt(2)


def test_a_network_with_nan_is_named(color_network):
    model = color_network
    kernel, bias = model.get_layer("embedding").get_weights()
    model.get_layer("embedding").set_weights([kernel * np.nan, bias])
    with pytest.raises(InputError, match="image 1: its embedding is not finite"):
        explain_pixels(model, *random_images())


@pytest.mark.slow
def test_any_file_name_can_stand_in_the_picture():
    names = ("l" * 200 + "$x_{1 日本語 line\nbreak", "Hund-groß $語.png")
    figure = explanation_figure(explain_pixels(network(), *random_images()), names)
    FigureCanvasAgg(figure).draw()
    labels = {ax.get_xlabel() for ax in figure.axes}
    long = "".join(next(label for label in labels if label.startswith("lll")).split("\n"))
    assert "…" in long and long.endswith("ll$x_{1 ??? line?break")
    assert "Hund-groß $?.png" in labels


@pytest.mark.slow
def test_a_picture_without_branches_has_room_for_its_text():
    explanation = explain_pixels(network(multiscale="none"), *random_images())
    figure = explanation_figure(explanation)
    FigureCanvasAgg(figure).draw()
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert [title.split("\n")[0] for title in titles] == ["things and their", "share of each part,"]
    assert figure.get_figwidth() < 10  # no columns for what is not there
    bars = figure.axes[-1]
    words = [label.get_text().replace("\n", " ") for label in bars.get_yticklabels()]
    assert words == ["things and their shapes (ConvNet)", "common to all pictures (bias)"]
    used = figure.get_tightbbox()  # in inches
    assert used.x0 >= 0
    assert used.y0 >= 0
    assert used.x1 <= figure.get_figwidth()
    assert used.y1 <= figure.get_figheight()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model and two images, the first of which is not square."""
    folder = tmp_path_factory.mktemp("explain")
    model = network(biases=True)
    explain_pixels(model, *random_images())
    save_model(model, folder / "model.h5")
    rng = np.random.default_rng(1)
    for name, shape in (("a b.png", (40, 50, 3)), ("b.png", (32, 32, 3))):
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(folder / name)
    return folder


@pytest.mark.slow
def test_a_saved_model_explains_the_same(files):
    """Though it was saved after it had explained something."""
    loaded = load_model(files / "model.h5")
    images = random_images()
    expected = explain_pixels(network(biases=True), *images)
    assert explain_pixels(loaded, *images).parts == pytest.approx(expected.parts, abs=1e-6)


def call(files, *others, image1="a b.png"):
    return run_command(
        "explain",
        [
            *("--model", str(files / "model.h5"), "--image1", str(files / image1)),
            *("--image2", str(files / "b.png"), *map(str, others)),
        ],
        prog="explain",
    )


@pytest.mark.slow
def test_command_writes_the_picture_and_prints_the_parts(files, tmp_path, capsys):
    output = tmp_path / "x.png"
    assert call(files, "--output", output) == 0
    printed, errors = capsys.readouterr()
    assert errors == ""
    lines = printed.splitlines()
    assert [line.split("  ")[0].split(" ")[0] for line in lines[:2]] == ["distance", "cosine"]
    cosine = float(lines[1].split()[1].rstrip(","))
    values = [float(line[11:].split()[0]) for line in lines[2:6]]
    assert sum(values) == pytest.approx(cosine, abs=1e-5)
    assert [line[2:11].strip() for line in lines[2:6]] == [
        "ConvNet",
        "branch 1",
        "branch 2",
        "bias",
    ]
    assert "of the likeness, " in lines[6]
    assert any("whatever it shows (bias)" in line for line in lines[7:])
    assert lines[-1] == f"Picture in {output}"
    with Image.open(output) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 500
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


@pytest.mark.slow
def test_command_prints_json(files, tmp_path, capsys):
    assert call(files, "--json", "-o", tmp_path / "x.JPG") == 0
    numbers = json.loads(capsys.readouterr().out)
    assert list(numbers["parts"]) == PARTS
    for parts in (numbers["parts"], *numbers["parts_of_image"].values()):
        assert sum(parts.values()) == pytest.approx(numbers["cosine"], abs=1e-5)
    assert numbers["distance"] ** 2 == pytest.approx(2 - 2 * numbers["cosine"], abs=1e-5)
    with Image.open(tmp_path / "x.JPG") as picture:
        assert picture.format == "JPEG"


@pytest.mark.slow
def test_command_explains_a_network_without_branches(files, tmp_path, capsys):
    path = tmp_path / "model.h5"
    save_model(network(multiscale="none", hidden_layers=0, pooling="average+max"), path)
    assert call(files, "--model", path, "-o", tmp_path / "x.png") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in [*lines[2:4], lines[-1]]] == ["ConvNet", "bias", "Picture"]


def test_matplotlib_knows_the_suffixes():
    known = FigureCanvasAgg.get_supported_filetypes()
    assert {suffix[1:] for suffix in PICTURE_SUFFIXES} <= known.keys()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x.gif", "must end in one of .png"),
        ("x", "must end in one of .png"),
        ("none/x.png", "cannot be written"),
        ("folder.png", "is a folder"),
    ],
)
def test_command_refuses_a_picture_it_cannot_write(files, tmp_path, capsys, name, reason):
    (tmp_path / "folder.png").mkdir()
    assert call(files, "-o", tmp_path / name) == 1
    printed, errors = capsys.readouterr()
    assert printed == ""
    assert reason in errors
    assert errors.count("\n") == 1


def test_a_broken_image_leaves_no_picture(files, tmp_path, capsys):
    (files / "broken.png").write_bytes(b"no image")
    assert call(files, "-o", tmp_path / "x.png", image1="broken.png") == 1
    errors = capsys.readouterr().err
    assert "broken.png: not an image" in errors
    assert errors.count("\n") == 1
    assert call(files, "-o", tmp_path / "x.png", image1="missing.png") == 1
    assert "missing.png: no such file; check --image1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_missing_flag_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as error:
        run_command("explain", ["--model", "m.h5"], prog="explain")
    assert error.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
