"""What the table of images holds of a file."""

from dataclasses import dataclass

from deep_ranking.files.content_digest import Status


@dataclass(frozen=True)
class FoundFile:
    """A file as a folder lists it.

    Attributes:
        path: relative to the root.
        size: bytes.
        changed: time of change (ns).
        label: its class.
        inode: number of the file; None if an earlier version recorded it.
        inode_changed: time of change of the inode (ns), also of its name and permissions.
    """

    path: str
    size: int
    changed: int
    label: str = ""
    inode: int | None = None
    inode_changed: int | None = None

    def has_status(self, status: Status) -> bool:
        """Return whether a file with this status has the content that was recorded."""
        return (self.size, self.changed, self.inode, self.inode_changed) == status


@dataclass(frozen=True)
class GalleryImage:
    """An image that can be found: path relative to the root, class, row of its embedding."""

    path: str
    label: str
    row: int
