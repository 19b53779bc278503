"""`python -m deep_ranking COMMAND`, and the console script `deep-ranking`."""

import sys

from deep_ranking.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
