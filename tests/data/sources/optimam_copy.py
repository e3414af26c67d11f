"""A folder goes in; a small copy of OPTIMAM (OMI-DB), drawn from phantoms, comes out.

``python -m tests.data.sources.optimam_copy OUT``. True are the folders (data/CLIENT, images/CLIENT/STUDY), names and
contents of imagedb, nbss and image JSON (DICOM JSON with the names and dates that headers hold), and what is odd:
upper-case prefixes, .dcm.json, null marks and series, marks without MassClassification, linked to lesions "1,2" or out
of bounds, raw twins of processed images, files that are missing or damaged, clients without nbss or imagedb.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydicom.uid import generate_uid

from siamray.config import PhantomConfig
from siamray.data.exams import BOX_COLUMNS, VIEWS
from siamray.data.sources.phantom import mammogram
from siamray.data.sources.phantom_anatomy import View, imagine, render

PHANTOMS = PhantomConfig(height_pixels=192, width_pixels=160, spacing_mm=0.9)
# Planted where no table may show them.
SECRET = "Mary^Example"
OTHER = {"L": "R", "R": "L"}
_ELEMENT = {"L": "left_opinion", "R": "right_opinion"}

Json = dict[str, Any]


def screening(date: str, left: str | None = "ON", right: str | None = "ON") -> Json:
    """Makes the event SCREENING."""
    sides = {
        side: {"DateTaken": date, "EquipmentMakeModel": "HOLOGIC", "Opinion": "RN" if opinion == "ON" else None}
        for side, opinion in (("L", left), ("R", right))
    }
    return {"SCREENING": {**sides, "left_opinion": left, "right_opinion": right}}


def event(name: str, side: str, date: str, opinion: str | None, lesion: str | None = None, number: str = "1") -> Json:
    """Makes an event of one breast: ASSESSMENT, BIOPSYWIDE, BIOPSYFINE, CLINICAL or SURGERY."""
    lesions = {number: {"DatePerformed": date, "Opinion": lesion}}
    return {name: {side: lesions, OTHER[side]: {}, _ELEMENT[side]: opinion, _ELEMENT[OTHER[side]]: None}}


def lesion(side: str, kind: str, number: str = "1") -> Json:
    """Makes the record LESION."""
    return {"LESION": {side: {number: {"LesionDescription": kind, "LesionPosition": f"{side}A1"}}, OTHER[side]: {}}}


def episode(kind: str, date: str, *events: Json, action: str | None = "RR", diagnosis: str | None = None) -> Json:
    """Makes an episode of nbss."""
    record: Json = {"EpisodeType": kind, "EpisodeAction": action, "EpisodeOpenedDate": date, "EpisodeIsClosed": "Y"}
    record |= {"PatientName": SECRET, "NHSNumber": "9434765919"}
    if diagnosis:
        record["IntervalCancerDateOfDiagnosis"] = diagnosis
    for part in events:
        record |= part
    return record


def screened(date: str) -> Json:
    """Makes an episode in which the readers saw nothing."""
    return episode("R", date, screening(date))


class Client:
    """Writes one client.

    Args:
        root: folder of the copy.
        name: of the client.
        number: of the phantom woman.
        lesions: whether she has one.
        upper: whether the prefixes are in upper case.
        ending: of image JSON.
    """

    def __init__(
        self, root: Path, name: str, number: int, *, lesions: bool = False, upper: bool = False, ending: str = ".json"
    ) -> None:
        self.root, self.name, self.ending, self.upper = root, name, ending, upper
        self.woman = imagine(PhantomConfig(**{**vars(PHANTOMS), "lesion_share": float(lesions)}), number)
        self.side = self.woman.affected or "L"
        self.studies: Json = {}
        self.boxes: dict[str, list[Json]] = {}

    def uid(self, *words: object) -> str:
        """Makes an instance UID of its own for everything."""
        return str(generate_uid(prefix="1.2.826.0.1.3680043.9.3218.", entropy_srcs=[self.name, *map(str, words)]))

    def path(self, study: str, image: str) -> Path:
        """Names the file of an image."""
        return self.root / "images" / self.name / study / f"{image}.dcm"

    def header(self, study: str, image: str) -> Path:
        """Names the JSON of an image."""
        return self.root / "data" / self.name / study / f"{image}{self.ending}"

    def study(self, episode_id: str | None, date: str | None, *, marks: bool = False) -> str:
        """Writes a study with four images; marks where the phantom's lesions are."""
        study = self.uid("study", len(self.studies))
        record: Json = {"EpisodeID": episode_id, "StudyDate": date}
        self.studies[study] = record
        for side in ("L", "R"):
            for view in VIEWS:
                pixels, boxes = render(View(self.woman, view), side)
                image = self.image(study, side, view, pixels)
                self.boxes[image] = boxes
                found = {str(n): mark(box, n) for n, box in enumerate(boxes, start=1)} if marks and boxes else None
                record.setdefault(self.uid("series", study, side), {})[image] = found
        return study

    def image(self, study: str, side: str, view: str, pixels: Any, twin: str = "", **elements: Any) -> str:
        """Writes an image and its JSON."""
        image = self.uid("image", study, side, view, twin)
        dataset = mammogram(pixels, self.woman, side, view)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = image
        dataset.PatientAge, dataset.Manufacturer = "053Y", "HOLOGIC, Inc."
        for name, value in elements.items():
            setattr(dataset, name, value)
        self.path(study, image).parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(self.path(study, image), enforce_file_format=True)
        del dataset.PixelData
        values = {**dataset.to_json_dict(), "00100010": {"vr": "PN", "Value": [{"Alphabetic": SECRET}]}}
        values["00080020"] = {"vr": "DA", "Value": ["20120530"]}
        write_json(self.header(study, image), values)
        return image

    def images(self, study: str) -> Iterator[tuple[str, Json]]:
        """Yields the images of a study with the series they are in."""
        for series in self.studies[study].values():
            for image in list(series) if isinstance(series, dict) else ():
                yield image, series

    def finish(self, nbss: Json | None) -> "Client":
        """Writes imagedb and nbss."""
        records: Json = {"imagedb": {"ClientID": self.name, "Site": "adde", "STUDIES": self.studies}}
        records |= {} if nbss is None else {"nbss": {"ClientID": self.name, **nbss}}
        for kind, record in records.items():
            prefix = kind.upper() if self.upper else kind
            write_json(self.root / "data" / self.name / f"{prefix}_{self.name}.json", record)
        return self


