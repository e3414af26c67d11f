"""Plain records and tables go in, complete files come out, here or at a URL: a reader never meets half of one."""

import errno
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
from upath import UPath

from siamray.errors import DiskFull, UserError

# A folder or file of this machine, or one of an object store (s3://bucket/prefix) or another fsspec file system.
Location = Path | UPath

_ELSEWHERE = "name another folder (store=, results= or out=)"
_S3_SETTINGS = "for S3 AWS_ENDPOINT_URL and AWS_REGION"
_FORBIDDEN = {
    "403",
    "AccessDenied",
    "AccountProblem",
    "AllAccessDisabled",
    "ExpiredToken",
    "Forbidden",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
}
_PASSING = {"500", "503", "InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown"}
# Exceptions of botocore and aiohttp by name, as those packages need not be there.
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"}
_NO_CREDENTIALS |= {"TokenRetrievalError", "SSOTokenLoadError", "UnauthorizedSSOTokenError"}
_NO_CONNECTION = {"HTTPClientError", "ClientConnectionError", "ClientPayloadError", "ConnectionError", "TimeoutError"}


def location(text: str | Location) -> Location:
    """Makes a place to read and write from what the user wrote.

    Args:
        text: a path, or a URL (anything with ``://``) of a file system that fsspec knows.

    Returns:
        a Path for paths and file:// URLs, else a UPath.

    Raises:
        UserError: no such kind of URL, its package is missing, or it names no place, or holds a secret.
    """
    if isinstance(text, Path) or (isinstance(text, str) and "://" not in text):
        return Path(text)
    written = str(text)
    # A URL is shown in messages and noted in results, so that a secret in it would spread.
    if re.search(r"://[^/]*:[^/]*@", written) or "?" in written:
        kind = written.split("://")[0]
        raise UserError(
            f"{kind}://...: a URL in store=, results= or out= may hold no password and no '?'; "
            "give credentials by environment variables or fsspec's configuration"
        )
    protocol = written.split("://")[0].split("::")[0]
    try:
        fsspec.get_filesystem_class(protocol)
        place = UPath(text)
    except ImportError as error:
        raise UserError(f"{written} {_missing_package(protocol, error)}") from None
    except ValueError:
        raise UserError(f"{written} is a kind of URL that fsspec does not know; {_ELSEWHERE}") from None
    if not place.path.strip("/"):
        raise UserError(f"{written} names no bucket or folder; write it behind the '://' in store=, results= or out=")
    return Path(place.path) if place.protocol in ("file", "local") else place


def cache_folder() -> Path:
    """Names the folder for what can be made again: $SIAMRAY_CACHE, else siamray in $XDG_CACHE_HOME or ~/.cache."""
    own = os.environ.get("SIAMRAY_CACHE")
    if own:
        return Path(own).expanduser().resolve()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared).expanduser().resolve() if shared else Path.home() / ".cache") / "siamray"


def read_bytes(path: Location) -> bytes:
    """Reads a file.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: there is none.
        UserError: a remote location cannot be reached or may not be read.
    """
    if isinstance(path, Path):
        return path.read_bytes()
    with reaching(path):
        # One request; open() would make two.
        return bytes(path.fs.cat_file(path.path))


def write_json(path: Location, record: Any) -> None:
    """Writes a record as JSON, atomically; NaN and infinities become null.

    Args:
        path: the file; its folder is made.
        record: dictionaries, lists, numbers, words.

    Raises:
        UserError: if the folder cannot be written.
    """
    text = json.dumps(_finite(record), indent=1, allow_nan=False, default=str)
    write_atomically(path, lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))


def write_parquet(path: Location, frame: pd.DataFrame) -> None:
    """Writes a table as Parquet, atomically.

    Raises:
        UserError: if the folder cannot be written.
    """
    write_atomically(path, lambda temporary: frame.to_parquet(temporary, index=False))


