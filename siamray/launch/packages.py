"""Names of packages that Ray's part for a cloud imports go in; which of them this machine lacks comes out."""

from importlib.util import find_spec

from siamray.launch.checks import Asked, Check, good, trouble


def is_there(module: str) -> bool:
    """Tells whether a module, or one inside packages, can be imported here, without importing it itself."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def missing_packages(asked: Asked, cloud: str, packages: dict[str, str]) -> list[Check]:
    """Looks for packages.

    Args:
        asked: the file that needs them.
        cloud: what they are for.
        packages: module -> package that brings it.
    """
    missing = [package for module, package in packages.items() if not is_there(module)]
    if missing:
        named = " ".join(missing)
        return [trouble("packages", f"{asked.name}: ray up needs packages for {cloud} here; pip install {named}")]
    return [good("packages", f"those for {cloud} are installed")]
