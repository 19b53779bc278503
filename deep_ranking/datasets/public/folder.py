"""Make the folder of a data set from its archive: the folder is complete, or does not exist.

All work is done in a hidden folder beside it, `.NAME.making`, which is renamed in one step at the
end. The archive is downloaded to NAME.download.zip, also beside it. `dataset.json` in the folder
records what it was made from.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from deep_ranking.datasets.layout import (
    SplitSize,
    arrange_splits,
    is_dataset_file,
    read_split_file,
    write_split_file,
)
from deep_ranking.datasets.public.catalogue import Dataset
from deep_ranking.datasets.public.digits import write_digits
from deep_ranking.datasets.public.download import download
from deep_ranking.datasets.public.unpacking import unpack
from deep_ranking.files import InputError, disk_failure, make_folder, read_text_file
from deep_ranking.files.content_digest import content_digest

RECORD_FILE = "dataset.json"
DIGITS = "digits"


@dataclass(frozen=True)
class Contents:
    """What a data set's folder holds, and what it was made from.

    Attributes:
        dataset: name of the data set.
        splits: number of images and classes of each split.
        seed: seed that decided the split; None if the archive had splits.
        unseen_share: share of the classes drawn as unseen, or None.
        archive: file name of the archive, or its address; "" without one.
        sha256: digest of the archive; "" without one.
        was_there: whether the folder was complete before.
    """

    dataset: str
    splits: dict[str, SplitSize]
    seed: int | None
    unseen_share: float | None
    archive: str = ""
    sha256: str = ""
    was_there: bool = False


def archive_path(folder: Path) -> Path:
    """Return the file to which the archive for a data set's folder is downloaded."""
    folder = folder.absolute()
    return folder.with_name(folder.name + ".download.zip")


def prepare(
    dataset: Dataset,
    folder: str | os.PathLike[str],
    *,
    archive: Path | None = None,
    url: str | None = None,
    sha256: str | None = None,
    keep_archive: bool = False,
    unseen_share: float = 0.2,
    seed: int = 0,
    progress: bool = False,
) -> Contents:
    """Download a data set, or use a local archive, and unpack it into class folders.

    Args:
        dataset: one of the catalogue.
        folder: folder to make; missing, empty, or made by an earlier call.
        archive: local zip, tar or tar.gz with the original layout, SPLIT/CLASS folders or CLASS
            folders; by default the original is downloaded.
        url: address of the archive, if not the original's.
        sha256: digest of the archive, if it is not the original. Without it, a download must have
            the original's digest.
        keep_archive: whether to keep the downloaded archive.
        unseen_share: share of the classes to draw as unseen, if the archive has no split.
        seed: decides which classes.
        progress: whether to show progress bars on standard error, if that is a terminal.

    Returns:
        The folder's `Contents`.

    Raises:
        InputError: the archive cannot be downloaded, is not the expected one, or is refused; or the
            folder holds something else.
    """
    folder = Path(folder).absolute()
    with _work_folder(folder) as work:
        if found := _finished_contents(folder, dataset.name, seed, unseen_share):
            return found
        if archive is None:
            path = archive_path(folder)
            num_bytes = dataset.num_bytes if sha256 is None else None
            digest = sha256 or dataset.sha256
            download(
                url or dataset.url, path, sha256=digest, num_bytes=num_bytes, progress=progress
            )
        else:
            path = archive
            digest = _check_archive(dataset, path, sha256)
        unpacked, made = work / "unpacked", work / "made"
        _unpack_all(path, unpacked, dataset.inner_archive, progress)
        made.mkdir()
        try:
            had_split = arrange_splits(
                unpacked, made, left_out=dataset.left_out, unseen_share=unseen_share, seed=seed
            )
            splits = write_split_file(made)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        contents = Contents(
            dataset=dataset.name,
            splits=splits,
            seed=None if had_split else seed,
            unseen_share=None if had_split else unseen_share,
            archive=path.name if archive else url or dataset.url,
            sha256=digest,
        )
        _finish(made, folder, contents)
        if archive is None and not keep_archive:
            path.unlink()
        return contents