def write_atomically(path: Location, write: Callable[[Path], Any]) -> None:
    """Lets a function write a temporary file and moves it to its place, so that it is whole or absent.

    An object of an object store appears when it is there entirely. File systems behind other URLs (sftp://) may show a
    file while it is being sent.

    Args:
        path: the file; its folder is made.
        write: writes the local file it is given.

    Raises:
        UserError: if the folder cannot be written or the disk is full.
    """
    if not isinstance(path, Path):
        with written_aside(lambda folder: write(folder / path.name)) as folder, writing_to(path.parent):
            send([(folder / path.name, path)])
        return
    with writing_to(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def written_aside(write: Callable[[Path], Any]) -> Iterator[Path]:
    """Lets a function write what is to be sent to a remote location into a temporary folder of this machine.

    Args:
        write: writes into the folder it is given.

    Yields:
        the folder, until the block ends.

    Raises:
        UserError: the temporary folder cannot be written or its disk is full.
    """
    place = Path(tempfile.gettempdir())
    elsewhere = "name another folder for temporary files with TMPDIR"
    with writing_to(place, elsewhere):
        folder = Path(tempfile.mkdtemp(prefix="siamray-"))
    try:
        with writing_to(place, elsewhere):
            write(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def send(files: list[tuple[Path, UPath]]) -> None:
    """Copies files of this machine to a remote location, many at a time.

    Args:
        files: from where to where; all on one remote file system.
    """
    # Names in lists are taken as they are, while fsspec looks for patterns and folders in a single one.
    files[0][1].fs.put([str(source) for source, _ in files], [target.path for _, target in files])


@contextmanager
def writing_to(folder: Location, elsewhere: str = _ELSEWHERE) -> Iterator[None]:
    """Turns a refusal of the file system into one line that names the folder.

    Args:
        folder: where the block writes.
        elsewhere: how the user names another folder.

    Raises:
        UserError: read-only, forbidden, full, or not a folder; for a remote one as reaching, and no such bucket.
    """
    if not isinstance(folder, Path):
        with reaching(folder):
            try:
                yield
            except FileNotFoundError:
                raise UserError(f"{folder} {_no_bucket()}") from None
            except (FileExistsError, NotADirectoryError):
                raise UserError(f"{folder} cannot be made, as part of its path is a file; {elsewhere}") from None
        return
    reasons = {
        errno.EROFS: f"is on a read-only file system; {elsewhere}",
        errno.EACCES: f"may not be written; {elsewhere} or change its permissions",
        errno.EPERM: f"may not be written; {elsewhere} or change its permissions",
        errno.ENOTDIR: f"cannot be made, as part of its path is a file; {elsewhere}",
        errno.ENOENT: f"cannot be made; {elsewhere}",
        errno.EEXIST: f"cannot be made, as a file of that name exists; {elsewhere}",
    }
    try:
        with space_for(folder, elsewhere):
            yield
    except OSError as error:
        if error.errno not in reasons:
            raise
        raise UserError(f"{folder} {reasons[error.errno]}") from None


@contextmanager
def space_for(folder: Location, elsewhere: str = _ELSEWHERE) -> Iterator[None]:
    """Turns the want of space into one line, whatever the library that met it made of it.

    Args:
        folder: named where the file system did not say what it could not write.
        elsewhere: how the user names another folder.

    Raises:
        DiskFull: the disk is full, or the user's share of it.
    """
    reasons = {errno.ENOSPC: "is on a full disk", errno.EDQUOT: "is over its quota"}
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            # shutil puts the errors of many files into the text of one.
            number = next((n for n in reasons if isinstance(cause, OSError) and f"[Errno {n}]" in str(cause)), None)
            if number is not None:
                named = Path(str(getattr(cause, "filename", None) or folder))
                place = folder if str(named).startswith(str(folder)) else named.parent
                raise DiskFull(f"{place} {reasons[number]}; free space or {elsewhere}") from None
            cause = cause.__cause__ or cause.__context__
        raise


@contextmanager
def reaching(place: Location) -> Iterator[None]:
    """Turns the refusal of a remote location into one line that names it; does nothing about a local one.

    Args:
        place: what the block reads or writes.

    Raises:
        UserError: no credentials, forbidden, no such bucket, no connection, or a package is missing.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = None if isinstance(place, Path) else _refusal(place, error)
        if reason is None:
            raise
        # Not chained: the messages of the services may quote what they were sent.
        raise UserError(f"{place} {reason}") from None


def _refusal(place: UPath, error: Exception) -> str | None:
    """Says why a remote location refused, and what to do; None where the error is none that a user could mend."""
    seen = list(_causes(error))
    names = {kind.__name__ for cause in seen for kind in type(cause).__mro__}
    responses = (getattr(cause, "response", None) for cause in seen)
    code = next((str(r["Error"].get("Code")) for r in responses if isinstance(r, dict) and "Error" in r), "")
    if names & _NO_CREDENTIALS:
        return (
            "needs credentials and none were found; set them (for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            f"AWS_PROFILE) or {_ELSEWHERE}"
        )
    if code == "NoSuchBucket":
        return _no_bucket()
    if code in _FORBIDDEN or "PermissionError" in names:
        return f"is forbidden{_in_brackets(code)}; use credentials that may list, read and write there, or {_ELSEWHERE}"
    if code in _PASSING:
        return f"fails just now{_in_brackets(code)}; run the same command again, it goes on where this one stopped"
    if "ParamValidationError" in names or any(str(cause).startswith("Invalid endpoint") for cause in seen):
        return f"is no valid address; correct it in store=, results= or out=, or the service's ({_S3_SETTINGS})"
    if "ImportError" in names:
        return _missing_package(place.protocol, error)
    if names & _NO_CONNECTION:
        return f"cannot be reached; check the network and the service's address ({_S3_SETTINGS}), or {_ELSEWHERE}"
    if code and "FileNotFoundError" not in names:
        return f"was refused{_in_brackets(code)}; check the service's address ({_S3_SETTINGS}), or {_ELSEWHERE}"
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _no_bucket() -> str:
    return "lies in no bucket that exists; make the bucket, or correct its name in store=, results= or out="


def _in_brackets(code: str) -> str:
    return f" ({code})" if code.isalnum() else ""


def _missing_package(protocol: str, error: Exception) -> str:
    if protocol in ("s3", "s3a"):
        return f"needs the package s3fs; pip install 'siamray[s3]', or {_ELSEWHERE}"
    return f"needs a package that is missing ({' '.join(str(error).split())}), or {_ELSEWHERE}"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _finite(value: Any) -> Any:
    """Replaces what JSON cannot say by what it can: NaN by null, NumPy scalars by numbers."""
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    if hasattr(value, "tolist"):
        return _finite(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
