"""Catalogue of the public data sets: address, size and digest of each original archive."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Dataset:
    """One public data set.

    Attributes:
        name: name in commands.
        title: name for people.
        url: address of the original archive.
        num_bytes: size of that archive.
        sha256: digest of that archive.
        num_images: labelled images in it.
        num_classes: classes in it.
        inner_archive: file name of the archive inside the archive that holds the images, or "".
        left_out: folders of images that are not classes.
    """

    name: str
    title: str
    url: str
    num_bytes: int
    sha256: str
    num_images: int
    num_classes: int
    inner_archive: str = ""
    left_out: frozenset[str] = frozenset()


# Neither publisher gives a SHA-256. Several independent public projects recorded these sizes and
# digests for their downloads from these addresses.
CATALOGUE = {
    each.name: each
    for each in (
        Dataset(
            name="tiny-imagenet",
            title="Tiny ImageNet",
            url="https://cs231n.stanford.edu/tiny-imagenet-200.zip",
            num_bytes=248_100_043,
            sha256="6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
            num_images=110_000,  # and 10,000 without published classes
            num_classes=200,
        ),
        Dataset(
            name="caltech101",
            title="Caltech-101",
            url="https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip?download=1",
            num_bytes=137_414_764,
            sha256="331234750fc7f77520e50d9565e8b6907b03565e30320da1401130db08c61f91",
            num_images=8_677,
            num_classes=101,
            inner_archive="101_ObjectCategories.tar.gz",
            left_out=frozenset(("BACKGROUND_Google",)),
        ),
    )
}
