import pytest

from deep_ranking.files.words import broken_lines, byte_size, counted, duration, in_percent, listed


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (1, "class", "1 class"),
        (2000, "image", "2,000 images"),
        (3, "query", "3 queries"),
        (0, "copy", "0 copies"),
        (2, "day", "2 days"),
        (2, "class", "2 classes"),
        (2, "box", "2 boxes"),
    ],
)
def test_counts(number, noun, text):
    assert counted(number, noun) == text


def test_an_unusual_plural_is_given():
    assert counted(2, "man", "men") == "2 men"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 bytes"),
        (5, "5 bytes"),
        (1023, "1,023 bytes"),
        (1536, "1.5 KiB"),
        (5 * 2**30, "5.0 GiB"),
        (2000 * 2**50, "2,000.0 PiB"),
    ],
)
def test_sizes(number, text):
    assert byte_size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.1, "1 second"), (59, "59 seconds"), (90, "1.5 minutes"), (86_400, "1 day")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_names_in_lists_show_no_control_characters():
    """A name may hold codes that change what a terminal shows."""
    assert listed(["a\x1b[31m", "b"]) == r"a\x1b[31m, b"
    assert listed(list("abcdefg")) == "a, b, c, d, e and 2 more"
    (line,) = broken_lines([("x\x1b.png", "broken\n")], indent="  ")
    assert line == r"  x\x1b.png: broken\n"


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.384, "38 %"),
        (1, "100 %"),
        (1 - 1e-12, "100 %"),
        (0.9962, "99.6 %"),
        (0.99999, "99.9 %"),
        (0, "0 %"),
        (1e-5, "0.1 %"),
        (0.004, "0.4 %"),
        (-0.25, "-25 %"),
        (-0.0002, "-0.1 %"),
        (-1e-12, "0 %"),
        (1.2, "120 %"),
        (1.002, "100.2 %"),
    ],
)
def test_a_share_is_100_percent_only_if_it_is_all(share, words):
    assert in_percent(share) == words
