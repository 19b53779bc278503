"""Open a compiled model as an engine, and check it where engine or processor have changed."""

import numpy as np

from deep_ranking.embedding.compiled.file import (
    CompiledModel,
    engine_version,
    made_up_images,
    this_processor,
)
from deep_ranking.embedding.engines.litert import LiteRTEngine
from deep_ranking.files import InputError

# Largest distance of a row from that of the machine that compiled the model. Kernels in int8 round
# differently on other processors.
MAX_CHANGE = {"float32": 1e-3, "int8": 0.1}


def litert_engine(
    content: bytes, precision: str, key: str = "", *, is_for_few: bool = False
) -> LiteRTEngine:
    """Return the engine of a network; arguments as of `LiteRTEngine`.

    Raises:
        InputError: LiteRT is missing, or cannot open it.
    """
    try:
        return LiteRTEngine(content, key, precision, is_for_few=is_for_few)
    except ModuleNotFoundError:
        raise InputError(
            "a compiled model needs ai-edge-litert, not installed here: pip install ai-edge-litert"
        ) from None
    except (ValueError, RuntimeError) as error:
        raise InputError(f"LiteRT cannot open the compiled model ({error})") from None


def usable_engine(
    compiled: CompiledModel, key: str = "", *, is_for_few: bool = False
) -> LiteRTEngine:
    """Return the engine of a compiled model.

    Where LiteRT or the processor are others than when it was compiled, it must compute the same
    rows of made-up images as then.

    Args:
        compiled: the compiled model.
        key: a name for its content.
        is_for_few: whether it will compute a few images only.

    Raises:
        InputError: it cannot be opened here, or computes other rows.
    """
    header = compiled.header
    engine = litert_engine(compiled.network, header.precision, key, is_for_few=is_for_few)
    if (engine.image_size, engine.dimension) != (header.image_size, header.dimension):
        raise InputError("the compiled model is not what its header says")
    if (header.engine, header.processor) != (engine_version(), this_processor()):
        rows = engine.embed(made_up_images(header.image_size))
        if rows.shape != compiled.check.shape:
            raise InputError("the compiled model has no rows to check it by")
        change = float(np.linalg.norm(rows - compiled.check, axis=1).max())
        if not change <= MAX_CHANGE[header.precision]:
            raise InputError(
                f"the compiled model computes other rows here than with LiteRT {header.engine} on "
                f"{header.processor}: they differ by up to {change:.2g}"
            )
    return engine
