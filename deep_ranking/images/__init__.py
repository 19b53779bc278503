"""Find the images of a folder tree, and read one."""

from deep_ranking.images.decoding import (
    decode_bytes,
    decode_image,
    decode_with_notes,
    fitting_size,
    open_header,
    open_image,
    read_file,
)
from deep_ranking.images.finding import (
    ImageListing,
    find_images,
    list_names,
    resolve_image_paths,
)
from deep_ranking.images.formats import is_image_name
from deep_ranking.images.left_out import LeftOut
from deep_ranking.images.limits import allow_megapixels
from deep_ranking.images.orientation import upright_size
from deep_ranking.images.reading import PLAIN, View, read_image, read_with_threads, resample

__all__ = [
    "PLAIN",
    "ImageListing",
    "LeftOut",
    "View",
    "allow_megapixels",
    "decode_bytes",
    "decode_image",
    "decode_with_notes",
    "find_images",
    "fitting_size",
    "is_image_name",
    "list_names",
    "open_header",
    "open_image",
    "read_file",
    "read_image",
    "read_with_threads",
    "resample",
    "resolve_image_paths",
    "upright_size",
]
