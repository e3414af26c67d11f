"""The folders of OPTIMAM (OMI-DB) go in: data/CLIENT and images/CLIENT; its exam and finding tables come out.

An exam is a study. imagedb (studies and marks) and the images' headers are read here, as omidb loses what it cannot
parse: a client without nbss or imagedb, a study without date or episode, a mark without number or with a coordinate
such as "12.0". What became of a breast is read from nbss with omidb's help (siamray.data.sources.optimam_outcome).

Marks are rare beside cancers. A breast that has a lesion at the exam, or may have one (an open opinion, treatment, a
cancer that the next screen finds, no record at all), gets a finding of unknown place in each image without a mark, as
its unmarked tissue is not normal. Exams before an interval case are interval_cancer without such a finding: their
outcome says enough. Dates and numbers of NBSS stay here: the tables hold months and the set's own pseudonyms.
"""

import datetime
import json
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from siamray.config import DataConfig
from siamray.data.exams import ExamTables, tables
from siamray.data.sites import site_word
from siamray.data.sources import accepted
from siamray.data.sources.optimam_image import Facts, box_of, category_of, read_facts
from siamray.data.sources.optimam_outcome import SIDES, History, Outcome, load_omidb, outcome_of, read_history
from siamray.data.sources.root import listed, not_this_data_set, root_folder
from siamray.errors import UserError

DATA, IMAGES = "data", "images"
_LOOKED_FOR = f"{DATA}/CLIENT/imagedb_CLIENT.json and {IMAGES}/CLIENT/STUDY/IMAGE.dcm"
_CLIENT = re.compile(r"(demd|optm)\w+", re.IGNORECASE)
_UID = re.compile(r"\d[\d.]*")
# Reading waits for the file server; parsing does not profit from more threads.
_THREADS = 16

Files = dict[str, dict[str, Path]]


@dataclass
class _Client:
    """What is found of one client.

    Attributes:
        name: name of the client, as its folder is called.
        folder: her folder in data.
        site: code of the centre that screened her, or None.
        headers: JSON files of the images by study and image.
        images: image files by study and image.
        exams: rows so far, each with the rows of its findings.
        excluded: rows so far.
    """

    name: str
    folder: Path
    site: str | None = None
    headers: Files = field(default_factory=dict)
    images: Files = field(default_factory=dict)
    exams: list[tuple[dict[str, Any], list[dict[str, Any]]]] = field(default_factory=list)
    excluded: list[dict[str, Any]] = field(default_factory=list)

    def leave_out(self, image: str, path: Path, reason: str) -> None:
        """Notes what is left out, and why."""
        self.excluded.append({"image_id": image, "path": str(path), "reason": reason})


def read(config: DataConfig, cache: Path) -> ExamTables:  # noqa: ARG001  (all sources share one signature)
    """Reads the tables of OPTIMAM.

    Args:
        config: data.root names the folder that holds data and images; data.optimam says how it is read.
        cache: not used: JSON is read as fast as a memory of it would be.

    Returns:
        The tables, several images of one side and view among them; left out with a reason are images without file,
        with a header that says they are no standard mammogram for presentation, of no imagedb, and files that none
        lists. Episodes and marks that cannot be read are listed there too.

    Raises:
        UserError: no root, not OPTIMAM, or omidb is not installed.
    """
    root = _set_folder(config)
    omidb = load_omidb()
    accept = accepted(config)
    names = sorted({path.name for part in (DATA, IMAGES) for path in listed(root / part) if path.is_dir()})
    with ThreadPoolExecutor(_THREADS) as pool:
        clients = list(pool.map(lambda name: _read_client(root, name, config, accept, omidb), names))
    return tables(*_without_repeats(clients))


def _set_folder(config: DataConfig) -> Path:
    folder = root_folder(config, _LOOKED_FOR)
    if _is_set(folder):
        return folder
    below = (path for path in listed(folder) if path.is_dir() and os.access(path, os.R_OK | os.X_OK))
    for other in (folder.parent, folder.parent.parent, *below):
        if _is_set(other):
            raise UserError(f"data.root={folder} is not OPTIMAM's folder, but data.root={other} is; use that")
    for part in (DATA, IMAGES):
        if not (folder / part).is_dir():
            raise not_this_data_set(config, folder, f"folder {part}")
    raise not_this_data_set(config, folder / DATA, "client folder (demd... or optm...)")


