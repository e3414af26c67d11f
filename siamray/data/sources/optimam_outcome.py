"""The NBSS record of an OPTIMAM client goes in; what became of each breast after an exam comes out.

Types, dates and opinions of an episode are read by omidb, one episode at a time, so that one which it cannot read costs
no other. Its classification is per episode and not per breast, it keys lesions by their number alone (the right
breast's first lesion replaces the left's) and leaves out the event INTERVALCANCER, so lesions and outcomes are read
here. tests/data/sources/test_optimam.py holds them against omidb.classificationtools.episode_outcome.
"""

import datetime
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from siamray.config import OptimamConfig
from siamray.errors import UserError

Side = Literal["L", "R"]
SIDES: tuple[Side, Side] = ("L", "R")
# NBSS codes of a lesion (LesionDescription) and, behind them, the words that omidb knows for them.
LESION_KINDS = {
    "AS": "asymmetry",
    "CA": "calcification",
    "CY": "mass",
    "DS": "architectural_distortion",
    "LN": "lymph_node",
    "MA": "mass",
    "MC": "mass",
}
_OPINIONS: dict[Side, str] = {"L": "left_opinion", "R": "right_opinion"}
# From the most to the least certain: what surgery says of a lesion overrides what a needle said.
_PATHOLOGY = {"surgery": "SURGERY", "biopsy_wide": "BIOPSYWIDE", "biopsy_fine": "BIOPSYFINE"}
_EVENTS = {**_PATHOLOGY, "assessment": "ASSESSMENT", "clinical": "CLINICAL", "screening": "SCREENING"}
_MALIGNANT_LESION = ("H5", "B5", "C5", "OM")
_OPEN = ("OS", "OU", "OM")
_OPEN_READING = ("R3", "R4", "R5", "RU", "RS", "RM")
# Actions of an episode after which nothing more was wanted; any other without the event it asks for leaves it open.
_CLOSING_ACTIONS = ("RR", "NA", None)
# Episodes after the treatment of a cancer: continued assessment is not one of them.
_AFTER_TREATMENT = ("CF", "CD", "CR")
_DAYS_PER_MONTH = 365.25 / 12


@dataclass(frozen=True)
class Verdict:
    """What an episode says of a breast.

    Attributes:
        kind: malignant, benign, normal, doubtful (open, contradictory or after treatment) or unknown (nothing is said).
        date: when that was established, or None.
    """

    kind: str
    date: datetime.date | None = None


@dataclass(frozen=True)
class Episode:
    """One episode of a client.

    Attributes:
        start: its first event (of an interval case, the diagnosis), or None.
        dates: dates of its events.
        interval: whether it is an interval case.
        screened: whether the woman was screened in it.
        verdicts: by breast.
        surgery: first surgery by breast; a breast without one is absent, one of unknown date None.
        kinds: category of the lesions by breast and number.
    """

    start: datetime.date | None
    dates: frozenset[datetime.date]
    interval: bool
    screened: bool
    verdicts: dict[Side, Verdict]
    surgery: dict[Side, datetime.date | None]
    kinds: dict[Side, dict[str, str]]


@dataclass
class History:
    """All episodes of a client.

    Attributes:
        episodes: by their NBSS number.
        faults: what could not be read, in words that name no number and no date.
        complete: whether every episode was read; else a cancer may be among those that were not.
    """

    episodes: dict[str, Episode] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    complete: bool = True


@dataclass(frozen=True)
class Outcome:
    """What became of a breast after an exam.

    Attributes:
        outcome: word of siamray.data.exams.OUTCOMES, or None.
        months: from the exam to what established it, or None.
        lesion: whether the breast has a lesion, or may have one, at the exam: unmarked, its tissue is not normal.
        category: kind of that lesion.
    """

    outcome: str | None
    months: float | None = None
    lesion: bool = False
    category: str = "other"


_DOUBTFUL = Outcome(None, lesion=True)


def load_omidb() -> dict[str, Any]:
    """Imports what is used of omidb.

    Raises:
        UserError: it is not installed.
    """
    try:
        names = ("client_parser", "events", "utilities")
        return {name: importlib.import_module(f"omidb.{name}") for name in names}
    except ImportError:
        raise UserError("data=optimam needs the package omidb; install it by: pip install 'siamray[optimam]'") from None


