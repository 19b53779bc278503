"""Every field of every config: values of a wrong type are refused, similar ones converted."""

import dataclasses
import decimal
import enum
import json
import re
from numbers import Integral
from pathlib import Path

import numpy as np
import pytest

from deep_ranking.config import NetworkConfig, SamplingConfig, TrainConfig
from deep_ranking.config.base import Config
from deep_ranking.files import InputError
from deep_ranking.files.typed_fields import shown
from deep_ranking.images.augmentation import Augmentation


def subclasses_of(kind):
    below = [each for child in kind.__subclasses__() for each in subclasses_of(child)]
    return list(dict.fromkeys([*kind.__subclasses__(), *below]))


CONFIGS = [*subclasses_of(Config), Augmentation]
FIELDS = [(config, each) for config in CONFIGS for each in dataclasses.fields(config)]
each_field = pytest.mark.parametrize(
    ("config", "field"), FIELDS, ids=[f"{config.__name__}-{each.name}" for config, each in FIELDS]
)


class Word(enum.StrEnum):
    ONE = "one"


class Unprintable:
    def __repr__(self):
        raise RuntimeError


NAN = float("nan")
# Values by the kinds of fields that may take them.
VALUES = [
    ("bool", [True, False, np.True_, np.array(True)]),
    ("int float", [1, np.int64(1), np.uint8(1), np.array(1), -(2**70)]),
    ("float", [0.5, 1.0, np.float32(0.5), np.float64(1), np.array(0.5)]),
    ("str Path", ["1", "", Word.ONE, np.str_("1")]),
    ("Path", [Path("1")]),
    ("", [b"1", [1], [], (), (1,), {}, {"a": 1}, object(), Unprintable(), int, 1j]),
    ("", [NAN, np.float32(NAN), np.array(NAN), np.array([1]), np.array(None)]),
    ("", [np.timedelta64(1, "s"), np.timedelta64(1, "ns"), np.datetime64("2020"), np.bytes_(b"1")]),
    ("", [decimal.Decimal(1), np.array([True]), np.array([[0.5]]), 1 + 0j, slice(1), print]),
]
TAKE_PATHS = {"weights", "relevance"}  # text that may be a path
TAKE_NUMBERS = {"label"}  # text that may be a number
TAKE_INFINITY = {"relevance_cap", "relevance_gap"}

IN_CLASSES = {"batches": "classes", "dataset": "d"}


def drawn(strategy, **others):
    return {"dataset": "d", "sampling": SamplingConfig(strategy=strategy), **others}


# A value of each field without a default, and the settings that it needs.
GIVEN = {
    "triplets": (Path("a/t.txt"), {}),
    "dataset": (Path("a/d"), {}),
    "label": ("parent", IN_CLASSES),
    "classes": (Path("c.csv"), IN_CLASSES),
    "corrections": (Path("w.csv"), IN_CLASSES),
    "splits": (True, IN_CLASSES),
    "split": ("train", IN_CLASSES),
    "validation_split": ("val", IN_CLASSES),
    "max_images_per_class": (5, IN_CLASSES),
    "steps_per_epoch": (3, {}),
    "save_augmented": (Path("a"), {}),
    "cache_dir": (Path("a"), {}),
    "level": (2, drawn("in-class")),
    "relevance": ("tree", drawn("relevance")),
    "neighbours_of": (Path("m.h5"), drawn("hard")),
    "resample_every": (2, drawn("hard")),
    "strategy": ("hard", {}),
    "out_of_class_share": (0.5, {"strategy": "in-class"}),
    "train_from": ("head", {}),
    "branch_start": ("kmeans", {}),
    "pairs": (Path("shop"), IN_CLASSES),
    "head_learning_rate": (0.5, {}),
    "clip_norm": (1.0, {}),
    "validation_triplets": (Path("v.txt"), {}),
    "validation_dataset": (Path("v"), {}),
    "validation_share": (0.25, IN_CLASSES),
    "monitor": ("loss", {}),
    "patience": (2, {}),
    "xla": (True, {}),
    "devices": ("all", {}),
    "hosts": ("a:1,b:1", {"host_index": 0}),
    "host_index": (1, {"hosts": "a:1,b:1"}),
    "normalisation": ("unit", {}),
    "backbone_size": (256, {}),
}


def kind_of(field):
    """Return the name of the type that a field declares, and whether it takes None."""
    text = field.type.__name__ if isinstance(field.type, type) else str(field.type)
    names = [name.rpartition(".")[2] for name in text.split(" | ")]
    return names[0], "None" in names


def valid_settings(config, field):
    """Return settings that the config takes, with a value of the field, not None."""
    if field.default_factory is not dataclasses.MISSING:
        return {field.name: field.default_factory()}
    if field.default is not None:
        return {field.name: field.default}
    value, needed = GIVEN[field.name]
    names = {each.name for each in dataclasses.fields(config)}
    return {name: each for name, each in needed.items() if name in names} | {field.name: value}


