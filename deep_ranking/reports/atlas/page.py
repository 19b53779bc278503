"""An atlas -> its page: pictures side by side, with the heat of why where classes are confused."""

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deep_ranking.files.array_types import Float64Array, UInt8Array
from deep_ranking.files.html import escaped, paragraph
from deep_ranking.files.words import counted
from deep_ranking.images.thumbnails import thumbnail
from deep_ranking.reports.atlas.atlas import Atlas
from deep_ranking.reports.atlas.errors import ConfusedPair, confusion_examples
from deep_ranking.reports.heat_picture import heat_over
from deep_ranking.reports.page.html import Section, page, section

NUM_PAIRS, NUM_EXAMPLES = 12, 3  # pairs of classes, and examples of each
NUM_WRONG, NUM_FAR = 36, 24

Heat = tuple[Float64Array, Sequence[str]]
"""Float64 (2, rows, columns), 0 to 1, of two images; and what it says of each, in words."""


@dataclass(frozen=True)
class AtlasPictures:
    """What the page shows besides numbers.

    Attributes:
        read: returns the pixels of an image file, uint8 (height, width, 3).
        heat: for some rows of images, why their nearest image is like them.
    """

    read: Callable[[str], UInt8Array]
    heat: dict[int, Heat]


def shown_confusions(atlas: Atlas) -> list[ConfusedPair]:
    """Return the pairs of classes that the page shows."""
    return atlas.errors.confusions[:NUM_PAIRS]


def atlas_page(atlas: Atlas, pictures: AtlasPictures, *, title: str) -> str:
    """Return the page as HTML.

    Args:
        atlas: the errors.
        pictures: what to show of them.
        title: its heading, in plain text.

    Raises:
        InputError: an image can no longer be read.
    """
    shown = _Shown(atlas, pictures)
    return page(
        title,
        [
            section(
                "Summary",
                "What the model gets wrong on pictures whose classes are known, and which of these "
                "classes are likely wrong themselves. suspects.csv beside this page has the likely "
                "wrong labels: look at each here, delete the lines of labels that are right, and "
                "give the rest to any command as --corrections.",
                paragraph(atlas.conclusion()),
                *map(paragraph, atlas.notes()),
            ),
            _suspects(shown),
            _confusions(shown),
            _wrong(shown),
            _far(shown),
        ],
    )


@dataclass(frozen=True)
class _Shown:
    atlas: Atlas
    pictures: AtlasPictures

    @functools.cached_property
    def names(self) -> list[str]:
        """Class names as the page has room for: the last folder alone, where that is enough."""
        names = self.atlas.data.items.names
        tails = [each.rpartition("/")[2] for each in names]
        counts = Counter(tails)
        return [
            tail if counts[tail] == 1 else name for tail, name in zip(tails, names, strict=True)
        ]

    def label(self, row: int) -> str:
        return self.names[int(self.atlas.errors.codes[row])]

    def figure(self, row: int, mark: str, kind: str = "") -> str:
        path = self.atlas.data.paths[row]
        pixels = self.pictures.read(self.atlas.data.files()[row])
        name = path.rpartition("/")[2]  # the whole path is shown when pointed at
        return thumbnail(pixels, name, mark=mark, kind=kind, description=path)

    def heated(self, rows: Sequence[int], heat: Heat) -> str:
        figures = []
        for row, cells, words in zip(rows, *heat, strict=True):
            pixels = heat_over(self.pictures.read(self.atlas.data.files()[row]), cells)
            figures.append(thumbnail(pixels, words, description=f"Heat over: {words}"))
        return f'<div class="row">{"".join(figures)}</div>'


def _suspects(shown: _Shown) -> Section:
    atlas = shown.atlas
    cards = [
        _card(
            shown.figure(each.row, f"labelled {shown.label(each.row)}", "miss"),
            shown.figure(each.witness, f"like {shown.names[each.proposed]}?", "hit"),
            text=atlas.evidence(each),
        )
        for each in atlas.errors.likely
    ]
    how = (
        "On the left a picture that another class fits better than its own, by all other pictures; "
        "on the right the nearest picture of that class. The likeliest wrong labels come first. "
        "Further down, the label may be right and the model wrong."
    )
    none = "None: every picture fits its own class best."
    return section("Likely wrong labels", how, _cards(cards, none))


