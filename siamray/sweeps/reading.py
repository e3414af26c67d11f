"""Paths of JSON and Parquet files in, records and tables out, and a word on what is wrong with a damaged file."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from siamray.errors import UserError


class Unreadable(Exception):
    """A file that is there but cannot be read; the message is the reason in one line."""


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        FileNotFoundError: there is no such file.
        Unreadable: it is not a JSON object, or cannot be read.
    """
    try:
        record = json.loads(path.read_bytes())
    except NotADirectoryError:
        raise FileNotFoundError(path) from None
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{path.name} is not JSON ({error})") from error
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise Unreadable(f"{path.name} cannot be read ({(error.strerror or 'input/output error').lower()})") from error
    if not isinstance(record, dict):
        raise Unreadable(f"{path.name} is not a JSON object")
    return record


def read_parquet(path: Path, columns: list[str]) -> pd.DataFrame:
    """Reads a table.

    Args:
        path: the file; need not exist.
        columns: what the table has at least, in this order; what the file lacks is filled with NaN.

    Returns:
        The table; no rows where there is no file.

    Raises:
        UserError: the file is damaged.
    """
    if not path.is_file():
        return pd.DataFrame(columns=columns)
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as Parquet ({error}); remove its folder, run the sweep again") from error
    return table.reindex(columns=list(dict.fromkeys([*columns, *table.columns])))


def check_parquet(path: Path) -> None:
    """Reads the end of a Parquet file, where its index lies: a cheap test for a file that was cut off.

    Raises:
        Unreadable: the file is there but damaged.
    """
    if path.is_file():
        try:
            pq.read_metadata(path)
        except (OSError, ValueError) as error:
            raise Unreadable(f"{path.name} is not a readable Parquet file ({error})") from error
