"""Train a network on a triplet file: the blog's second command (also `deep-ranking train`)."""

import sys

from deep_ranking.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command("train"))
