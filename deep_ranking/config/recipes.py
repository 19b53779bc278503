"""Recipes: named sets of settings that belong together. A flag can still change each of them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from deep_ranking.config.backbones import EFFICIENTNET_LITE0, find_backbone
from deep_ranking.files import InputError
from deep_ranking.images import find_images, fitting_size

MIN_BACKBONE_SIZE = 32  # what most backbones need to see


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A named set of settings.

    Attributes:
        name: its value of `--recipe`.
        summary: what it does, and for whom.
        gives: its measured result.
        takes: how long it takes, on two cores.
        command: how to run it.
        settings: new defaults of flags, by their names.
        max_image_size: largest input of the network in pixels; smaller images set a smaller input.
            None leaves sizes to the flags.
        max_backbone_size: size in pixels to enlarge images to for the backbone.
        max_enlargement: largest factor by which they are enlarged.
        with_flags: the recipes that take its place where a flag has another value than its own, by
            the flag's name. The first such flag decides.
    """

    name: str
    summary: str
    gives: str
    takes: str
    command: str
    settings: dict[str, Any] = field(default_factory=dict)
    max_image_size: int | None = None
    max_backbone_size: int = 0
    max_enlargement: float = 2.0
    with_flags: "Mapping[str, Recipe]" = field(default_factory=dict)

    def on(self, flags: Mapping[str, Any]) -> "Recipe":
        """Return the recipe beside other flags: itself, or what takes its place.

        Args:
            flags: values of flags by their names, None where a flag is not given; only those of
                `with_flags` count.

        Raises:
            InputError: no backbone has the given name.

        Example:
            >>> RECIPES["laptop"].settings["learning_rate"]
            0.0003
            >>> RECIPES["laptop"].on({"pairs": "shop"}).settings["learning_rate"]
            3e-05
        """
        for flag, recipe in self.with_flags.items():
            value = flags.get(flag)
            if flag == "backbone" and value is not None:
                value = find_backbone(value).name
            if value not in (None, self.settings.get(flag)):
                return recipe
        return self

    def sizes(
        self, dataset: str | os.PathLike[str] | None, image_size: int | None = None
    ) -> dict[str, int]:
        """Return the sizes that suit a data set.

        Args:
            dataset: folder of images, some of which are measured; None for no folder.
            image_size: side of the network's input in pixels; None to choose it by the images.

        Returns:
            "image_size" and "backbone_size" in pixels; nothing without a folder, or if the recipe
            leaves sizes to the flags.

        Raises:
            InputError: the folder cannot be used.
        """
        if self.max_image_size is None or not dataset:
            return {}
        if image_size is None:
            image_size = fitting_size(find_images(dataset).files(), self.max_image_size)
        enlarged = min(int(self.max_enlargement * image_size), self.max_backbone_size)
        backbone_size = max(image_size, enlarged, MIN_BACKBONE_SIZE)
        return {"image_size": image_size, "backbone_size": backbone_size}


BLOG = Recipe(
    name="blog",
    summary="the article's: random start, all layers, SGD, gap 1, triplets sampled beforehand",
    gives="the article's network; worse than no training on small data",
    takes="days",
    command="train.py --recipe blog --triplets triplets.txt --output m.h5",
    settings={"weights": "none"},
)

# Recipes add their own augmentation to this.
_NO_AUGMENTATION = {
    "horizontal_flip": False,
    "vertical_flip": False,
    "rotation": 0.0,
    "zoom": 0.0,
    "shear": 0.0,
}

PAPER = Recipe(
    name="paper",
    summary="Wang et al. 2014 as far as it can be reproduced: pre-trained backbone, its "
    "subsampled branches, squared distance, pixel shifts, weight penalty 0.001, dropout 0.4; "
    "sample its triplets by triplet_sampler.py --strategy relevance",
    gives="on products never seen, mAP@R 0.58 times its untouched backbone's after 200 batches at "
    "64 pixels (benchmarks/quality.md); not measured at the paper's size, 24 million triplets",
    takes="days",
    command="train.py --recipe paper --triplets triplets.txt --output m.h5",
    settings=_NO_AUGMENTATION
    | {
        "image_size": 225,
        "weights": "imagenet",
        "multiscale": "paper",
        "dropout": 0.4,
        "distance": "squared",
        "weight_penalty": 0.001,
        "shift": 8.0,
    },
)

_BACKBONE_ALONE = {
    "backbone": "resnet50",
    "weights": "imagenet",
    "multiscale": "none",
    "hidden_layers": 0,
}

PORT = Recipe(
    name="port",
    summary="the PyTorch port's: ResNet, a linear embedding of 4,096, random crops and flips, SGD "
    "with weight decay, the rate divided by 10 on a plateau; the embedding has unit length here",
    gives="on products never seen, mAP@R 0.88 times its untouched backbone's after 100 of its many "
    "batches (EfficientNet-Lite0, benchmarks/quality.md)",
    takes="days",
    command="train.py --recipe port --triplets triplets.txt --output m.h5",
    settings=_NO_AUGMENTATION
    | _BACKBONE_ALONE
    | {
        "dropout": 0.0,
        "embedding_size": 4096,
        "batch_size": 90,
        "epochs": 50,
        "decay": "plateau",
        "weight_decay": 1e-5,
        "horizontal_flip": True,
        "resized_crop": 0.08,
    },
)