def read_history(client: str, nbss: Mapping[str, Any], omidb: Mapping[str, Any]) -> History:
    """Reads the episodes of a client.

    Args:
        client: name of the client.
        nbss: content of the client's nbss file.
        omidb: as load_omidb gives it.
    """
    history = History()
    records = {name: record for name, record in nbss.items() if isinstance(record, dict)}
    for number, (name, record) in enumerate(records.items(), start=1):
        try:
            parser = omidb["client_parser"].ClientParser(client, {name: record}, {})
            (parsed,) = parser.parse_episodes()
            strange = _strange_words(parsed, record)
            history.episodes[name] = _episode(parsed, record, strange, omidb)
        # What omidb raises on a record of another form is of any kind.
        except Exception as error:
            history.complete = False
            history.faults.append(f"episode {number} of {len(records)} cannot be read ({type(error).__name__})")
            continue
        if strange:
            what = ", ".join(sorted(strange))
            history.faults.append(f"episode {number} of {len(records)}: unknown word in {what}; the breast stays open")
    return history


def outcome_of(
    history: History | None, episode: str | None, date: datetime.date | None, side: Side, options: OptimamConfig
) -> Outcome:
    """Says what became of a breast after an exam.

    Args:
        history: the client's episodes; None where there is no record of her, of whom nothing is known then.
        episode: NBSS number of the exam's episode, or None.
        date: of the exam, or None.
        side: the breast.
        options: data.optimam.
    """
    if history is None:
        return _DOUBTFUL
    own = history.episodes.get(episode or "") or _by_date(history, date)
    when = date or (own.start if own else None)
    if own is None or when is None or _treated(history, own, when, side):
        return _DOUBTFUL
    verdict = own.verdicts[side]
    if verdict.kind == "malignant":
        word = "interval_cancer" if own.interval else "malignant"
        months = _months(when, verdict.date) if date else None
        return Outcome(word, months, lesion=True, category=_category(own, side))
    return _without_cancer(history, own, when, side, options, exact=date is not None)


def _without_cancer(
    history: History, own: Episode, when: datetime.date, side: Side, options: OptimamConfig, *, exact: bool
) -> Outcome:
    """The outcome of a breast in which the exam's own episode found no cancer."""
    others = [episode for episode in history.episodes.values() if episode is not own]
    later: list[tuple[datetime.date, bool]] = []
    for other in others:
        verdict = other.verdicts[side]
        if verdict.kind == "malignant" and verdict.date is None:
            return _DOUBTFUL
        if verdict.kind == "malignant" and verdict.date is not None:
            later.append((verdict.date, other.interval))
        open_case = other.interval and verdict.kind == "doubtful"
        if open_case and (other.start is None or 0 <= _apart(when, other.start) <= options.interval_months):
            return _DOUBTFUL
    later.sort()
    if later and later[0][1] and _apart(when, later[0][0]) <= options.interval_months:
        return Outcome("interval_cancer", _months(when, later[0][0]) if exact else None)
    verdict = own.verdicts[side]
    if verdict.kind in ("doubtful", "unknown") or not history.complete:
        return _DOUBTFUL
    negative = [
        other.start
        for other in others
        if other.start and other.screened and not other.interval and other.verdicts[side].kind in ("normal", "benign")
        if other.start > when and (not later or other.start < later[0][0])
    ]
    free = _apart(when, max(negative)) if negative else 0.0
    if later and free < options.follow_up_months and options.later_cancer == "unknown":
        return _DOUBTFUL
    if verdict.kind == "benign":
        return Outcome("benign", _months(when, verdict.date) if exact else None)
    followed = bool(negative) and free >= options.follow_up_months
    if followed or later:
        return Outcome("normal", _months(when, max(negative)) if negative and exact else None)
    return Outcome(None)


def _treated(history: History, own: Episode, when: datetime.date, side: Side) -> bool:
    """Whether the breast was treated for cancer before the exam, or may have been."""
    for episode in history.episodes.values():
        if episode.verdicts[side].kind != "malignant":
            continue
        found = episode.verdicts[side].date
        diagnosed = found is not None and found < when
        surgery = episode.surgery.get(side, datetime.date.max)
        if (surgery is None and diagnosed) or (surgery is not None and surgery < when):
            return True
        if episode is not own and diagnosed:
            return True
    return False


