import imagehash
import numpy as np
import pytest
from PIL import Image

from deep_ranking.images.hand_made_features import HASH_IMAGE_SIZE, perceptual_hash


def pictures():
    rng = np.random.default_rng(0)
    size = HASH_IMAGE_SIZE, HASH_IMAGE_SIZE
    for seed in range(40):
        cells = rng.integers(0, 256, (2 + seed % 7, 3 + seed % 5, 3), np.uint8)
        yield np.asarray(Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC))
    yield rng.integers(0, 256, (*size, 3), np.uint8)


def test_the_perceptual_hash_is_that_of_imagehash():
    for image in pictures():
        expected = imagehash.phash(Image.fromarray(image)).hash.ravel()
        assert perceptual_hash(image).tolist() == expected.tolist()


@pytest.mark.parametrize("colour", [(0, 0, 0), (200, 0, 0), (255, 255, 255)])
def test_a_plain_image_has_hardly_a_bit(colour):
    plain = np.full((HASH_IMAGE_SIZE, HASH_IMAGE_SIZE, 3), colour, np.uint8)
    assert perceptual_hash(plain).sum() <= 1
