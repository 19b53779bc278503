"""Write a small model and its compiled file, for tests where TensorFlow is not installed."""

import sys
from pathlib import Path

from deep_ranking import NetworkConfig, build_network, compile_model, save_model

CONFIG = NetworkConfig(
    backbone="mobilenetv2", weights=None, image_size=32, embedding_size=8, hidden_layers=0
)

if __name__ == "__main__":
    path = Path(sys.argv[1])
    save_model(build_network(CONFIG), path)
    print(compile_model(path))
