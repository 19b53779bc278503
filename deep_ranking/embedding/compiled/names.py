"""What compiled files are called: what commands know of them before they open any."""

PRECISIONS = ("float32", "int8")
"""What a model can be compiled in, the most exact first."""

SUFFIX = ".litert"
