"""`python -m deep_ranking COMMAND`, and the console script `deep-ranking`."""

from deep_ranking.cli.main import run_program

if __name__ == "__main__":
    run_program()
