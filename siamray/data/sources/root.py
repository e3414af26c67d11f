"""The folder that data.root names goes in; its files and tables, checked to be those of a data set, come out."""

from pathlib import Path

import pandas as pd

from siamray.config import DataConfig
from siamray.errors import UserError, nearest

# Names shown of what was found where something was looked for.
SHOWN = 3


def root_folder(config: DataConfig, looked_for: str) -> Path:
    """Finds the folder of a data set.

    Args:
        config: data.source and data.root.
        looked_for: what the source looks for in it, as the end of a sentence.

    Returns:
        The folder, absolute.

    Raises:
        UserError: no data.root, no such folder, or nothing in it.
    """
    if not config.root:
        raise UserError(f"data={config.source} needs data.root=DIR, the folder that holds {looked_for}")
    folder = Path(config.root).expanduser().resolve()
    if not folder.is_dir():
        kind = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(f"data.root={config.root} {kind}; data={config.source} looks there for {looked_for}")
    if not listed(folder):
        raise UserError(f"data.root={config.root} is empty; data={config.source} looks there for {looked_for}")
    return folder


def listed(folder: Path) -> list[Path]:
    """Lists a folder by name; empty where there is none.

    Raises:
        UserError: it may not be listed.
    """
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        raise UserError(f"data.root: {folder} cannot be listed; change its permissions") from None


def not_this_data_set(config: DataConfig, folder: Path, looked_for: str) -> UserError:
    """Makes the error for a folder that is not the data set: what was looked for, what was found, where it may be.

    Args:
        config: data.source and data.root.
        folder: the folder that was searched.
        looked_for: what is missing in it.
    """
    found = listed(folder)
    names = ", ".join(path.name for path in found[:SHOWN]) + (", ..." if len(found) > SHOWN else "")
    return UserError(
        f"data.root={folder} has no {looked_for}, which data={config.source} looks for; "
        f"found {len(found)} others: {names}"
    )


def read_table(path: Path, required: list[str]) -> pd.DataFrame:
    """Reads a csv or Parquet table of a data set; a csv's cells stay text, blank ones become null.

    Args:
        path: the table; its ending says what it is.
        required: columns it must have.

    Raises:
        UserError: it cannot be read, or a column is missing (named with the nearest one that is there).
    """
    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path)
        else:
            table = pd.read_csv(path, dtype="str", encoding="utf-8-sig", skipinitialspace=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a table ({type(error).__name__}); restore the file") from None
    table.columns = [str(name).strip() for name in table.columns]
    for name in required:
        if name not in table.columns:
            raise UserError(f"{path}: has no column '{name}'{nearest(name, [str(c) for c in table.columns])}")
    return table
