"""A data configuration goes in; the exam and finding tables of the source it names come out."""

import importlib
from pathlib import Path

from siamray.config import DataConfig
from siamray.data.exams import ExamTables
from siamray.errors import UserError, nearest

SOURCES = ("phantom", "mias", "vindr", "optimam", "cbis_ddsm", "inbreast", "rsna", "folder")
# Sources whose mammograms are stored as secondary captures; elsewhere these are screenshots and documents.
_SECONDARY_CAPTURES = ("cbis_ddsm",)


def is_there(config: DataConfig, cache: Path) -> bool:
    """Says whether reading a source would only read: a source that generates its images may not have done so yet."""
    module = importlib.import_module(f"siamray.data.sources.{config.source}")
    return bool(module.is_there(config, cache)) if hasattr(module, "is_there") else True


def accepted(config: DataConfig) -> frozenset[str]:
    """Names the kinds of image that reading takes beside ordinary mammograms (siamray.data.dicom.ACCEPTABLE)."""
    films = config.secondary_captures or config.source in _SECONDARY_CAPTURES
    words = {"secondary_capture"} if films else set()
    return frozenset(words | ({"implant"} if config.implants else set()))


def read_exams(config: DataConfig, cache: Path) -> ExamTables:
    """Reads the tables of a data set; pixels stay in their files.

    Args:
        config: which source, and where it lies (data.source, data.root).
        cache: folder for what a source generates when it has no root.

    Returns:
        Tables that keep the contract of siamray.data.exams.

    Raises:
        UserError: unknown source; root missing, empty, or not of this source.
    """
    if config.source not in SOURCES:
        raise UserError(f"data={config.source} is not a source{nearest(config.source, list(SOURCES))}")
    module = importlib.import_module(f"siamray.data.sources.{config.source}")
    tables: ExamTables = module.read(config, cache)
    return tables
