"""Draw triplets from folders of images: the blog's first command (also `deep-ranking sample`)."""

from deep_ranking.cli.main import run_program

if __name__ == "__main__":
    run_program("sample")
