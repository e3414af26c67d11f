"""Known values go into all that identifies a person in a DICOM file; where a folder holds them comes out.

What PS3.15, table E.1-1 (the basic profile of de-identification) lists are texts, names, dates, times, ages, UIDs and
sequences of these. Here every element of these kinds that PS3.6 knows is planted, which is more: the table grows.

    plant(path)              writes the values into a file, in place
    find_planted(folder)     names each file below a folder that holds one of them, whatever it is compressed with
    planted_in(data)         names the values that bytes hold
"""

import gzip
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numcodecs.blosc
import numcodecs.zstd
import pyarrow as pa
import pyarrow.parquet
import pydicom
from PIL import Image as PillowImage
from pydicom import Dataset
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from siamray.data.dicom_file import KEYWORDS

NAME = "ZQXPERSON"
DATE = "19031207"
TIME = "041307.190371"
AGE = "107Y"
UID = "1.9.19031207.19071203"
NUMBER = "19071203"
# What is looked for: the values, and the ways in which dates and numbers may be written out again.
_MARKS = re.compile(rb"zqxperson|19031207|1903-12-07|1903/12/07|041307\.1903|04:13:07|19071203", re.IGNORECASE)
_AGE = re.compile(rb"(?<![0-9A-Za-z])107Y(?![0-9A-Za-z])")
_VALUES = {
    "PN": f"{NAME}^Anna^^Dr",
    "LO": f"{NAME} text",
    "SH": NAME,
    "ST": f"{NAME} text",
    "LT": f"{NAME} text",
    "UT": f"{NAME} text",
    "UC": f"{NAME} text",
    "UR": f"http://{NAME}.example",
    "AE": NAME,
    "CS": NAME,
    "DA": DATE,
    "TM": TIME,
    "DT": f"{DATE}{TIME}",
    "AS": AGE,
    "UI": UID,
}
_NUMBERS = {"DS": NUMBER, "IS": NUMBER, "US": 1907, "UL": int(NUMBER)}
# Elements that reading needs, and those that say how the others are encoded; views are free text in some archives.
_KEPT = (set(KEYWORDS) - {"Manufacturer", "ViewPosition"}) | {"SpecificCharacterSet"}
# Command and file meta elements, directories, how pixels are stored, and the pixels.
_LEFT_GROUPS = (0x0000, 0x0002, 0x0004, 0x0028, 0x7FE0)
# Of these groups numbers identify as well: weight, size, number of pregnancies.
_PATIENT_GROUPS = (0x0010,)
_PRIVATE_GROUPS = (0x0009, 0x0011, 0x0019, 0x0029, 0x0041, 0x7FE1)
# A sample of E.1-1 across its kinds: plant() must have written these, whatever a version of pydicom knows.
PROFILE = """
    AccessionNumber AdditionalPatientHistory AdmittingDate AdmittingDiagnosesDescription Allergies
    AcquisitionComments AcquisitionDate AcquisitionDateTime AcquisitionDeviceProcessingDescription
    AcquisitionProtocolDescription AcquisitionTime ActualHumanPerformersSequence AuthorObserverSequence
    BranchOfService CassetteID CommentsOnThePerformedProcedureStep
    ConfidentialityConstraintOnPatientDataDescription ContentCreatorName ContentDate ContentSequence
    ContentTime ContrastBolusAgent ContributionDescription CountryOfResidence CurrentPatientLocation
    CustodialOrganizationSequence DataSetTrailingPadding DerivationDescription DetectorID DeviceSerialNumber
    DeviceUID DigitalSignaturesSequence DistributionAddress DistributionName EthnicGroup
    FillerOrderNumberImagingServiceRequest FrameComments FrameOfReferenceUID GantryID
    GraphicAnnotationSequence HumanPerformerName HumanPerformerOrganization ImageComments
    ImagingServiceRequestComments InstanceCreatorUID InstitutionAddress InstitutionCodeSequence
    InstitutionName InstitutionalDepartmentName InsurancePlanIdentification IssuerOfPatientID
    LastMenstrualDate MedicalAlerts MedicalRecordLocator MilitaryRank NameOfPhysiciansReadingStudy
    NamesOfIntendedRecipientsOfResults Occupation OperatorIdentificationSequence OperatorsName
    OrderCallbackPhoneNumber OrderEnteredBy OtherPatientIDs OtherPatientIDsSequence OtherPatientNames
    ParticipantSequence PatientAddress PatientAge PatientBirthDate PatientBirthName PatientBirthTime
    PatientComments PatientID PatientInsurancePlanCodeSequence PatientMotherBirthName PatientName
    PatientReligiousPreference PatientSex PatientSexNeutered PatientSize PatientTelephoneNumbers PatientWeight
    PerformedProcedureStepDescription PerformedProcedureStepID PerformedStationName PerformingPhysicianName
    PersonAddress PersonName PersonTelephoneNumbers PhysiciansOfRecord
    PhysiciansReadingStudyIdentificationSequence PlateID PreMedication ProtocolName ReasonForStudy
    ReferencedPatientSequence ReferringPhysicianAddress ReferringPhysicianName
    ReferringPhysicianTelephoneNumbers RegionOfResidence RequestAttributesSequence RequestedProcedureComments
    RequestedProcedureDescription RequestingPhysician RequestingService ResponsibleOrganization
    ResponsiblePerson ResultsComments ReviewerName ScheduledPerformingPhysicianName
    ScheduledProcedureStepDescription ScheduledStationName SeriesDate SeriesDescription SeriesInstanceUID
    SeriesTime ServiceEpisodeDescription SmokingStatus SOPInstanceUID SourceImageSequence SpecialNeeds
    StationName StudyComments StudyDate StudyDescription StudyID StudyInstanceUID StudyTime TextComments
    TextString TimezoneOffsetFromUTC VerifyingObserverName VerifyingOrganization VisitComments
"""


