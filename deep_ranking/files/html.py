"""Pieces of HTML for pages and notebooks: text, tables, and pictures as data."""

import base64
import html
from collections.abc import Sequence


def escaped(text: str) -> str:
    """Return plain text as HTML that is safe inside quotes too."""
    return html.escape(readable(text))


def readable(text: str) -> str:
    r"""Return text with `\xNN` or `\uNNNN` for what cannot be shown, such as bytes not UTF-8."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def paragraph(text: str) -> str:
    """Return a paragraph of plain text."""
    return f"<p>{escaped(text)}</p>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, text: Sequence[int] = ()) -> str:
    """Return a table of plain text that scrolls if it is too wide; its first column is text.

    Args:
        header: names of the columns.
        rows: cells.
        text: numbers, from 0, of the other columns that hold text.
    """

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = [' class="text"' if column in text else "" for column in range(len(cells))]
        return "".join(
            f"<{tag}{kind}>{escaped(cell)}</{tag}>" for cell, kind in zip(cells, kinds, strict=True)
        )

    body = "\n".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table>\n<thead><tr>{line(header, "th")}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def data_uri(data: bytes, kind: str) -> str:
    """Return bytes as the address of a picture: it is in the page, and loads nothing."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
