"""Why two images are alike: the heat of both, for programs and as a picture."""

import io
from functools import partial

from PIL import Image

from deep_ranking.embedding.embed import embed_images
from deep_ranking.files import InputError
from deep_ranking.files.content_digest import data_digest
from deep_ranking.images import read_image
from deep_ranking.images.thumbnails import fitted_pixels
from deep_ranking.model.calibration import probability_of_same
from deep_ranking.reports.heat_picture import heat_pictures
from deep_ranking.reports.occlusion import Occlusion, occlusion
from deep_ranking.serving.answers import ExplanationAnswer, HeatAnswer, likeness_in_words
from deep_ranking.serving.forms import Box
from deep_ranking.serving.opened import OpenState
from deep_ranking.serving.pictures import JPEG, Picture
from deep_ranking.serving.problems import unreadable
from deep_ranking.serving.query_images import (
    Pair,
    bytes_of_example,
    cropped,
    known_answer,
    part_of,
)

QUALITY = 88
MOST_SEEN = 1920  # pixels of a side that a picture is made from; a box is a part of them
DIGITS = 4  # of each share in the grids


def explain_images(state: OpenState, pair: Pair) -> ExplanationAnswer:
    """Return which places make two images alike.

    Raises:
        RequestError: one of them is unknown, gone, or cannot be read.
    """
    found = _explained(state, *_files(state, pair), pair.box)
    probability = probability_of_same(found.distance, state.collection.calibration)
    return ExplanationAnswer(
        distance=found.distance,
        cosine=found.cosine,
        probability=probability,
        words=likeness_in_words(probability),
        first=known_answer(state, pair.first),
        second=known_answer(state, pair.second),
        heat=[
            HeatAnswer(
                grid=heat.round(DIGITS).tolist(),
                strongest=float(drops.max()),
                words=found.words(number),
            )
            for number, (heat, drops) in enumerate(zip(found.heat, found.drops, strict=True))
        ],
    )


def picture_of_explanation(state: OpenState, pair: Pair) -> Picture:
    """Return both images side by side, with the heat over them.

    Raises:
        RequestError: as for `explain_images`.
    """
    files = _files(state, pair)
    found = _explained(state, *files, pair.box)
    first, second = (fitted_pixels(each, MOST_SEEN) for each in files)
    if pair.box is not None:
        first = part_of(first, pair.box)
    pixels = heat_pictures([first, second], found.heat)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY)
    return Picture(buffer.getvalue(), JPEG)


def _files(state: OpenState, pair: Pair) -> tuple[bytes, bytes]:
    first = bytes_of_example(state, pair.first, "first")
    return first, bytes_of_example(state, pair.second, "second")


def _explained(state: OpenState, first: bytes, second: bytes, box: Box | None) -> Occlusion:
    key = (data_digest(first), data_digest(second), box)
    found = state.explanations.find(key)
    if found is None:
        embedder = state.collection.embedder
        if box is not None:
            first = cropped(first, box, embedder.image_size, field="first")
        pixels = []
        for name, data in (("first", first), ("second", second)):
            try:
                pixels.append(read_image(data, embedder.image_size))
            except InputError as error:
                raise unreadable(name, error) from None
        found = occlusion(partial(embed_images, embedder), *pixels)
        state.explanations.keep(key, found)
    return found
