"""Results as pictures, as a notebook shows them."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deep_ranking import Comparison, MoveReport, Result, SearchResults
from deep_ranking.embedding.calibrating import CalibrationResult
from deep_ranking.images.thumbnails import MOST_IMAGES, MOST_ROWS, THUMBNAIL_SIZE, image_rows
from deep_ranking.model.calibration import Calibration

NAME = "<b>&'\".png"


@pytest.fixture
def image(tmp_path):
    """A large image under a name that HTML must escape."""
    cells = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    pixels = np.repeat(np.repeat(cells, 100, axis=0), 100, axis=1)
    Image.fromarray(pixels).save(tmp_path / NAME)
    return tmp_path / NAME


def pictures(html):
    sources = re.findall(r'src="data:image/jpeg;base64,([^"]*)"', html)
    assert len(sources) == html.count("<img")
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(each)))) for each in sources]


@pytest.mark.slow
def test_pictures_are_few_small_and_escaped(image):
    html = image_rows([[(image, f"{NAME} {number}") for number in range(30)]] * 20)
    shown = pictures(html)
    assert len(shown) == MOST_ROWS * MOST_IMAGES
    assert {each.shape for each in shown} == {(THUMBNAIL_SIZE, THUMBNAIL_SIZE, 3)}
    assert shown[0].std() > 10
    assert html.count(f"and {30 - MOST_IMAGES} more") == MOST_ROWS
    assert f"and {20 - MOST_ROWS} more" in html
    assert "<b>" not in html
    assert "&lt;b&gt;&amp;&#x27;&quot;.png 0" in html


def test_a_file_that_is_gone_is_a_white_square(tmp_path):
    (square,) = pictures(image_rows([[(tmp_path / "gone.png", "gone")]]))
    assert square.min() == 255


def test_search_results_as_text_and_pictures(image):
    found = [Result(1, 0.5, str(image), "cat", 0.25), Result(2, 1.0, str(image), "", None)]
    results = SearchResults([str(image)], [found], [], np.zeros((1, 4), np.float32))
    assert repr(results) == f"1  0.500000  p(hit) 0.250  {image}\n2  1.000000  {image}"
    assert results.text(metric="cosine").startswith("1  0.875000  p(hit)")
    assert (len(results), results[0], [*results]) == (1, found, [found])
    assert [row["cosine"] for row in results.rows()] == [0.875, 0.5]
    html = results._repr_html_()
    assert len(pictures(html)) == 3
    assert "cat: 0.500, p(hit) 0.25" in html
    assert "<b>" not in html
    twice = SearchResults([str(image)] * 2, [found] * 2, [], np.zeros((2, 4), np.float32))
    assert repr(twice).startswith(f"{image}:\n1  0.5")


def test_a_comparison_with_and_without_calibration(image):
    plain = Comparison(str(image), str(image), 0.5, None)
    assert repr(plain).startswith("0.500000\nsimilar, by the article's rule of thumb alone")
    assert plain.probability is None
    assert "not similar" in Comparison("a", "b", 1.5, None).meaning
    calibration = Calibration((0.0, 2.0), (0.9, 0.1), (0.0, 1.0), (1.0, 2.0), 1.0, 20)
    found = Comparison(str(image), str(image), 0.5, calibration)
    assert found.probability == pytest.approx(0.7)
    assert "probability of 0.700" in found.meaning
    assert "nearer than 50.0% of same pairs and 100.0% of different pairs" in found.meaning
    html = found._repr_html_()
    assert len(pictures(html)) == 2
    assert "<b>" not in html


def test_a_calibration_as_a_table():
    calibration = Calibration((0.0, 2.0), (0.9, 0.1), (0.0, 1.0), (1.0, 2.0), 1.0, 20)
    html = CalibrationResult(calibration, 7, 0.125, Path("<m>.h5"))._repr_html_()
    assert html.count("<tr>") == 12
    assert "<td>1.000</td><td>0.500</td>" in html
    assert "Calibration stored in &lt;m&gt;.h5." in html
    assert "\\n" not in html
    assert "12.5% of the pairs" in repr(CalibrationResult(calibration, 7, 0.125, None))


def test_a_move_in_words():
    assert repr(MoveReport(2, 2048, 1, [("a", "gone")])) == (
        "2 images moved, 2.0 KiB; 1 already in place, 1 not moved"
    )