def _by_date(history: History, date: datetime.date | None) -> Episode | None:
    """Finds the one episode with an event on the day of an exam."""
    found = [episode for episode in history.episodes.values() if date in episode.dates]
    return found[0] if len(found) == 1 else None


def _apart(first: datetime.date, second: datetime.date) -> float:
    return (second - first).days / _DAYS_PER_MONTH


def _months(exam: datetime.date, established: datetime.date | None) -> float | None:
    """Months to one decimal; 0 where the exam was taken on or after the diagnosis, as localisation is."""
    return None if established is None else round(max(0.0, _apart(exam, established)), 1)


def _category(episode: Episode, side: Side) -> str:
    kinds = set(episode.kinds[side].values())
    return kinds.pop() if len(kinds) == 1 else "other"


def _strange_words(parsed: Any, record: Mapping[str, Any]) -> set[str]:
    """Names the elements whose word omidb does not know, and reads as absent."""
    strange = {
        f"{name} {element}"
        for event, name in _EVENTS.items()
        for element in _OPINIONS.values()
        if (record.get(name) or {}).get(element) and getattr(_event(parsed, event), element, None) is None
    }
    return strange | ({"EpisodeType"} if record.get("EpisodeType") and parsed.type is None else set())


def _event(parsed: Any, name: str) -> Any:
    event = getattr(parsed.events, name, None)
    # Further screens of an episode follow the first one.
    return event[0] if isinstance(event, list) and event else event or None


def _episode(parsed: Any, record: Mapping[str, Any], strange: set[str], omidb: Mapping[str, Any]) -> Episode:
    events = [event for name in _EVENTS if (event := _event(parsed, name)) is not None]
    dates = frozenset(date for event in events for date in event.dates or [])
    if parsed.events is not None:
        dates |= {date for screen in parsed.events.screening or [] for date in screen.dates or []}
    interval = parsed.type is not None and parsed.type.name == "CI"
    start = min(dates, default=parsed.opened_date)
    start = (parsed.diagnosis_date or start) if interval else start
    verdicts = {side: _verdict(parsed, record, side, omidb) for side in SIDES}
    for side, element in _OPINIONS.items():
        open_again = any(element in word or word == "EpisodeType" for word in strange)
        if open_again and verdicts[side].kind != "malignant":
            verdicts[side] = Verdict("doubtful")
    if interval:
        verdicts = {side: _interval_verdict(parsed, record, side, verdicts, start) for side in SIDES}
    surgery: dict[Side, datetime.date | None] = {}
    for side in SIDES:
        days = [lesion.get("DatePerformed") for lesion in _lesions(record, "SURGERY", side).values()]
        if days or getattr(_event(parsed, "surgery"), _OPINIONS[side], None) is not None:
            known = [omidb["utilities"].str_to_date(day) for day in days if day] or _event(parsed, "surgery").dates
            surgery[side] = min(known, default=None)
    kinds = {
        side: {
            _number(number): _lesion_kind(lesion.get("LesionDescription"))
            for number, lesion in _lesions(record, "LESION", side).items()
        }
        for side in SIDES
    }
    screened = bool(parsed.events is not None and parsed.events.screening)
    return Episode(start, dates, interval, screened, verdicts, surgery, kinds)


def _number(text: str) -> str:
    """Lesions are numbered "1" or "01"."""
    return text.strip().lstrip("0") or text


def _lesion_kind(description: Any) -> str:
    words = {"Asymmetry": "AS", "Calcification only": "CA", "Cyst": "CY", "Distortion": "DS", "Lymph node": "LN"}
    words |= {"Mass": "MA", "Mass with calcification": "MC"}
    return LESION_KINDS.get(words.get(str(description), str(description)), "other")


def _lesions(record: Mapping[str, Any], event: str, side: Side) -> dict[str, dict[str, Any]]:
    """Returns the lesions of a breast in an event, by number."""
    found = (record.get(event) or {}).get(side) or {}
    return {str(number): lesion for number, lesion in found.items() if isinstance(lesion, dict)}


