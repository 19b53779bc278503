"""The version of the package, in one place that needs no import of anything else."""

__version__ = "0.1.0"