def _is_set(folder: Path) -> bool:
    if not ((folder / DATA).is_dir() and (folder / IMAGES).is_dir()):
        return False
    with os.scandir(folder / DATA) as entries:
        return any(_CLIENT.fullmatch(entry.name) for entry in entries)


def _read_client(
    root: Path, name: str, config: DataConfig, accept: frozenset[str], omidb: Mapping[str, Any]
) -> _Client:
    """Reads everything of one client; what its files hold is never allowed to stop the others."""
    client = _Client(name, root / DATA / name)
    records = _find_files(client, root / IMAGES / name)
    if not records and not client.headers and not client.images:
        client.leave_out(name, client.folder, "neither imagedb, nbss nor an image is in this folder")
        return client
    history = _history(client, records.get("nbss"), omidb)
    imagedb, fault = _json(records.get("imagedb"))
    studies = imagedb.get("STUDIES") if imagedb else None
    if not isinstance(studies, dict):
        reason = f"the client's imagedb JSON {fault or 'lists no studies'}: what is marked is not known"
        _leave_out_the_rest(client, {}, reason)
        if not client.images:
            client.leave_out(f"{name} imagedb", records.get("imagedb", client.folder), reason)
        return client
    client.site = site_word(imagedb.get("Site")) if imagedb else None
    seen: dict[str, set[str]] = {}
    for study, record in studies.items():
        if isinstance(record, dict):
            listed_images = _images_of(record)
            seen[study] = set(listed_images)
            _read_study(client, (study, record, listed_images), history, config, accept)
    _leave_out_the_rest(client, seen, "not listed in the client's imagedb JSON: what is marked is not known")
    return client


def _find_files(client: _Client, images: Path) -> dict[str, Path]:
    """Lists the client's folders; returns the files imagedb and nbss."""
    records: dict[str, Path] = {}
    for path in listed(client.folder):
        if path.suffix.lower() != ".json":
            client.headers[path.name] = {_stem(file): file for file in listed(path) if file.suffix.lower() == ".json"}
            continue
        kind = next((word for word in ("imagedb", "nbss") if path.name.lower().startswith(f"{word}_")), None)
        if kind is None or kind in records:
            client.leave_out(f"{client.name}/{path.name}", path, "neither the client's imagedb nor her nbss")
        else:
            records[kind] = path
    for path in listed(images):
        files = listed(path)
        client.images[path.name] = {_stem(file): file for file in files if not file.name.startswith(".")}
        if not files and path.is_file():
            client.leave_out(f"{client.name}/{path.name}", path, "lies in no study's folder")
    client.headers = {study: files for study, files in client.headers.items() if files}
    client.images = {study: files for study, files in client.images.items() if files}
    return records


def _stem(path: Path) -> str:
    """Takes off the ending, which is .dcm, .json or .dcm.json; images' names are full of dots."""
    return re.sub(r"(\.dcm)?(\.json)?$", "", path.name, flags=re.IGNORECASE)


def _json(path: Path | None) -> tuple[dict[str, Any] | None, str | None]:
    """Returns a file's content, or what is wrong with it."""
    if path is None:
        return None, "is missing"
    try:
        content = json.loads(path.read_bytes())
    except OSError:
        return None, "cannot be opened"
    # Not JSON, not text, or nested too deeply.
    except (ValueError, RecursionError):
        return None, "is damaged"
    return (content, None) if isinstance(content, dict) else (None, "is damaged")


def _history(client: _Client, path: Path | None, omidb: Mapping[str, Any]) -> History | None:
    nbss, fault = _json(path)
    if nbss is None:
        reason = f"the client's nbss JSON {fault}: nothing is known of the outcome of her exams"
        client.leave_out(f"{client.name} nbss", path or client.folder, reason)
        return None
    history = read_history(client.name, nbss, omidb)
    for number, text in enumerate(history.faults, start=1):
        client.leave_out(f"{client.name} nbss {number}", path or client.folder, text)
    return history