def _verdict(parsed: Any, record: Mapping[str, Any], side: Side, omidb: Mapping[str, Any]) -> Verdict:
    """What an episode's own events say of a breast, pathology first."""
    if parsed.type is not None and parsed.type.name in _AFTER_TREATMENT:
        return Verdict("doubtful")
    found = _pathology_verdict(parsed, record, side, omidb)
    if found is not None:
        return found
    if parsed.events is None:
        return Verdict("unknown")
    for name in ("assessment", "clinical"):
        event = _event(parsed, name)
        opinion = getattr(getattr(event, _OPINIONS[side], None), "name", None)
        if opinion in _OPEN:
            return Verdict("doubtful")
        if opinion == "OB":
            return Verdict("benign", min(event.dates, default=None))
        if opinion == "ON":
            return Verdict("normal", min(event.dates, default=None))
        if event is not None and event.left_opinion is None and event.right_opinion is None:
            return Verdict("doubtful")
    return _screening_verdict(parsed, side)


def _pathology_verdict(parsed: Any, record: Mapping[str, Any], side: Side, omidb: Mapping[str, Any]) -> Verdict | None:
    """What surgery and biopsies say of a breast; None where there were none. Cancer once proven stays proven."""
    opinions: list[str] = []
    cancers: list[datetime.date | None] = []
    proven = nothing_said = False
    lesion_enum, to_enum = omidb["events"].Opinion, omidb["utilities"].nbss_str_to_enum
    for name, key in _PATHOLOGY.items():
        event = _event(parsed, name)
        if event is None:
            continue
        opinion = getattr(event, _OPINIONS[side])
        lesions = _lesions(record, key, side)
        words = [to_enum(lesion.get("Opinion"), lesion_enum) for lesion in lesions.values()]
        proven = proven or any(word is not None and word.name in _MALIGNANT_LESION for word in words)
        if opinion is not None:
            opinions.append(opinion.name)
            cancers += [min(event.dates, default=None)] if opinion.name == "OM" else []
        elif event.left_opinion is None and event.right_opinion is None:
            nothing_said = nothing_said or bool(lesions) or not _lesions(record, key, "R" if side == "L" else "L")
    if cancers or (proven and not opinions):
        days = [day for day in cancers if day] or [day for name in _PATHOLOGY for day in _dates(parsed, name)]
        return Verdict("malignant", min(days, default=parsed.opened_date))
    if proven or (nothing_said and not opinions) or (opinions and opinions[0] in _OPEN):
        return Verdict("doubtful")
    if not opinions:
        return None
    days = [day for name in _PATHOLOGY for day in _dates(parsed, name)]
    return Verdict("benign" if "OB" in opinions else "normal", min(days, default=None))


def _dates(parsed: Any, name: str) -> list[datetime.date]:
    event = _event(parsed, name)
    return [] if event is None else list(event.dates or [])


def _screening_verdict(parsed: Any, side: Side) -> Verdict:
    """What the readers said of a breast, where nobody looked further; the last of several screens counts."""
    screens = list(parsed.events.screening or [])
    assessed = _event(parsed, "assessment") is not None
    if not screens:
        return Verdict("normal" if assessed else "unknown")
    screen = screens[-1]
    opinion = getattr(getattr(screen, _OPINIONS[side]), "name", None)
    reading = getattr(screen, "left" if side == "L" else "right")
    word = reading.opinion.name if reading is not None and reading.opinion is not None else None
    date = min(screen.dates, default=None)
    if (opinion in _OPEN or word in _OPEN_READING) and not assessed:
        return Verdict("doubtful")
    if opinion == "OB":
        return Verdict("benign", date)
    action = parsed.action.name if parsed.action is not None else None
    if opinion is None and word is None and not assessed and action not in _CLOSING_ACTIONS:
        return Verdict("doubtful")
    return Verdict("normal", date)


def _interval_verdict(
    parsed: Any,
    record: Mapping[str, Any],
    side: Side,
    own: Mapping[Side, Verdict],
    diagnosis: datetime.date | None,
) -> Verdict:
    """What an interval case says of a breast: which one has the cancer, if its pathology does not contradict."""
    proven = [each for each in SIDES if own[each].kind == "malignant"]
    if not proven and not parsed.is_interval_cancer:
        return Verdict("doubtful")
    named = proven or [s for s in SIDES if _lesions(record, "INTERVALCANCER", s)]
    named = named or [s for s in SIDES if _lesions(record, "LESION", s)]
    if not named:
        return Verdict("doubtful")
    return Verdict("malignant", diagnosis) if side in named else Verdict("unknown")