def plant(path: Path) -> None:
    """Writes known values into every identifying element of a DICOM file, its private elements and its preamble.

    Args:
        path: a file with meta information; it is changed in place, its pixels are not.
    """
    dataset = pydicom.dcmread(path)
    _plant_elements(dataset)
    _plant_private(dataset)
    for name in ("ViewCodeSequence", "VOILUTSequence", "ModalityLUTSequence"):
        for item in dataset.get(name) or []:
            item.CodeMeaning, item.LUTExplanation = f"{NAME} text", f"{NAME} text"
    icon = _person()
    icon.Rows, icon.Columns, icon.BitsAllocated, icon.PixelData = 2, 4, 8, DATE.encode()
    dataset.IconImageSequence = Sequence([icon])
    # Repeating groups: curves and overlays, each with words of its own.
    dataset.add_new(0x50000022, "LO", f"{NAME} curve")
    dataset.add_new(0x60000022, "LO", f"{NAME} overlay")
    dataset.add_new(0x60001500, "LO", f"{NAME} label")
    dataset.add_new(0x60004000, "LT", f"{NAME} comments")
    dataset.add_new(0xFFFCFFFC, "OB", NAME.encode() + b"\0")
    _plant_meta(dataset)
    dataset.save_as(path, enforce_file_format=True)


def _plant_elements(dataset: Dataset) -> None:
    for number, (kind, _, _, _, keyword) in DicomDictionary.items():
        tag = Tag(number)
        if not keyword or keyword in _KEPT or tag.group in _LEFT_GROUPS:
            continue
        if kind == "SQ":
            dataset[tag] = DataElement(tag, kind, Sequence([_person()]))
        elif kind in _VALUES:
            dataset[tag] = DataElement(tag, kind, _VALUES[kind])
        elif kind in _NUMBERS and tag.group in _PATIENT_GROUPS:
            dataset[tag] = DataElement(tag, kind, _NUMBERS[kind])


