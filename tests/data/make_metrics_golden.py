"""Write metrics_golden.json: what pytorch-metric-learning's AccuracyCalculator says of small data.

It was made with torch 2.13.0 (CPU) and pytorch-metric-learning 2.9.0, which the tests do not need:

    pip install torch==2.13.0 pytorch-metric-learning==2.9.0
    python tests/data/make_metrics_golden.py

The embeddings are in the file, so that the test does not depend on NumPy's random numbers. Their
neighbours are found by all distances in float64. Classes of one are among them: the calculator
leaves these queries out, as `retrieval_metrics` does.
"""

import json
from pathlib import Path

import numpy as np
import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN

METRICS = ("precision_at_1", "r_precision", "mean_average_precision_at_r")


def embeddings_of(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Unit rows, loosely around one direction for each class, with four decimals."""
    centres = np.random.default_rng(1).standard_normal((20, 6))
    rows = centres[labels] + 1.2 * generator.standard_normal((len(labels), 6))
    return np.round(rows / np.linalg.norm(rows, axis=1, keepdims=True), 4)


def main() -> None:
    """Compute both cases and write the file beside this script."""
    generator = np.random.default_rng(0)
    calculator = AccuracyCalculator(
        include=METRICS,
        k="max_bin_count",
        device=torch.device("cpu"),
        knn_func=CustomKNN(LpDistance(normalize_embeddings=False)),
    )
    # Sizes from 1 to 14; class 9 is among the queries only.
    labels = generator.permutation(np.repeat(np.arange(8), [1, 1, 2, 3, 5, 9, 12, 14]))
    embeddings = embeddings_of(labels, generator)
    query_labels = generator.permutation(np.repeat([2, 5, 6, 7, 9], [2, 3, 4, 5, 2]))
    query_embeddings = embeddings_of(query_labels, generator)
    as_tensor = torch.from_numpy
    cases = {
        "leave_one_out": calculator.get_accuracy(
            as_tensor(embeddings),
            as_tensor(labels),
            as_tensor(embeddings),
            as_tensor(labels),
            ref_includes_query=True,
        ),
        "queries_and_gallery": calculator.get_accuracy(
            as_tensor(query_embeddings),
            as_tensor(query_labels),
            as_tensor(embeddings),
            as_tensor(labels),
            ref_includes_query=False,
        ),
    }
    golden = {
        "embeddings": embeddings.tolist(),
        "labels": labels.tolist(),
        "query_embeddings": query_embeddings.tolist(),
        "query_labels": query_labels.tolist(),
        "metrics": {
            case: {name: values[name] for name in METRICS} for case, values in cases.items()
        },
    }
    path = Path(__file__).with_name("metrics_golden.json")
    path.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
