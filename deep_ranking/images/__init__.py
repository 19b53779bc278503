"""Find the images of a folder tree, and read one."""

from deep_ranking.images.decoding import (
    decode_bytes,
    decode_image,
    fitting_size,
    open_header,
    open_image,
    read_file,
)
from deep_ranking.images.finding import (
    ImageListing,
    class_of,
    find_images,
    is_image_name,
    list_images,
    resolve_image_paths,
)
from deep_ranking.images.orientation import upright_size
from deep_ranking.images.reading import PLAIN, View, read_image, read_with_threads, resample

__all__ = [
    "PLAIN",
    "ImageListing",
    "View",
    "class_of",
    "decode_bytes",
    "decode_image",
    "find_images",
    "fitting_size",
    "is_image_name",
    "list_images",
    "open_header",
    "open_image",
    "read_file",
    "read_image",
    "read_with_threads",
    "resample",
    "resolve_image_paths",
    "upright_size",
]
