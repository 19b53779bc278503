"""`embed`: a model and many images -> a Parquet table in parts, on this machine or a cluster."""

import argparse
from collections.abc import Sequence

from deep_ranking.cli.arguments import (
    add_folder_arguments,
    add_model,
    add_output,
    check_files_exist,
    config_from,
    positive_int,
)
from deep_ranking.cli.conflicts import refuse_flags_without_effect
from deep_ranking.cli.flag_table import rules_of
from deep_ranking.cli.library_messages import quieten_tensorflow
from deep_ranking.cli.signals import resume_hint
from deep_ranking.config import FolderConfig
from deep_ranking.embedding.compiled.names import PRECISIONS
from deep_ranking.files.addresses import is_address
from deep_ranking.search.bulk_embedding import embed_table
from deep_ranking.search.bulk_embedding.embedding import ENGINES, LOCAL, PART_SIZE
from deep_ranking.search.bulk_embedding.path_table import is_table

DESCRIPTION = (
    "Embed the images of a folder, of an object store or of a Parquet file into a Parquet table in "
    "parts, on this machine or on a cluster. Run the same command again to resume it after it was "
    "stopped: parts that are there are kept."
)
BASIC_FLAGS = ("model", "images", "output", "part_size", "label", "engine", "address", "workers")
EXAMPLES = (
    (
        "Embed a bucket on this machine",
        "python -m deep_ranking embed -m m.h5 --images s3://bucket -o b.parquet",
    ),
    (
        "Embed a folder with Ray, by all processors",
        "python -m deep_ranking embed -m m.h5 --images a -o a.parquet --engine ray",
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    group = parser.add_argument_group("model, images and table")
    add_model(group)
    group.add_argument(
        "--images",
        required=True,
        metavar="SOURCE",
        help="folder of images; address of an object store, such as s3://bucket/photos (pip "
        'install "deep-ranking[s3]"; other stores by their plug-in of fsspec); or Parquet file '
        "with columns path and perhaps class",
    )
    group.add_argument(
        "--root",
        metavar="DIR|ADDRESS",
        help="what the paths of a Parquet file start from (default: what it names itself, or its "
        "own folder)",
    )
    add_output(
        group,
        "DIR.parquet",
        "folder of the table; made if missing. `index --from_parquet` takes it",
    )
    group.add_argument(
        "--part_size",
        type=positive_int,
        default=PART_SIZE,
        metavar="N",
        help="images of a part, which is one file and the least that is lost by a stop",
    )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=PRECISIONS[0],
        help="what to compute in; int8 needs a model that is compiled in it",
    )
    add_folder_arguments(parser)
    group = parser.add_argument_group("where to compute")
    group.add_argument(
        "--engine",
        choices=ENGINES,
        default=LOCAL,
        help="local: this process; ray: actors of Ray Data (pip install "
        '"deep-ranking[ray]"), which must reach model, images and table under the same paths',
    )
    group.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="Ray cluster to join, or auto for the one of this machine (default: a new one, on "
        "this machine alone)",
    )
    group.add_argument(
        "--workers",
        type=positive_int,
        metavar="N",
        help="actors of Ray (default: one for each machine, with all its processors)",
    )


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Embed what is missing, and print what the table has."""
    args = parser.parse_args(argv)
    args.source = "table" if is_table(args.images) else "folder"
    if args.source == "folder" and is_address(args.images):
        args.source = "address"
    refuse_flags_without_effect(parser, argv, rules_of("embed", args))
    check_files_exist(args, "model")
    quieten_tensorflow()
    with resume_hint("run the same command again to resume"):
        done = embed_table(
            args.images,
            args.output,
            model=args.model,
            root=args.root,
            part_size=args.part_size,
            precision=args.precision,
            folders=config_from(args, FolderConfig),
            engine=args.engine,
            address=args.address,
            workers=args.workers,
            when_listed=print,
        )
    lines = repr(done).splitlines()[len(done.lines) :]
    lines[-1] += (
        f" Index: python -m deep_ranking index --from_parquet {done.path} --model {args.model} "
        "--output INDEX"
    )
    print("\n".join(lines))
