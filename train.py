"""Train a network on a triplet file: the blog's second command (also `deep-ranking train`)."""

from deep_ranking.cli.main import run_program

if __name__ == "__main__":
    run_program("train")
