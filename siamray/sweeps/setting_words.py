"""Settings with all their digits go in; the same as a reader wants them come out.

The dashboards import it, so it imports no torch, ray or hydra.
"""


def shown(settings: str) -> str:
    """Writes settings with four digits of every number.

    Args:
        settings: name=value, divided by spaces.
    """
    return " ".join(_shown(setting) for setting in settings.split())


def _shown(setting: str) -> str:
    name, sign, value = setting.partition("=")
    try:
        # A whole number has all of its digits.
        int(value)
    except ValueError:
        try:
            return f"{name}={float(value):.4g}"
        except ValueError:
            return setting
    return f"{name}{sign}{value}"
