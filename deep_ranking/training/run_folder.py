"""The run folder NAME.run/ beside NAME.h5: what a training run leaves behind.

It holds `config.json` (the settings), `history.csv` and `history.png`, `best.h5` (the model of the
best epoch), `checkpoint.h5`, and what settings ask for: `neighbours.h5` with `--strategy hard`, and
`tensorboard/`. Each file is replaced atomically. `resuming` says how a run goes on from them.
"""

import shutil

from deep_ranking.config import TrainConfig
from deep_ranking.files import atomic_path, make_folder


class RunFolder:
    """The paths of one run.

    Args:
        config: the run's settings, which name the folder.

    Attributes:
        path: the folder.
        settings: file of the settings, as JSON.
        checkpoint: file of weights, optimizer and `RunState`.
        best: model file of the best epoch.
        history: the history as CSV.
        picture: the picture of the history.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.path = config.run_dir
        self.settings = self.path / "config.json"
        self.checkpoint = self.path / "checkpoint.h5"
        self.best = self.path / "best.h5"
        self.history = self.path / "history.csv"
        self.picture = self.path / "history.png"

    def clear(self) -> None:
        """Make the folder empty, without the files of an earlier run."""
        if self.path.is_dir():
            shutil.rmtree(self.path)
        make_folder(self.path)

    def write_settings(self, config: TrainConfig) -> None:
        """Write the settings."""
        with atomic_path(self.settings) as temporary:
            temporary.write_text(config.to_json(), encoding="utf-8")
