"""`compile`: a model -> a file from which it starts at once, without TensorFlow."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from deep_ranking.cli.arguments import add_model, add_path, check_files_exist
from deep_ranking.cli.library_messages import quieten_tensorflow, shown_on_failure
from deep_ranking.embedding.compiled.names import PRECISIONS
from deep_ranking.embedding.compiled.places import compiled_precisions
from deep_ranking.files import InputError
from deep_ranking.files.installed import check_installed
from deep_ranking.images import find_images
from deep_ranking.model.header import read_header

DESCRIPTION = (
    "Compile a model for LiteRT, which opens it in a tenth of a second and needs no TensorFlow: "
    "compare, search, index, evaluate and the Embedder use the compiled file from then on. It lies "
    "beside the model, which names its digest, and is kept only if it computes the model's "
    "embeddings."
)

EXAMPLES = (
    (
        "Compile a model",
        "python -m deep_ranking compile --model m.h5",
    ),
    (
        "Compile it in int8, which is faster, and measure what that loses on photos",
        "python -m deep_ranking compile -m m.h5 --precision int8 --calibrate photos",
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    group = parser.add_argument_group("model")
    add_model(group)
    group = parser.add_argument_group("compiled file")
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=PRECISIONS[0],
        help="float32: the embeddings of Keras; int8: 1.5 to 4 times as fast, with a mean cosine "
        "to them of .995 or more (default: float32)",
    )
    add_path(
        group,
        "--calibrate",
        metavar="DIR",
        help_text="folder of images like yours, to compare the embeddings on, and to calibrate "
        "int8; needed for int8 with EfficientNet, MobileNet and ConvNeXt",
    )
    group.add_argument(
        "--anew", action="store_true", help="compile again even if a good file is there"
    )


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Compile the model, and print how well it agrees with Keras."""
    args = parser.parse_args(argv)
    check_files_exist(args, "model")
    images: list[str] = []
    if args.calibrate:
        if not args.calibrate.is_dir():
            raise InputError(f"{args.calibrate}: no such folder; check --calibrate")
        images = find_images(args.calibrate).files()
        if not images:
            raise InputError(f"{args.calibrate}: has no images; check --calibrate")
    check_installed(parser.prog, "tensorflow", "keras")
    quieten_tensorflow()
    from deep_ranking.embedding.compiled.compiling import compile_model

    with shown_on_failure():
        done = compile_model(
            args.model,
            precision=args.precision,
            images=images,
            anew=args.anew,
            progress=lambda line: print(f"{line} ...", flush=True),
        )
    print(done)


def compile_trained(model: Path) -> None:
    """Compile a model that was just trained; where that fails, say so: it is good without."""
    from deep_ranking.embedding.compiled.compiling import compile_model

    try:
        with shown_on_failure():
            done = compile_model(model)
    except InputError as error:
        print(f"{error}; embedding images will start TensorFlow", file=sys.stderr)
        return
    print(f"Compiled, so that it starts at once, in {done.path}.")


def say_if_not_compiled(model: Path) -> None:
    """Print what makes a model start at once, if it is not compiled."""
    if not compiled_precisions(model, read_header(model)):
        print(
            f"{model}: not compiled, so TensorFlow starts first; `python -m deep_ranking compile "
            f"--model {model}` saves these seconds",
            file=sys.stderr,
        )
