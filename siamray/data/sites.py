"""What a source calls the centre of an exam goes in; the word that tables keep of it comes out."""

import re

# Longer ones are names and addresses, not a source's codes.
LONGEST_SITE = 24
_WORD = re.compile(rf"[\w.-]{{1,{LONGEST_SITE}}}")


def is_site(word: str) -> bool:
    """Says whether a text is one word of at most LONGEST_SITE letters, digits, dots, dashes and underscores."""
    return _WORD.fullmatch(word) is not None


def site_word(text: object) -> str | None:
    """Takes a source's word or number of a centre or clinic.

    Free text may hold anything, a hospital's name and address too, so that what is more than a short word is not kept.

    Args:
        text: what a header or table says; None, NaN or blank where it says nothing.

    Returns:
        The word, of a whole number without ".0"; None where there is none that may be kept.
    """
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        return None
    word = re.sub(r"(?<=\d)\.0$", "", str(text).strip())
    return word if is_site(word) and word.lower() not in ("nan", "none", "null") else None
