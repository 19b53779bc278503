"""Recipes: named sets of settings that belong together, each of which a flag can still change."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A named set of settings.

    Attributes:
        name: what `--recipe` calls it.
        summary: what it does, and for whom.
        gives: what it gave where it was measured.
        takes: how long it takes, on two cores.
        command: how to run it.
        settings: values of flags, by their names, in place of the defaults.
        max_image_size: the network is made for images of this size, or of theirs if they are
            smaller; None leaves sizes to the flags.
        max_backbone_size: to which images are enlarged for the backbone, but no more than twice.
    """

    name: str
    summary: str
    gives: str
    takes: str
    command: str
    settings: dict[str, Any] = field(default_factory=dict)
    max_image_size: int | None = None
    max_backbone_size: int = 0


BLOG = Recipe(
    name="blog",
    summary="the article's: random start, all layers, SGD, gap 1, triplets sampled beforehand",
    gives="the article's network; worse than no training on small data",
    takes="days",
    command="train.py --recipe blog --triplets triplets.txt --output m.h5",
    settings={"weights": "none"},
)

PAPER = Recipe(
    name="paper",
    summary="Wang et al. 2014 as far as it can be had: pre-trained backbone, squared distance, "
    "pixel shifts, weight decay 0.001, dropout 0.4; triplets are not sampled by relevance",
    gives="not measured at the paper's size (24 million triplets)",
    takes="days",
    command="train.py --recipe paper --triplets triplets.txt --output m.h5",
    settings={
        "image_size": 225,
        "multiscale": "paper",
        "weights": "imagenet",
        "dropout": 0.4,
        "distance": "squared",
        "weight_decay": 0.001,
        "horizontal_flip": False,
        "vertical_flip": False,
        "rotation": 0.0,
        "zoom": 0.0,
        "shear": 0.0,
        "shift": 8.0,
    },
)

_POOLED = {
    "batches": "classes",
    "weights": "imagenet",
    "pooling": "average+max",
    "pooled_blocks": 2,
    "hidden_layers": 0,
    "multiscale": "none",
    "embedding_size": 1024,
    "embedding_start": "whitened",
    "loss": "supervised_contrastive",
    "temperature": 0.07,
    "optimizer": "adam",
    "decay": "cosine",
    "warmup_steps": 20,
    "images_per_class": 4,
    "vertical_flip": False,
}

LAPTOP = Recipe(
    name="laptop",
    summary="for a folder of classes and two cores: the backbone's features are computed once, "
    "the embedding starts from them, and what follows is trained",
    gives="on classes never seen, mAP@R 1.5 times the untouched backbone's on Tiny ImageNet at 64 "
    "pixels (benchmarks/quality.md)",
    takes="6 minutes for 15,000 images of 64 pixels, most of it once for any number of runs",
    command="train.py --recipe laptop --dataset DIR --output m.h5",
    settings=_POOLED
    | {
        "cache_features": True,
        "cached_views": 1,
        "precision": "auto",
        "rotation": 0.0,
        "zoom": 0.0,
        "shear": 0.0,
        "train_from": "head",
        "batch_size": 192,
        "max_images_per_class": 150,
        "epochs": 3,
        "learning_rate": 3e-4,
        "dropout": 0.0,
    },
    max_image_size=128,
    max_backbone_size=192,
)

FINE_TUNE = Recipe(
    name="fine-tune",
    summary="for a fast machine: as laptop, but images are augmented anew each time, and the upper "
    "two blocks of the backbone are trained as well",
    gives="not measured",
    takes="hours on two cores",
    command="train.py --recipe fine-tune --dataset DIR --output m.h5",
    settings=_POOLED
    | {
        "train_from": "block4_conv1",
        "batch_size": 96,
        "steps_per_epoch": 200,
        "epochs": 10,
        "head_epochs": 1,
        "head_learning_rate": 1e-3,
        "learning_rate": 1e-4,
        "backbone_rate": 0.1,
        "rotation": 10.0,
        "dropout": 0.3,
    },
)

RECIPES = {recipe.name: recipe for recipe in (BLOG, PAPER, LAPTOP, FINE_TUNE)}