def _images_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the marks of the images of a study, of all series; a series may be null."""
    return {
        image: marks
        for series, images in record.items()
        if _UID.fullmatch(series) and isinstance(images, dict)
        for image, marks in images.items()
        if _UID.fullmatch(image)
    }


def _read_study(
    client: _Client,
    study: tuple[str, Mapping[str, Any], Mapping[str, Any]],
    history: History | None,
    config: DataConfig,
    accept: frozenset[str],
) -> None:
    """Makes the rows of a study: its name, its record in imagedb, and the marks of its images."""
    name, record, images = study
    episode = str(record.get("EpisodeID") or "")
    date = _date(record.get("StudyDate"))
    outcomes = {side: outcome_of(history, episode, date, side, config.optimam) for side in SIDES}
    found = history.episodes.get(episode) if history is not None else None
    for image, marks in images.items():
        path = client.images.get(name, {}).get(image)
        header = client.headers.get(name, {}).get(image)
        if path is None:
            missing = client.folder.parents[1] / IMAGES / client.name / name / f"{image}.dcm"
            client.leave_out(image, missing, "listed in the client's imagedb JSON, but there is no such file")
            continue
        facts = read_facts(header, path, accept)
        if facts.reason is not None or facts.laterality is None:
            client.leave_out(image, path, facts.reason or "its header does not say which breast it shows")
            continue
        side = SIDES[SIDES.index(facts.laterality)]
        rows = _findings(client, (image, path), marks, facts, found.kinds[side] if found else {}, config)
        outcome = outcomes[side]
        if not rows and outcome.lesion:
            rows = [{"image_id": image, "category": outcome.category}]
        exam = _exam(client, name, (image, path), facts, outcome, marked=bool(rows))
        client.exams.append((exam, rows))


def _exam(
    client: _Client, study: str, image: tuple[str, Path], facts: Facts, outcome: Outcome, *, marked: bool
) -> dict[str, Any]:
    # A mark in a breast whose record says normal: both cannot be true, and nobody knows which is.
    contradicts = marked and outcome.outcome == "normal"
    return {
        "source": "optimam",
        "woman_id": client.name,
        "exam_id": f"{client.name}_{study}",
        "image_id": image[0],
        "laterality": facts.laterality,
        "view": facts.view,
        "path": str(image[1]),
        "spacing_mm": facts.spacing_mm,
        "outcome": None if contradicts else outcome.outcome,
        "outcome_months": None if contradicts else outcome.months,
        "age": facts.age,
        "vendor": facts.vendor,
        "site": client.site,
    }


def _findings(
    client: _Client, image: tuple[str, Path], marks: Any, facts: Facts, lesions: Mapping[str, str], config: DataConfig
) -> list[dict[str, Any]]:
    """Returns a row per mark; one whose place cannot be read is kept without it, and listed."""
    rows: list[dict[str, Any]] = []
    if not isinstance(marks, dict):
        return rows
    for number, mark in enumerate(marks.values(), start=1):
        mark = mark if isinstance(mark, dict) else {}
        row: dict[str, Any] = {"image_id": image[0], "category": category_of(mark, lesions)}
        try:
            row |= box_of(mark, facts, config.optimam.box_origin)
        except ValueError as error:
            reason = f"the place of a mark is not used: {error}; the finding is kept without it"
            client.leave_out(f"{image[0]} mark {number}", image[1], reason)
        if row not in rows:
            rows.append(row)
    return rows


def _date(text: Any) -> datetime.date | None:
    """Reads 2012-05-30 or 20120530."""
    digits = re.fullmatch(r"(\d{4})(-?)(\d\d)\2(\d\d)(?!\d).*", text) if isinstance(text, str) else None
    try:
        return datetime.date(int(digits[1]), int(digits[3]), int(digits[4])) if digits else None
    except ValueError:
        return None


def _leave_out_the_rest(client: _Client, seen: Mapping[str, set[str]], reason: str) -> None:
    """Notes the files of images that no study of imagedb lists; a JSON beside its image is no thing of its own."""
    for study in sorted({*client.images, *client.headers}):
        files = {**client.headers.get(study, {}), **client.images.get(study, {})}
        for image in sorted(set(files) - seen.get(study, set())):
            client.leave_out(image, files[image], reason)


def _without_repeats(
    clients: Iterable[_Client],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Puts the clients together; an image id that occurs again is left out by its full name."""
    exams: dict[str, dict[str, Any]] = {}
    findings: list[dict[str, Any]] = []
    excluded: list[dict[str, Any]] = []
    for client in clients:
        excluded += client.excluded
        for exam, rows in client.exams:
            image = exam["image_id"]
            if image in exams:
                name, reason = f"{exam['exam_id']}/{image}", "an image of this id is in another study too"
                excluded.append({"image_id": name, "path": exam["path"], "reason": reason})
                continue
            exams[image] = exam
            findings += rows
    named = {row["image_id"] for row in excluded} & set(exams)
    excluded = [
        {**row, "image_id": f"{Path(row['path']).parent.name}/{row['image_id']}"} if row["image_id"] in named else row
        for row in excluded
    ]
    return list(exams.values()), findings, excluded
