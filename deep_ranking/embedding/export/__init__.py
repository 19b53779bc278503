"""Model -> what other programs run: a TensorFlow SavedModel, ONNX, or TensorFlow Lite.

Nothing is called exported before it was opened again in the runtime that it is for, and gave the
embeddings that the model gives.
"""

from deep_ranking.embedding.export.checking import DEFAULT_TOLERANCE
from deep_ranking.embedding.export.exporting import Export, check_output, export_model
from deep_ranking.embedding.export.formats import FORMATS

__all__ = ["DEFAULT_TOLERANCE", "FORMATS", "Export", "check_output", "export_model"]
