"""Labels as Keras passes them to a loss -> class numbers, checked.

Keras casts the labels of a loss to its float type. What is no class number would count as another
class without a word: 2^24 + 1 is 2^24 in float32, a fraction loses its decimals, and the memory
marks its empty rows by -1.
"""

from typing import Any

import tensorflow as tf  # a check while a graph runs: `keras.ops` has none
from keras import ops

from deep_ranking.files import InputError

# The first whole number that the type confuses with the next one; of larger types, that of int32.
FIRST_CONFUSED = {"bfloat16": 2**8, "float16": 2**11, "float32": 2**24}
FIRST_TOO_LARGE = 2**31


def class_numbers(labels: Any, num_rows: int | None = None) -> tuple[Any, Any]:
    """Return labels as class numbers, checked.

    Type and shape are checked in any case, also while a graph is made. Values are checked where
    they are known: in eager calls, and in a graph when it runs. XLA (`jit_compile`) leaves out
    checks of values; what is returned beside the numbers then tells.

    Args:
        labels: numbers (batch,) or (batch, 1), whole, 0 or more, and below 2^24 as float32.
        num_rows: rows of the batch; None if they are not known.

    Returns:
        int32 (batch,), the class numbers; and bool (), whether all of them are right.

    Raises:
        InputError: there is not one label a row; or, in an eager call, one is no class number. In a
            graph that is a `tf.errors.InvalidArgumentError` with that text.
    """
    labels = ops.convert_to_tensor(labels)
    _check_shape(labels.shape, num_rows)
    labels = ops.reshape(labels, (-1,))
    kind = labels.dtype.name
    if kind == "bool":
        labels = ops.cast(labels, "int32")
    numbers = ops.cast(labels, "int32")
    # Of an integer that int32 cannot hold, the number differs.
    right = tf.logical_and(numbers >= 0, ops.cast(numbers, labels.dtype) == labels)
    if labels.dtype.is_floating:
        end = FIRST_CONFUSED.get(kind, FIRST_TOO_LARGE)
        right = tf.logical_and(right, labels < end)
        said = f"from 0 to {end - 1:,}, which are exact in {kind}"
    else:
        said = f"from 0 to {FIRST_TOO_LARGE - 1:,}"
    all_right = tf.reduce_all(right)
    message = (
        f"labels must be class numbers, whole and {said}: number the classes by "
        "np.unique(labels, return_inverse=True)[1], and leave out images without a class. Received:"
    )
    # One that is wrong, without an operation that XLA lacks or that fails for an empty batch.
    wrong = tf.reduce_max(tf.where(right, labels.dtype.min, labels))
    if tf.executing_eagerly():
        if not all_right:
            raise InputError(f"{message} {wrong.numpy().item()!r}".removesuffix(".0"))
        return numbers, all_right
    with tf.control_dependencies([tf.debugging.Assert(all_right, [message, wrong])]):
        return tf.identity(numbers), all_right


def _check_shape(shape: Any, num_rows: int | None) -> None:
    """Check that there is one label a row, as far as the shape is known."""
    if shape.rank is None:
        return
    sizes = tuple(shape)
    if any(size not in (None, 1) for size in sizes[1:]):
        raise InputError(
            "labels must be one class number a row, (rows,) or (rows, 1): the roles of "
            "triplet_dataset go with RankingLoss alone, and one-hot labels become numbers by "
            f"argmax. Received: shape {sizes}"
        )
    if sizes and None not in (sizes[0], num_rows) and sizes[0] != num_rows:
        raise InputError(
            f"labels must be one class number a row, of {num_rows} rows. Received: {sizes[0]}"
        )
