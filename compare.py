"""Print the distance of two images: the blog's third command (also `deep-ranking compare`)."""

import sys

from deep_ranking.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command("compare"))
