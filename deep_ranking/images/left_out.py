"""What listing a folder left out: counted by kind, and said in words."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from deep_ranking.files.words import counted, listed
from deep_ranking.images.formats import missing_extra

MOST_KINDS = 5  # of other files, in a line
MENDED = ("without_reader", "other_files")  # kinds whose sentence says what to do

# Folders that systems and programs make beside people's images, and files. In lower case.
SYSTEM_FOLDERS = frozenset(
    (
        "@eadir",  # Synology's thumbnails
        "#recycle",
        "#snapshot",
        "#work",
        "@tmp",
        "@sharebin",
        "@recently-snapshot",
        "@recycle",
        "$recycle.bin",
        "recycler",
        "recycled",
        "found.000",
        "ipod photo cache",
        "__pycache__",
        "system volume information",
        "__macosx",
        "lost+found",
    )
)
SYSTEM_ENDINGS = (".lrdata", ".photoslibrary")
SYSTEM_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini"))


def is_system_folder(name: str) -> bool:
    """Return whether a folder is made by a system, such as its recycle bin or its thumbnails."""
    return name.lower() in SYSTEM_FOLDERS or name.lower().endswith(SYSTEM_ENDINGS)


class LeftOutKind(NamedTuple):
    """A kind of files or folders that were left out: its name for programs, and two phrases."""

    name: str
    what: str
    remedy: str


@dataclass(frozen=True)
class LeftOut:
    """What a listing left out.

    Attributes:
        others: files that are no images by their names: number by extension, lower case.
        without_reader: images of formats that need an optional package: number by format.
        system_folders: folders of systems that were not entered: number by name.
        num_hidden: files and folders whose names begin with a dot.
        num_unlistable: images with a line break in the path, which would break a text file.
        num_seen_again: links to a folder that is listed already.
        unreadable: folders that may not be read.
        empty_folders: folders without images; one stands for those in it.
        looked_inside: whether the content of files decided, not their names alone.
        num_outside: images in no folder of a class; known only once there are classes.
    """

    others: Mapping[str, int] = field(default_factory=Counter)
    without_reader: Mapping[str, int] = field(default_factory=Counter)
    system_folders: Mapping[str, int] = field(default_factory=Counter)
    num_hidden: int = 0
    num_unlistable: int = 0
    num_seen_again: int = 0
    unreadable: tuple[str, ...] = ()
    empty_folders: tuple[str, ...] = ()
    looked_inside: bool = False
    num_outside: int = 0

    def kinds(self) -> Iterator[LeftOutKind]:
        """Yield each kind of which anything was left out, what matters most first."""
        if self.unreadable:
            folders = counted(len(self.unreadable), "folder")
            yield LeftOutKind(
                "unreadable_folders",
                f"{folders} left out: may not be read ({listed(self.unreadable)})",
                "allow reading them",
            )
        for name, number in self.without_reader.items():
            yield LeftOutKind(
                "without_reader",
                f"{counted(number, f'{name} image')} left out: no reader for this format",
                f"install {missing_extra(name)}",
            )
        if self.num_unlistable:
            yield LeftOutKind(
                "unlistable",
                f"{counted(self.num_unlistable, 'image')} left out: a line break in the path",
                "rename them; a triplet file has a line for each triplet",
            )
        if self.num_outside:
            yield LeftOutKind(
                "outside_classes",
                f"{counted(self.num_outside, 'image')} left out: in no folder of a class",
                "move them into the folders of their classes",
            )
        if self.num_seen_again:
            yield LeftOutKind(
                "links_seen_again",
                f"{counted(self.num_seen_again, 'link')} left out: to a folder that is listed "
                "already",
                "delete them, or link to another folder",
            )
        if self.system_folders:
            folders = counted(sum(self.system_folders.values()), "folder")
            yield LeftOutKind(
                "system_folders",
                f"{folders} left out: the system's own ({listed(sorted(self.system_folders))})",
                "rename one that holds images of yours",
            )
        if self.others:
            kinds = [
                f"{count:,} {kind or 'without extension'}"
                for kind, count in Counter(self.others).most_common()
            ]
            more = f" and {len(kinds) - MOST_KINDS:,} more kinds" if kinds[MOST_KINDS:] else ""
            by = "name or content" if self.looked_inside else "the name"
            files = counted(sum(self.others.values()), "file")
            yield LeftOutKind(
                "other_files",
                f"{files} left out: no image by {by} ({listed(kinds[:MOST_KINDS])}{more})",
                ""
                if self.looked_inside
                else "--by_content takes those that are images all the same",
            )
        if self.empty_folders:
            folders = counted(len(self.empty_folders), "folder")
            yield LeftOutKind(
                "empty_folders",
                f"{folders} without images ({listed(self.empty_folders)})",
                "add images, or delete them; they are no classes",
            )
        if self.num_hidden:
            hidden = counted(self.num_hidden, "hidden file or folder", "hidden files and folders")
            yield LeftOutKind(
                "hidden", f"{hidden} left out", "rename what does not begin with a dot by intention"
            )

    def notes(self) -> Iterator[str]:
        """Yield a sentence for each kind."""
        for kind in self.kinds():
            said = kind.remedy and kind.name in MENDED
            yield f"{kind.what}; {kind.remedy}." if said else f"{kind.what}."
