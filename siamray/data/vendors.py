"""A manufacturer's text goes in; one word of a short vocabulary comes out, whatever else the text holds."""

import re

# The names by which manufacturers of mammography units, detectors and film digitisers appear in headers and tables,
# and the word of each: firms were bought and renamed, but a unit's images go on looking as they did.
_NAMES = {
    "hologic": "hologic",
    "lorad": "hologic",
    "siemens": "siemens",
    "ge medical": "ge",
    "ge healthcare": "ge",
    "general electric": "ge",
    "fuji": "fujifilm",
    "philips": "philips",
    "sectra": "philips",
    "planmed": "planmed",
    "ims": "ims",
    "giotto": "ims",
    "agfa": "agfa",
    "kodak": "carestream",
    "carestream": "carestream",
    "konica": "konica",
    "metaltronica": "metaltronica",
    "internazionale medico scientifica": "ims",
    "icad": "icad",
    "howtek": "howtek",
    "lumisys": "lumisys",
    "siamray": "siamray",
}
OTHER = "other"
VENDORS = (*sorted(set(_NAMES.values())), OTHER)


def vendor_word(text: object) -> str | None:
    """Finds the word of a manufacturer.

    Free text of a header may hold anything, a hospital's or a person's name too, so that what is not known becomes
    "other" and is not repeated.

    Args:
        text: what a header or table says; None, NaN or blank where it says nothing.

    Returns:
        A word of VENDORS, or None where there is no text.
    """
    words = " ".join(str(text).lower().replace("_", " ").split()) if isinstance(text, str) else ""
    if not words:
        return None
    if words.split()[0] == "ge":
        return "ge"
    return next((word for name, word in _NAMES.items() if re.search(rf"\b{name}", words)), OTHER)
