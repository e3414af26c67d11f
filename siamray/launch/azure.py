"""A file of ``ray up`` for Azure goes in; what can be told of it on the user's own machine comes out."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from siamray.launch.checks import Asked, Check, good, trouble, troubled, unchecked
from siamray.launch.packages import is_there, missing_packages

_PACKAGES = {
    "azure.common": "azure-common",
    "azure.identity": "azure-identity",
    "azure.mgmt.compute": "azure-mgmt-compute",
    "azure.mgmt.network": "azure-mgmt-network",
    "azure.mgmt.resource": "'azure-mgmt-resource<25'",
}
# Deployments, which Ray makes machines by, have gone from it into a package of their own.
_TOO_NEW = 25
_ID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def check_account(asked: Asked) -> list[Check]:
    """Looks at packages, names and the login; nothing is asked of Azure.

    Args:
        asked: the file; valid.
    """
    return [
        *_packages(asked),
        *_names(asked),
        *_login(asked),
        unchecked(
            "Azure",
            "whether the login is still valid, quota, sizes, images and container: Azure is not asked; "
            "az vm list-usage --location LOCATION shows the quota",
        ),
    ]


def _packages(asked: Asked) -> list[Check]:
    """Looks for packages, and for the one whose newer versions lack what Ray imports."""
    found = missing_packages(asked, "Azure", _PACKAGES)
    if not troubled(found) and int(version("azure-mgmt-resource").partition(".")[0]) >= _TOO_NEW:
        remedy = f"pip install 'azure-mgmt-resource<{_TOO_NEW}'"
        return [trouble("packages", f"{asked.name}: Ray cannot use azure-mgmt-resource {_TOO_NEW} or later; {remedy}")]
    return found


def _names(asked: Asked) -> Iterator[Check]:
    provider = asked.config["provider"]
    location = str(provider["location"])
    if re.fullmatch(r"[a-z]+[0-9]?[a-z]*", location):
        yield good("names", f"{location}, resource group {provider['resource_group']}")
    else:
        named = re.sub(r"[^a-z0-9]", "", location.lower())
        where = asked.at("provider", "location")
        yield trouble("names", f"{where}: '{location}' is no location's name; write {named}, if that is meant")
    subscription = provider.get("subscription_id")
    if subscription and not re.fullmatch(_ID, str(subscription).lower()):
        where = asked.at("provider", "subscription_id")
        yield trouble(
            "names", f"{where}: '{subscription}' is no subscription's ID; az account show --query id has yours"
        )


def _login(asked: Asked) -> Iterator[Check]:
    """Looks for the login that Ray uses, which is that of Azure's command line."""
    if shutil.which("az") is None:
        yield trouble(
            "login", f"{asked.name}: Ray logs in by Azure's az, not installed here; install azure-cli, az login"
        )
        return
    folder = Path(os.environ.get("AZURE_CONFIG_DIR") or Path.home() / ".azure")
    try:
        profile = json.loads((folder / "azureProfile.json").read_text(encoding="utf-8-sig"))
        subscriptions = {entry["id"]: entry for entry in profile["subscriptions"]}
    except (OSError, ValueError, KeyError, TypeError):
        subscriptions = {}
    if not subscriptions:
        yield trouble("login", f"{asked.name}: nobody has logged in to Azure here; az login")
        return
    wanted = asked.config["provider"].get("subscription_id")
    default = next((entry for entry in subscriptions.values() if entry.get("isDefault")), None)
    if wanted is None and not is_there("azure.cli.core"):
        where = asked.at("provider")
        remedy = "add it (az account show --query id), or pip install azure-cli-core"
        yield trouble("login", f"{where}: without provider.subscription_id Ray needs azure-cli-core; {remedy}")
    elif wanted is not None and wanted not in subscriptions:
        where = asked.at("provider", "subscription_id")
        yield trouble(
            "login", f"{where}: the login does not have this subscription; az account list shows those it has"
        )
    elif wanted is None and default is None:
        yield trouble("login", f"{asked.name}: no subscription is the default one; az account set --subscription ID")
    else:
        entry = subscriptions[wanted] if wanted else default
        yield good("login", f"subscription {entry.get('name', wanted) if entry else wanted}")
