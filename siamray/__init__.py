"""siamray: Siamese soft-label pretraining on unlabelled bilateral mammograms, and its ablation."""

from importlib import metadata

try:
    __version__ = metadata.version("siamray")
except metadata.PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+checkout"