RETRIEVAL = Recipe(
    name="retrieval",
    summary="consumer-to-shop retrieval: trains the last stage of ResNet50 and an embedding of "
    "512, gap 0.5, Adam; sample its triplets by triplet_sampler.py --pairs or --strategy in-class",
    gives="on products never seen, mAP@R 1.01 times its untouched backbone's after 200 batches "
    "(EfficientNet-Lite0, benchmarks/quality.md)",
    takes="hours",
    command="train.py --recipe retrieval --triplets triplets.txt --output m.h5",
    settings=_NO_AUGMENTATION
    | _BACKBONE_ALONE
    | {
        "train_from": "conv5",
        "dropout": 0.5,
        "embedding_size": 512,
        "gap": 0.5,
        "optimizer": "adam",
        "learning_rate": 1e-4,
        "epochs": 10,
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

_CACHED = {
    "cache_features": True,
    "cached_views": 1,
    "precision": "auto",
    "rotation": 0.0,
    "zoom": 0.0,
    "shear": 0.0,
    "dropout": 0.0,
    "learning_rate": 3e-4,
    "max_images_per_class": 150,
}

_LAPTOP_ON_OTHERS = Recipe(
    name="laptop",
    summary="for a folder of classes and two cores, with another backbone than its own: computes "
    "the backbone's features once, starts the embedding from them, and trains the layers that "
    "follow",
    gives="with VGG16 on classes never seen, mAP@R 1.5 times the untouched backbone's on Tiny "
    "ImageNet at 64 pixels (benchmarks/quality.md)",
    takes="6 minutes for 15,000 images of 64 pixels, most of it in the first run only",
    command="train.py --recipe laptop --backbone vgg16 --dataset DIR --output m.h5",
    settings=_POOLED | _CACHED | {"train_from": "head", "batch_size": 192, "epochs": 3},
    max_image_size=128,
    max_backbone_size=192,
)

_LAPTOP_ALONE = Recipe(
    name="laptop",
    summary="for a folder of classes and two cores: computes the lower blocks of "
    "EfficientNet-Lite0 and the shares of 128 colours once, starts the embedding from both, and "
    "trains it with the upper blocks",
    gives="on products never seen, mAP@R 1.36 times the untouched backbone's and 1.27 times what "
    "the recipe gives on VGG16 (Grocery photographs at 128 pixels, benchmarks/quality.md)",
    takes="2 minutes for 800 photographs",
    command="train.py --recipe laptop --dataset DIR --output m.h5",
    settings=_POOLED
    | _CACHED
    | {
        "backbone": EFFICIENTNET_LITE0.name,
        "pooling": "average",
        "pooled_blocks": 1,
        "multiscale": "colour",
        "train_branches": False,
        "embedding_size": 512,
        "train_from": "block6",
        "backbone_rate": 0.3,
        "batch_size": 96,
        "epochs": 3,
        "max_images_per_class": 100,
    },
    max_image_size=224,
    max_backbone_size=224,
    max_enlargement=4.0,
)

_LAPTOP_ON_PAIRS = replace(
    _LAPTOP_ALONE,
    summary="for photographs and a shop's pictures of the same things (--pairs), and two cores: as "
    "without --pairs, at a tenth of the learning rate",
    gives="for photographs of products never seen, the right one of 41 shop pictures is first for "
    "52 percent, and for 48 percent without training (Grocery, one picture a product, "
    "benchmarks/quality.md)",
    command="train.py --recipe laptop --dataset DIR --pairs DIR --output m.h5",
    settings=_LAPTOP_ALONE.settings | {"learning_rate": 3e-5},
)

LAPTOP = replace(
    _LAPTOP_ALONE, with_flags={"backbone": _LAPTOP_ON_OTHERS, "pairs": _LAPTOP_ON_PAIRS}
)

FINE_TUNE = Recipe(
    name="fine-tune",
    summary="for a fast machine: as laptop, but augments images anew each time, and trains the "
    "upper two blocks of the backbone as well",
    gives="on products never seen, mAP@R 1.20 times its untouched backbone's after 200 batches "
    "(EfficientNet-Lite0 from block 6 at 128 pixels, benchmarks/quality.md)",
    takes="hours on two cores; those 200 batches, 12 minutes",
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

TAUGHT = Recipe(
    name="taught",
    summary="goes on from a model with what people answered to which of two images is more like a "
    "third: fits its last layer to the answers, as far as classes in --dataset stay known",
    gives="agreement with a simulated rater who goes by colour from 0.61 to 0.85 by 200 answers "
    "(Grocery, benchmarks/README.md)",
    takes="seconds, once the features of the images are computed",
    command="train.py --recipe taught --ratings ratings.csv --images DIR --weights m.h5 "
    "--output taught.h5",
)

_TRAINED = (BLOG, PAPER, PORT, RETRIEVAL, LAPTOP, FINE_TUNE)
RECIPES = {recipe.name: recipe for recipe in (*_TRAINED, TAUGHT)}
EPOCH_RECIPES = {recipe.name: recipe for recipe in _TRAINED}  # those that train in epochs


def find_recipe(name: str) -> Recipe:
    """Return the recipe with this name.

    Raises:
        InputError: no recipe has this name.
    """
    if not isinstance(name, str) or name not in RECIPES:
        raise InputError(f"recipe must be one of {', '.join(RECIPES)}. Received: {name}")
    return RECIPES[name]
