import os
import tempfile
from types import SimpleNamespace

import numpy as np
import pytest

from deep_ranking.embedding.cached_features import CachedFeatures
from deep_ranking.embedding.embedded_features import embedded_features
from deep_ranking.files import InputError


def test_a_full_temporary_folder_is_said_before_the_work(monkeypatch):
    def full(descriptor, offset, length):
        assert (offset, length) == (0, 3 * 4 * 5)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    features = CachedFeatures(np.empty((0, 1), np.float16), np.zeros((3, 1), np.int64), ((1,),))
    model = SimpleNamespace(output_shape=(None, 5))
    with (
        pytest.raises(InputError, match=r"embeddings of 3 images \(No space.*TMPDIR") as caught,
        embedded_features(model, features),
    ):
        pytest.fail("the block was entered")
    assert str(caught.value).startswith(f"{tempfile.gettempdir()}: ")
