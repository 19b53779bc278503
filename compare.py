"""Print the distance of two images: the blog's third command (also `deep-ranking compare`)."""

from deep_ranking.cli.main import run_program

if __name__ == "__main__":
    run_program("compare")