def test_all_configs_are_found():
    names = {"NetworkConfig", "SamplingConfig", "TrainConfig", "LossConfig", "Augmentation"}
    assert names < {each.__name__ for each in CONFIGS}
    assert {kind_of(each)[0] for _, each in FIELDS} == {
        *("bool", "int", "float", "str", "Path"),
        *("NetworkConfig", "SamplingConfig", "Augmentation"),
    }


@each_field
def test_values_of_another_type_are_refused(config, field):
    kind, takes_none = kind_of(field)
    settings = valid_settings(config, field)
    wrong = [value for kinds, values in VALUES if kind not in kinds.split() for value in values]
    if field.name in TAKE_PATHS:
        wrong = [value for value in wrong if not isinstance(value, Path)]
    if field.name in TAKE_NUMBERS:
        wrong = [
            value for value in wrong if isinstance(value, bool) or not isinstance(value, Integral)
        ]
    assert len(wrong) > 25
    for value in wrong:
        with pytest.raises(InputError) as caught:
            config(**settings | {field.name: value})
        said = str(caught.value)
        assert re.match(rf"{field.name} must be an? \w+|{field.name} must be True", said), said
        assert said.endswith(f"Received: {shown(value)}")
    if takes_none:
        return
    with pytest.raises(InputError, match=f"^{field.name} must not be None$"):
        config(**settings | {field.name: None})


@each_field
def test_infinity_is_refused(config, field):
    settings = valid_settings(config, field)
    if field.name in TAKE_INFINITY:
        assert getattr(config(**{field.name: np.float32(np.inf)}), field.name) == float("inf")
        return
    for value in (float("inf"), np.float64("-inf")):
        with pytest.raises(InputError, match=f"^{field.name} must "):
            config(**settings | {field.name: value})


@each_field
def test_similar_values_are_converted(config, field):
    kind, _ = kind_of(field)
    settings = valid_settings(config, field)
    value = settings[field.name]
    makers = {
        "bool": [np.bool_, np.array],
        "int": [np.int64, np.int32, np.array],
        "float": [np.float64, np.longdouble, np.array],
        "str": [np.str_, type("Text", (str,), {})],
        "Path": [str, np.str_],
    }
    plain = config(**settings)
    for make in makers.get(kind, []):
        assert type(make(value)) is not type(value)
        made = config(**settings | {field.name: make(value)})
        found = getattr(made, field.name)
        assert type(found) is type(value) and found == value
        assert made == plain and hash(made) == hash(plain)
        if hasattr(config, "to_json"):
            assert made.to_json() == plain.to_json()
    if kind == "float" and value == int(value):
        made = config(**settings | {field.name: int(value)})
        assert type(getattr(made, field.name)) is float and made == plain


def test_narrow_floats_keep_their_value():
    assert NetworkConfig(dropout=np.float32(0.1)).dropout == float(np.float32(0.1))


def test_integers_that_no_float_holds_are_refused():
    with pytest.raises(InputError, match=r"^gap must be a number. Received: 1000\d+ \.\.\. \(int"):
        TrainConfig(gap=10**400)


def test_paths_where_text_may_be_a_path():
    assert NetworkConfig(weights=Path("a/w.h5")).weights == "a/w.h5"
    assert TrainConfig(relevance=Path("r.csv"), **drawn("relevance")).relevance == "r.csv"


def test_no_weights_as_the_flag_has_it():
    assert NetworkConfig(weights="none") == NetworkConfig(weights=None)


def test_numpy_sizes_make_a_description_that_can_be_saved():
    sizes = {"image_size": np.int64(32), "hidden_size": np.uint16(8), "dropout": np.float64(0.5)}
    config = NetworkConfig(**sizes)
    assert NetworkConfig.from_json(config.to_json()) == dataclasses.replace(config, weights=None)
    assert json.loads(config.to_json())["image_size"] == 32


def test_output_as_text():
    assert TrainConfig(output="a/m.h5").run_dir == Path("a/m.run")


def test_a_boolean_is_no_number_of_layers():
    with pytest.raises(InputError, match=r"^hidden_layers must be an integer. Received: True \(bo"):
        NetworkConfig(hidden_layers=True)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seed": 2**32}, "seed must lie between 0 and 4294967295"),
        ({"validation_share": 0.0, **IN_CLASSES}, "validation_share must lie between 0 and 1"),
        ({"validation_share": 1.0, **IN_CLASSES}, "validation_share must lie between 0 and 1"),
    ],
)
def test_ranges_that_only_a_run_met(settings, said):
    with pytest.raises(InputError, match=said):
        TrainConfig(**settings)


def test_long_values_are_shown_in_short():
    assert len(shown("x" * 1000)) < 130
    assert shown(Unprintable()) == "a value (Unprintable)"
