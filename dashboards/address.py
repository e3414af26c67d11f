"""The address of a view goes in, what it shows comes out, and back: whoever gets a link sees the same."""

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlencode

PAGES = ("overview", "experiment", "trial", "exams", "data")

OF_THE_BROWSER = ("window", "level", "zoom")
"""What assets/viewer.js writes into an address and reads there: no page is made otherwise for it."""


@dataclass(frozen=True)
class Address:
    """What a view shows.

    Attributes:
        page: one of PAGES, or "unknown".
        experiment: its name; "" of the overview.
        trial: the trial's id; "" of other pages.
        state: what was chosen on the page, words by their names.
    """

    page: str = "overview"
    experiment: str = ""
    trial: str = ""
    state: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The path of its URL."""
        if self.page == "overview":
            return "/"
        parts = ["experiment", self.experiment]
        if self.page != "experiment":
            parts.append(self.page)
        if self.trial:
            parts.append(self.trial)
        return "/" + "/".join(quote(part, safe="") for part in parts)

    @property
    def url(self) -> str:
        """The path with what was chosen."""
        return self.path + search(self.state)


def read_address(path: str, query: str) -> Address:
    """Reads the address of a view.

    Args:
        path: of a URL, as /experiment/NAME/trial/ID.
        query: what stands behind it, with or without a question mark.
    """
    words = parse_qsl(query.lstrip("?"), keep_blank_values=False)
    state = {name: value for name, value in words if name not in OF_THE_BROWSER}
    parts = [unquote(part) for part in path.split("/") if part]
    if not parts:
        return Address(state=state)
    if parts[0] != "experiment" or not 2 <= len(parts) <= 4:
        return Address("unknown", state=state)
    page = parts[2] if len(parts) > 2 else "experiment"
    trial = parts[3] if len(parts) > 3 else ""
    if page not in PAGES or bool(trial) != (page == "trial"):
        return Address("unknown", parts[1], state=state)
    return Address(page, parts[1], trial, state)


def search(state: dict[str, str]) -> str:
    """Writes what was chosen as the end of a URL; "" of nothing."""
    chosen = {name: value for name, value in sorted(state.items()) if value}
    return f"?{urlencode(chosen)}" if chosen else ""
