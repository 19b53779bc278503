"""The interface of an engine."""

from typing import Protocol

from deep_ranking.files.array_types import Float32Array, UInt8Array


class Engine(Protocol):
    """Turns images in memory into embeddings.

    Attributes:
        image_size: side in pixels of the images that it takes.
        dimension: floats an embedding.
        batch_size: most images that `embed` takes at once.
        num_threads: calls of `embed` that run at the same time, each on a thread of its own; 0 if
            only the thread that opened the engine may call it.
        key: a name for everything that decides an embedding, besides the image.
        name: the engine, in words.
    """

    image_size: int
    dimension: int
    batch_size: int
    num_threads: int
    name: str

    @property
    def key(self) -> str:
        """A name for everything that decides an embedding, besides the image."""

    def embed(self, images: UInt8Array) -> Float32Array:
        """Embed images.

        Args:
            images: uint8 (images, image_size, image_size, 3), RGB, at most `batch_size` of them.

        Returns:
            float32 (images, dimension). A row depends on its image alone.
        """
