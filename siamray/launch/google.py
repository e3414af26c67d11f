"""A file of ``ray up`` for Google Cloud goes in; what can be told of it on the user's own machine comes out."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from siamray.launch.checks import Asked, Check, good, trouble, unchecked
from siamray.launch.packages import missing_packages

_PACKAGES = {
    "googleapiclient": "google-api-python-client",
    "google.auth": "google-auth",
    "google_auth_httplib2": "google-auth-httplib2",
    "cryptography": "cryptography",
}
_PROJECT = r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]"
_LOGIN = "gcloud auth application-default login"


def check_account(asked: Asked) -> list[Check]:
    """Looks at packages, names and credentials; nothing is asked of Google.

    Args:
        asked: the file; valid.
    """
    return [
        *missing_packages(asked, "Google Cloud", _PACKAGES),
        *_names(asked),
        *_credentials(asked),
        unchecked(
            "Google Cloud",
            "whether the credentials are still valid, the project's quota, types, images, bucket: Google is not asked; "
            "gcloud compute regions describe REGION shows the quota",
        ),
    ]


def _names(asked: Asked) -> Iterator[Check]:
    provider = asked.config["provider"]
    project, region, zone = (str(provider[key]) for key in ("project_id", "region", "availability_zone"))
    bad = False
    if not re.fullmatch(_PROJECT, project):
        bad = True
        where = asked.at("provider", "project_id")
        yield trouble(
            "names", f"{where}: '{project}' is no project's ID (gcloud projects list shows yours); correct it"
        )
    if not re.fullmatch(rf"{re.escape(region)}-[a-z]", zone):
        bad = True
        where = asked.at("provider", "availability_zone")
        yield trouble("names", f"{where}: zone '{zone}' is not in region '{region}'; write {region}-a, or correct both")
    if not bad:
        yield good("names", f"project {project}, zone {zone}")


def _credentials(asked: Asked) -> Iterator[Check]:
    """Looks for the file that Google's libraries would find."""
    if "gcp_credentials" in asked.config["provider"]:
        yield good("credentials", "in the file itself: keep it to yourself")
        return
    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    folder = Path(os.environ.get("CLOUDSDK_CONFIG") or Path.home() / ".config" / "gcloud")
    file = Path(named) if named else folder / "application_default_credentials.json"
    if not file.is_file():
        if named:
            yield trouble(
                "credentials",
                f"GOOGLE_APPLICATION_CREDENTIALS={named}: there is no such file; correct it, or: {_LOGIN}",
            )
        else:
            yield trouble("credentials", f"{asked.name}: no credentials of Google Cloud were found; {_LOGIN}")
        return
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        kind = str(content["type"])
    except (OSError, ValueError, KeyError, TypeError):
        yield trouble("credentials", f"{file}: no credentials of Google Cloud; remove it, then: {_LOGIN}")
        return
    other = content.get("project_id")
    mine = asked.config["provider"]["project_id"]
    of = f", of project {other} and not {mine}" if other and other != mine else ""
    yield good("credentials", f"{file} ({kind}{of})")
