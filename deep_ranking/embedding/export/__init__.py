"""Model -> a file that other programs run: a TensorFlow SavedModel, ONNX, or TensorFlow Lite.

Every export is checked before it appears under its name: opened in its own runtime, it must return
the model's embeddings.
"""

from deep_ranking.embedding.export.exporting import Export, check_output, export_model
from deep_ranking.embedding.export.formats import DEFAULT_TOLERANCE, FORMATS

__all__ = ["DEFAULT_TOLERANCE", "FORMATS", "Export", "check_output", "export_model"]
