"""Experiment tracking: local files (default), Weights & Biases, Comet, nothing, or several (``Writers``)."""

from src.logger.base import NullWriter, Sample, Writer, Writers
from src.logger.local import LocalWriter
from src.logger.trackers import CometWriter, WandbWriter

__all__ = ["CometWriter", "LocalWriter", "NullWriter", "Sample", "WandbWriter", "Writer", "Writers"]