def mark(box: Json, number: int) -> Json:
    """Makes the mark of a phantom's lesion."""
    row_min, col_min, row_max, col_max = (round(box[name]) for name in BOX_COLUMNS)
    words = {"mass": {"MassClassification": "spiculated", "WithCalcification": "1"}}
    words |= {"calcification": {"SuspiciousCalcifications": "1"}}
    words |= {"architectural_distortion": {"ArchitecturalDistortion": "1"}}
    return {
        "MarkID": str(number),
        "LesionID": str(number),
        "LinkedNBSSLesionNumber": "1,2",
        "Conspicuity": "Obvious",
        "X1": str(col_min),
        "Y1": str(row_min),
        "X2": str(col_max),
        "Y2": str(row_max),
        **words[box["category"]],
    }


def write_json(path: Path, record: Any) -> None:
    """Writes a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record), encoding="utf-8")


def write_copy(root: Path) -> dict[str, Client]:
    """Writes the copy; returns its clients by name."""
    clients = [*_followed(root), *_cancers(root), *_intervals(root), *_damaged(root)]
    return {client.name: client for client in clients}


def _followed(root: Path) -> Iterator[Client]:
    """Women without cancer: screened twice with raw twins; once only; benign; linked by date alone; open opinions."""
    client = Client(root, "demd1", 0)
    first = client.study("100", "2010-03-01")
    client.study("101", "20130301")
    for image, series in client.images(first):
        side, view = next((s, v) for s in "LR" for v in VIEWS if client.uid("image", first, s, v, "") == image)
        pixels, _ = render(View(client.woman, view), side)
        series[client.image(first, side, view, pixels, "raw", PresentationIntentType="FOR PROCESSING")] = None
    yield client.finish({"100": screened("2010-03-01"), "101": screened("2013-03-01")})
    client = Client(root, "demd2", 1, upper=True)
    client.study("200", "2012-05-30")
    yield client.finish({"200": screened("2012-05-30")})
    client = Client(root, "optm3", 2, lesions=True)
    study = client.study("300", "2011-01-10", marks=True)
    for _, series in client.images(study):
        for found in series.values():
            for each in (found or {}).values():
                for word in ("MassClassification", "SuspiciousCalcifications", "ArchitecturalDistortion"):
                    each.pop(word, None)
                each["X2"], each["WithCalcification"], each["LinkedNBSSLesionNumber"] = "161", "", "1"
    biopsy = event("BIOPSYWIDE", client.side, "2011-02-01", "OB", "B2")
    seen = event("ASSESSMENT", client.side, "2011-01-20", "OU", "R3")
    parts = (screening("2011-01-10"), seen, biopsy, lesion(client.side, "DS"))
    yield client.finish({"300": episode("F", "2011-01-05", *parts)})
    client = Client(root, "optm4", 3)
    client.study(None, "2010-03-01")
    yield client.finish({"400": screened("2010-03-01"), "401": screened("2013-03-01")})
    client = Client(root, "optm5", 4)
    client.study("500", "2010-03-01")
    parts = (screening("2010-03-01", "OS", "ON"), event("BIOPSYWIDE", "R", "2010-04-01", "OB", "B5"))
    yield client.finish({"500": episode("R", "2010-03-01", *parts), "501": screened("2013-06-01")})


def _cancers(root: Path) -> Iterator[Client]:
    """Women with cancer found by screening: marked; not marked; found at the next screen, and a screen after it."""
    client = Client(root, "demd10", 5, lesions=True)
    client.study("1000", "2012-05-30", marks=True)
    parts = (screening("2012-05-30"), *_cancer(client.side, "2012-06-20"))
    yield client.finish({"1000": episode("R", "2012-05-20", *parts, action="ST")})
    client = Client(root, "demd11", 6, lesions=True, ending=".dcm.json")
    study = client.study("1100", "2012-05-30")
    null = client.uid("series", "null")
    client.studies[study][null] = None
    parts = (screening("2012-05-30"), *_cancer(client.side, "2012-06-20"))
    yield client.finish({"1100": episode("F", "2012-05-20", *parts, action="ST")})
    client = Client(root, "optm12", 7, lesions=True)
    client.study("1200", "2010-03-01")
    client.study("1201", "2013-03-01", marks=True)
    client.study("1202", "2016-03-01")
    parts = (screening("2013-03-01"), *_cancer(client.side, "2013-04-01"))
    parts += (event("SURGERY", client.side, "2013-05-01", "OM", "H5"),)
    episodes = {"1200": screened("2010-03-01"), "1201": episode("R", "2013-02-20", *parts, action="ST")}
    yield client.finish({**episodes, "1202": screened("2016-03-01")})


def _cancer(side: str, date: str) -> tuple[Json, ...]:
    return event("ASSESSMENT", side, date, "OM", "R5"), event("BIOPSYWIDE", side, date, "OM", "B5"), lesion(side, "MA")


def _intervals(root: Path) -> Iterator[Client]:
    """Interval cases: after 18 months; after 40 months, with images of its own; of a breast that nobody names."""
    client = Client(root, "optm20", 8)
    client.study("2000", "2010-03-01")
    found = {"INTERVALCANCER": {"L": {"1": {"DatePerformed": "2011-09-01"}}, "R": {}}}
    later = episode("CI", "2011-09-10", found, action=None, diagnosis="2011-09-01")
    yield client.finish({"2000": screened("2010-03-01"), "2001": later})
    client = Client(root, "optm21", 9, lesions=True)
    client.study("2100", "2008-05-01")
    client.study("2101", "2011-09-03")
    later = episode("CI", "2011-09-10", *_cancer(client.side, "2011-09-05"), diagnosis="2011-09-05")
    yield client.finish({"2100": screened("2008-05-01"), "2101": later})
    client = Client(root, "optm22", 10)
    client.study("2200", "2010-03-01")
    yield client.finish({"2200": screened("2010-03-01"), "2201": episode("CI", "2011-09-10", diagnosis="2011-09-01")})


def _damaged(root: Path) -> Iterator[Client]:
    """Clients of which something is missing, damaged or of no use."""
    nbss = {"1": screened("2010-03-01"), "2": screened("2013-03-01")}
    client = Client(root, "demd30", 11)
    client.study("1", "2010-03-01")
    yield client.finish(None)
    client = Client(root, "demd31", 12)
    client.study("1", "2010-03-01")
    client.finish(nbss)
    (root / "data" / client.name / f"imagedb_{client.name}.json").unlink()
    yield client
    client = Client(root, "demd32", 13)
    study = client.study("1", "2010-03-01")
    (one, _), (two, _), (three, _), (four, series) = client.images(study)
    client.header(study, one).write_text('{"00080060": {"vr"', encoding="utf-8")
    client.header(study, two).unlink()
    client.path(study, three).unlink()
    del series[four]
    yield client.finish(nbss)
    client = Client(root, "demd33", 14)
    study = client.study("1", "2010-03-01")
    (image, _), (other, _), *_ = client.images(study)
    values = json.loads(client.header(study, image).read_bytes())
    view = {"00080100": {"vr": "SH", "Value": ["R-10242"]}, "00540222": {"vr": "SQ", "Value": []}}
    view["00540222"]["Value"] = [{"00080100": {"vr": "SH", "Value": ["R-102D6"]}}]
    write_json(client.header(study, image), {**values, "00540220": {"vr": "SQ", "Value": [view]}})
    values = json.loads(client.header(study, other).read_bytes())
    write_json(client.header(study, other), {**values, "00281300": {"vr": "CS", "Value": ["YES"]}})
    yield client.finish(nbss)
    client = Client(root, "demd34", 15)
    client.study("1", "2010-03-01")
    yield client.finish({**nbss, "3": {"EpisodeType": "R", "SCREENING": {"L": {"DateTaken": "spring"}}}})
    client = Client(root, "demd35", 16)
    client.study("1", "2010-03-01")
    client.finish(nbss)
    (root / "data" / client.name / f"nbss_{client.name}.json").write_text("{", encoding="utf-8")
    yield client


def main(words: list[str]) -> None:
    """Writes a copy for looking at it."""
    write_copy(Path(words[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