def _person() -> Dataset:
    """An item with what identifies a person, private elements included."""
    item = Dataset()
    item.PatientName, item.PatientID, item.PatientBirthDate = _VALUES["PN"], _VALUES["LO"], DATE
    item.PatientAge, item.StudyInstanceUID, item.ContentTime = AGE, UID, TIME
    item.CodeValue, item.CodeMeaning = NAME, f"{NAME} text"
    item.private_block(0x0013, f"{NAME} nested", create=True).add_new(0x01, "LO", f"{NAME} text")
    return item


def _plant_private(dataset: Dataset) -> None:
    for group in _PRIVATE_GROUPS:
        for number in (1, 2):
            block = dataset.private_block(group, f"{NAME} {number}", create=True)
            block.add_new(0x01, "LO", f"{NAME} text")
            block.add_new(0x02, "DA", DATE)
            block.add_new(0x03, "UN", NAME.encode() + b"\0")
            block.add_new(0x04, "SQ", Sequence([_person()]))


def _plant_meta(dataset: Dataset) -> None:
    dataset.preamble = (f"{NAME} {DATE} {AGE} ".encode() * 8)[:128]
    meta = dataset.file_meta
    meta.MediaStorageSOPInstanceUID = UID
    meta.ImplementationVersionName, meta.SourceApplicationEntityTitle = NAME, NAME
    meta.SendingApplicationEntityTitle, meta.ReceivingApplicationEntityTitle = NAME, NAME
    meta.PrivateInformationCreatorUID, meta.PrivateInformation = UID, NAME.encode() + b"\0"


def planted_in(data: bytes | str) -> list[str]:
    """Names the planted values that bytes or a text hold, in upper or lower case."""
    content = data.encode("utf-8", "replace") if isinstance(data, str) else data
    found = {match.group().decode().upper() for match in _MARKS.finditer(content)}
    # Four bytes occur among pixels by chance: an age is looked for in texts alone.
    if b"\0" not in content and _AGE.search(content):
        found.add(AGE)
    return sorted(found)


def find_planted(folder: Path) -> list[str]:
    """Looks for planted values in the names and in every byte of all files below a folder.

    Args:
        folder: where to look; files that are compressed with zstd, blosc, gzip or zip are looked into, and so are
            Parquet files and the texts of PNG pictures.

    Returns:
        One line per file and value; none where there are none.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        values = set(planted_in(name))
        if path.is_file():
            for content in _contents(path.read_bytes()):
                values.update(planted_in(content))
        found += [f"{name}: {value}" for value in sorted(values)]
    return found


def _contents(data: bytes) -> Iterator[bytes]:
    """Gives a file's bytes, and what they become where they are compressed."""
    yield data
    if data[:4] == b"\x28\xb5\x2f\xfd":
        yield bytes(numcodecs.zstd.decompress(data))
    elif data[:2] == b"\x1f\x8b":
        yield from _contents(gzip.decompress(data))
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield from _contents(archive.read(name))
    elif data[:4] == b"PAR1":
        yield from _parquet(data)
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        with PillowImage.open(io.BytesIO(data)) as picture:
            picture.load()
            yield str(picture.info).encode()
    elif _is_blosc(data):
        yield bytes(numcodecs.blosc.decompress(data))


def _is_blosc(data: bytes) -> bool:
    # Blosc has no magic: its header repeats the length of the whole (bytes 12 to 15).
    return len(data) > 16 and data[0] in (1, 2) and int.from_bytes(data[12:16], "little") == len(data)


def _parquet(data: bytes) -> Iterator[bytes]:
    table = pyarrow.parquet.read_table(pa.BufferReader(data))
    yield str(table.schema).encode()
    yield str(table.schema.metadata).encode()
    for name in table.column_names:
        for value in table.column(name).to_pylist():
            if value is not None and not isinstance(value, float):
                yield repr(value).encode()