def prepare_digits(folder: str | os.PathLike[str], *, seed: int = 0) -> Contents:
    """Write scikit-learn's digits, as `write_digits` does, and `split.csv`.

    Raises:
        InputError: the folder cannot be written to, or holds something else.
    """
    folder = Path(folder).absolute()
    with _work_folder(folder) as work:
        if found := _finished_contents(folder, DIGITS, seed, None):
            return found
        write_digits(work / "made", seed=seed)
        splits = write_split_file(work / "made")
        contents = Contents(DIGITS, splits, seed=seed, unseen_share=None)
        _finish(work / "made", folder, contents)
        return contents


@contextmanager
def _work_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to work in, locked, and remove it at the end."""
    making = make_folder(folder.parent) / f".{folder.name}.making"
    work = make_folder(making) / "work"
    try:
        with FileLock(making / "lock", timeout=0):
            try:
                if work.is_symlink() or work.is_file():
                    work.unlink()
                elif work.exists():  # an earlier run was killed
                    shutil.rmtree(work)
                work.mkdir()
                yield work
            except OSError as error:
                reason = disk_failure(error)
                if reason is None:
                    raise
                raise InputError(
                    f"{making}: cannot be written ({reason}); free some room, or choose another "
                    "--output"
                ) from None
            finally:
                shutil.rmtree(making, ignore_errors=True)
    except Timeout:
        raise InputError(f"{making}: another process works here; wait for it, or stop it") from None


def _finished_contents(
    folder: Path, name: str, seed: int, unseen_share: float | None
) -> Contents | None:
    """Return the contents that an earlier run made as asked for; None if the folder is empty."""
    if (found := _read_contents(folder)) is None:
        return None
    if found.dataset != name:
        raise InputError(f"{folder}: holds {found.dataset}; choose another --output")
    for flag, wanted, was in (
        ("seed", seed, found.seed),
        ("unseen_share", unseen_share, found.unseen_share),
    ):
        if was is not None and was != wanted:
            raise InputError(
                f"{folder}: made with --{flag} {was}, which cannot change; choose another --output"
            )
    return found


def _read_contents(folder: Path) -> Contents | None:
    """Read and check the contents of a folder; None if it is empty or missing."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    record = folder / RECORD_FILE
    if not record.is_file():
        raise InputError(
            f"{folder}: exists, and is not a data set's folder; choose another --output"
        )
    text = read_text_file(record, hint="choose another --output")
    try:
        values = json.loads(text)
        splits = {name: SplitSize(**count) for name, count in values.pop("splits").items()}
        contents = Contents(**values, splits=splits, was_there=True)
        num_images = sum(count.num_images for count in splits.values())
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise InputError(
            f"{record}: not what this command wrote; choose another --output"
        ) from None
    listed = [path for path, _, _ in read_split_file(folder)]
    missing = [path for path in listed if not (folder / path).is_file()]
    if missing or len(listed) != num_images:
        what = f"{len(listed) - len(missing):,} of {num_images:,} images are there"
        example = f", {missing[0]} is not" if missing else ""
        raise InputError(
            f"{folder}: {what}{example}; move the folder away and run the same command again"
        )
    return contents


def _check_archive(dataset: Dataset, path: Path, sha256: str | None) -> str:
    """Check and return the digest of a local archive, which may differ from the original."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected an archive of {dataset.title}")
    found = content_digest(path).hex()
    if sha256 is not None and found != sha256:
        raise InputError(f"{path}: has SHA-256 {found}, expected {sha256}")
    is_original = path.stat().st_size == dataset.num_bytes
    if sha256 is None and is_original and found != dataset.sha256:
        raise InputError(
            f"{path}: is as long as the original, but has SHA-256 {found}, expected "
            f"{dataset.sha256}: it is damaged; get it again"
        )
    return found


def _unpack_all(path: Path, folder: Path, inner: str, progress: bool) -> None:
    """Unpack an archive, and the archive named `inner` in it."""
    folder.mkdir()
    unpack(
        path, folder, wanted=lambda name: is_dataset_file(name) or name == inner, progress=progress
    )
    for found in sorted(folder.rglob(inner)) if inner else ():
        try:
            unpack(found, found.parent, wanted=is_dataset_file, progress=progress)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        found.unlink()


def _finish(made: Path, folder: Path, contents: Contents) -> None:
    """Write the record, and rename the folder to its final name."""
    record = {key: value for key, value in asdict(contents).items() if key != "was_there"}
    (made / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if hasattr(os, "sync"):
        os.sync()  # or a power cut could leave empty files under the new name
    if folder.is_dir():
        folder.rmdir()  # it is empty, or `_read_contents` would have raised an error
    made.replace(folder)
