"""What NBSS says of a breast is read as a physician reads it: pathology decides, and what stays open is not normal."""

from typing import Any

import pytest

from siamray.config import OptimamConfig
from siamray.data.sources.optimam_outcome import Outcome, load_omidb, outcome_of, read_history
from tests.data.sources.optimam_copy import episode, event, lesion, screened, screening

pytest.importorskip("omidb", reason="needs the extra optimam: pip install 'siamray[optimam]'")


def history(**episodes: Any) -> Any:
    return read_history("demd1", {"ClientID": "demd1", **episodes}, load_omidb())


def left(episodes: dict[str, Any], name: str = "a", **options: Any) -> Outcome:
    known = history(**episodes)
    own = known.episodes.get(name)
    return outcome_of(known, name, own.start if own else None, "L", OptimamConfig(**options))


BENIGN_CORE = event("BIOPSYWIDE", "L", "2010-03-20", "OB", "B2")
MALIGNANT_CORE = event("BIOPSYWIDE", "L", "2010-03-20", "OM", "B5")
OPEN_CORE = event("BIOPSYWIDE", "L", "2010-03-20", "OS", "B4")


@pytest.mark.parametrize(
    ("events", "word", "lesion_there"),
    [
        ((BENIGN_CORE, event("SURGERY", "L", "2010-05-01", "OM", "H5")), "malignant", True),
        ((MALIGNANT_CORE, event("SURGERY", "L", "2010-05-01", "OB", "H2")), "malignant", True),
        ((OPEN_CORE, event("SURGERY", "L", "2010-05-01", "OB", "H2")), "benign", False),
        ((OPEN_CORE,), None, True),
        ((event("BIOPSYWIDE", "L", "2010-03-20", None, "B5"),), "malignant", True),
        ((event("BIOPSYWIDE", "L", "2010-03-20", None, None),), None, True),
        ((event("BIOPSYWIDE", "R", "2010-03-20", "OM", "B5"),), "normal", False),
        ((event("ASSESSMENT", "L", "2010-03-20", "OM", "R5"),), None, True),
        ((event("ASSESSMENT", "L", "2010-03-20", "OB", "R2"),), "benign", False),
        ((event("ASSESSMENT", "L", "2010-03-20", "ON", "R1"),), "normal", False),
        ((event("ASSESSMENT", "L", "2010-03-20", "Nonsense", "R1"),), None, True),
        ((BENIGN_CORE, event("ASSESSMENT", "L", "2010-03-20", "OM", "R5")), "benign", False),
    ],
)
def test_pathology_decides_and_what_stays_open_is_not_normal(
    events: tuple[Any, ...], word: str | None, lesion_there: bool
) -> None:
    own = episode("R", "2010-03-01", screening("2010-03-01"), *events, action="ST")
    found = left({"a": own, "b": screened("2013-03-01")})
    assert (found.outcome, found.lesion) == (word, lesion_there)


@pytest.mark.parametrize(
    ("own", "word", "lesion_there"),
    [
        (episode("R", "2010-03-01", screening("2010-03-01", "OS")), None, True),
        (episode("R", "2010-03-01", screening("2010-03-01", None, None), action="WB"), None, True),
        (episode("R", "2010-03-01"), None, True),
        (episode("CF", "2010-03-01", screening("2010-03-01")), None, True),
        (episode("??", "2010-03-01", screening("2010-03-01")), None, True),
        (episode("First Call", "2010-03-01", screening("20100301", "Normal", "Normal")), "normal", False),
    ],
)
def test_what_the_readers_said_where_nobody_looked_further(
    own: dict[str, Any], word: str | None, lesion_there: bool
) -> None:
    found = left({"a": own, "b": screened("2013-03-01")})
    assert (found.outcome, found.lesion) == (word, lesion_there)


def test_a_breast_after_treatment_is_not_normal() -> None:
    cancer = episode("R", "2010-03-01", event("BIOPSYWIDE", "L", "2010-03-20", "OM", "B5"))
    episodes = {"a": screened("2012-03-01"), "b": cancer, "c": screened("2015-03-01")}
    assert left(episodes) == Outcome(None, lesion=True)
    mirrored = outcome_of(history(**episodes), "a", history(**episodes).episodes["a"].start, "R", OptimamConfig())
    assert mirrored == Outcome("normal", 36.0)


def test_a_negative_screen_before_a_cancer_counts_as_follow_up() -> None:
    cancer = episode("R", "2016-03-01", event("BIOPSYWIDE", "L", "2016-03-20", "OM", "B5"))
    assert left({"a": screened("2010-03-01"), "b": screened("2013-03-01"), "c": cancer}) == Outcome("normal", 36.0)


def test_an_interval_case_with_benign_pathology_leaves_the_exam_before_it_open() -> None:
    strange = episode("CI", "2011-03-01", BENIGN_CORE, diagnosis="2011-03-01")
    assert left({"a": screened("2010-03-01"), "b": strange, "c": screened("2014-03-01")}) == Outcome(None, lesion=True)


def test_lesions_of_both_breasts_with_one_number_are_kept_apart() -> None:
    left_, right = lesion("L", "CA")["LESION"]["L"], lesion("R", "MA")["LESION"]["R"]
    found = history(a=episode("R", "2010-03-01", {"LESION": {"L": left_, "R": right}})).episodes["a"]
    assert found.kinds == {"L": {"1": "calcification"}, "R": {"1": "mass"}}