def _confusions(shown: _Shown) -> Section:
    atlas = shown.atlas
    confusions = shown_confusions(atlas)
    nearest = atlas.errors.neighbours.nearest
    parts = []
    for each in confusions:
        first, second = shown.names[each.first], shown.names[each.second]
        parts.append(f"<h3>{escaped(first)} ↔ {escaped(second)}</h3>")
        words = f"{counted(each.num_first, 'picture')} of {first} nearest to one of {second}"
        if each.num_second:
            words += f", {each.num_second:,} the other way"
        parts.append(paragraph(f"{words}."))
        cards = []
        for row in confusion_examples(atlas.errors, each)[:NUM_EXAMPLES]:
            rows = row, int(nearest[row, 0])
            figures = [
                shown.figure(at, shown.label(at), kind)
                for at, kind in zip(rows, ("", "miss"), strict=True)
            ]
            heat = shown.pictures.heat.get(row)
            cards.append(_card(*figures, more="" if heat is None else shown.heated(rows, heat)))
        parts.append(_cards(cards, ""))
    how = (
        "Pairs of classes that the model takes for each other, the most often first: a picture of "
        "one, and its nearest, which is of the other. Warm places make the two alike: with them "
        "covered, the likeness falls. Classes that people mix up too are no harm."
    )
    if more := len(atlas.errors.confusions) - len(confusions):
        parts.append(paragraph(f"{counted(more, 'pair')} more in atlas.json."))
    if num_others := len(confusions) - len(shown.pictures.heat):
        words = "Heat is computed for the clearest example of the first pairs alone"
        parts.append(paragraph(f"{words}: {counted(num_others, 'pair')} without."))
    none = paragraph("None: the nearest of each picture is of its class.")
    return section("Confused classes", how, *(parts if confusions else [none]))


def _wrong(shown: _Shown) -> Section:
    atlas = shown.atlas
    doubted = {each.row for each in atlas.errors.likely}
    wrong = [each for each in atlas.errors.wrong if each.row not in doubted]
    cards = [
        _card(
            shown.figure(each.row, shown.label(each.row)),
            shown.figure(each.nearest, f"✗ {shown.label(each.nearest)}", "miss"),
            shown.figure(each.own, f"✓ {shown.label(each.own)}", "hit"),
            text=f"Nearer by {each.lead:.3f} than the nearest of its class.",
        )
        for each in wrong[:NUM_WRONG]
    ]
    how = (
        "A picture, its nearest, which is of another class, and the nearest of its own class. "
        "Pictures whose label is likely wrong are above, and not here. hard_triplets.txt beside "
        "this page has such triplets, also of pictures with another class among their 10 nearest: "
        "`train.py --triplets` learns from it."
    )
    parts = [_cards(cards, "None besides those above.")]
    if more := len(wrong) - len(cards):
        parts.append(paragraph(f"{counted(more, 'picture')} more in atlas.json."))
    return section("Nearest of another class", how, *parts)


def _far(shown: _Shown) -> Section:
    atlas = shown.atlas
    far = atlas.errors.far
    cards = [
        _card(
            shown.figure(each.row, shown.label(each.row)),
            shown.figure(each.own, "nearest of its class", "hit"),
            text=f"Cosine with its class {each.cosine:.2f}, where {each.usual:.2f} is usual.",
        )
        for each in far[:NUM_FAR]
    ]
    how = (
        "Pictures far from all of their class, though no other class fits better: strange views, "
        "many things in one picture, or a class that is missing. Classes of fewer than 5 pictures "
        "are not looked at."
    )
    parts = [_cards(cards, "None.")]
    if more := len(far) - len(cards):
        parts.append(paragraph(f"{counted(more, 'picture')} more in atlas.json."))
    return section("Far from their class", how, *parts)


def _card(*figures: str, text: str = "", more: str = "") -> str:
    kind = "row three" if len(figures) == 3 else "row"
    rows = f'<div class="{kind}">{"".join(figures)}</div>{more}'
    return f'<div class="pair">{rows}{paragraph(text) if text else ""}</div>'


def _cards(cards: Sequence[str], none: str) -> str:
    if cards:
        return f'<div class="pairs">{"".join(cards)}</div>'
    return paragraph(none) if none else ""
