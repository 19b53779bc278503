"""Draw triplets from folders of images: the blog's first command (also `deep-ranking sample`)."""

import sys

from deep_ranking.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command("sample"))
