"""A file of ``ray up`` goes in; what Ray itself, and the cloud's own description of a machine, say of it comes out."""

import contextlib
import copy
import io
import json
import logging
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from siamray.errors import nearest
from siamray.launch.checks import Asked, Check, good, trouble, troubled, unchecked
from siamray.launch.schema import mistakes, shown

PROVIDERS = ("aws", "azure", "gcp", "local")
# Read by Ray's providers, and missing in its schema, which lets everything through there.
_UNLISTED = [
    *("type", "key_pair", "use_external_head_ip", "aws_credentials", "msi_name", "msi_resource_group"),
    *("subnet_mask", "unique_id", "coordinator_address", "external_head_ip"),
]
# A key as near as that to a known one is that one, misspelt.
_MISSPELT = 0.8
# Fields of Compute Engine's instances, and Ray's own for a template of them.
_INSTANCE = [
    *("name", "description", "zone", "machineType", "disks", "labels", "tags", "metadata", "params", "hostname"),
    *("scheduling", "serviceAccounts", "guestAccelerators", "networkInterfaces", "canIpForward", "minCpuPlatform"),
    *("deletionProtection", "resourcePolicies", "reservationAffinity", "shieldedInstanceConfig", "displayDevice"),
    *("confidentialInstanceConfig", "advancedMachineFeatures", "networkPerformanceConfig", "sourceMachineImage"),
    *("privateIpv6GoogleAccess", "keyRevocationActionType", "sourceInstanceTemplate"),
]


def check_file(asked: Asked) -> list[Check]:
    """Holds a file against Ray's schema, its defaults and rules, and every kind of node against its cloud's.

    Args:
        asked: the file.
    """
    found = [*mistakes(asked, _schema(), _without_workers(asked.config)), *_provider(asked)]
    if not found:
        found += _by_ray(asked)
    if troubled(found):
        return found
    return [good("the file", "valid, by Ray's own schema and rules"), *found, *_nodes(asked)]


def _schema() -> dict[str, Any]:
    """Ray's own schema of the file."""
    autoscaler: Any = import_module("ray.autoscaler")
    schema: dict[str, Any] = json.loads((Path(autoscaler.__file__).parent / "ray-schema.json").read_text())
    return schema


def _without_workers(config: dict[str, Any]) -> dict[str, Any]:
    """Leaves out what Ray takes from files of hosts before it looks at its schema."""
    local = isinstance(config.get("provider"), dict) and config["provider"].get("type") == "local"
    return {key: value for key, value in config.items() if not (local and key == "min_workers")}


def _provider(asked: Asked) -> Iterator[Check]:
    """Says what is wrong with the provider's keys, of which Ray's schema lets any through."""
    provider = asked.config.get("provider")
    if not isinstance(provider, dict) or not isinstance(kind := provider.get("type"), str):
        return
    if kind not in PROVIDERS:
        known = nearest(kind, list(PROVIDERS))
        yield trouble(asked.name, f"{asked.at('provider', 'type')}: provider.type is '{kind}'{known}")
        return
    listed = [*_schema()["properties"]["provider"]["properties"], *_UNLISTED]
    for key in provider:
        if key not in listed and (close := get_close_matches(str(key), listed, n=1, cutoff=_MISSPELT)):
            where = asked.at("provider", key)
            yield trouble(asked.name, f"{where}: no option '{key}' in provider; did you mean '{close[0]}'?")
    needed = {"aws": ("region",), "gcp": ("region", "availability_zone", "project_id")}
    needed |= {"azure": ("location", "resource_group"), "local": ()}
    for key in needed[kind]:
        if not provider.get(key):
            yield trouble(asked.name, f"{asked.at('provider')}: provider lacks {key}; add it")
    if kind == "local" and "coordinator_address" not in provider:
        for key in ("head_ip", "worker_ips"):
            if key not in provider:
                yield trouble(asked.name, f"{asked.at('provider')}: provider lacks {key}; add it")


def _by_ray(asked: Asked) -> list[Check]:
    """Lets Ray fill in its defaults and judge; what it says of an error in one line."""
    ray: Any = import_module("ray.autoscaler._private.util")
    printed = io.StringIO()
    # It tells of its defaults.
    log = logging.getLogger(ray.__name__)
    log.addFilter(_silent)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            ray.validate_config(ray.prepare_config(copy.deepcopy(asked.config)))
    # Ray has no type for it: ValueError, KeyError, RuntimeError, and its own exception of click's were seen.
    except Exception as error:
        lines = [line.strip() for line in (str(error) or printed.getvalue()).splitlines() if line.strip()]
        told = (lines[0] if lines else type(error).__name__)[:200]
        return [trouble(asked.name, f"{asked.at()}: Ray refuses it ({told}); correct it")]
    finally:
        log.removeFilter(_silent)
    return []


def _silent(_: logging.LogRecord) -> bool:
    return False


def _nodes(asked: Asked) -> list[Check]:
    """Holds every kind of node against what its cloud knows of a machine."""
    kind = asked.config["provider"]["type"]
    groups = asked.config.get("available_node_types", {})
    if kind == "local" or not groups:
        return []
    check = {"aws": _aws_node, "azure": _azure_node, "gcp": _gcp_node}[kind]
    if kind == "aws" and find_spec("botocore") is None:
        return [unchecked("kinds of nodes", "their node_config: pip install boto3 brings AWS's own description")]
    found = [
        trouble(asked.name, line)
        for name, group in groups.items()
        for line in check(asked, name, group.get("node_config") or {})
    ]
    return found or [good("kinds of nodes", f"{', '.join(groups)}: every option is one of the cloud's")]


def _aws_node(asked: Asked, name: str, node: dict[str, Any]) -> Iterator[str]:
    """By the service description of EC2's RunInstances, which comes with botocore."""
    # Not by a session, which wants the user's profile.
    loaders: Any = import_module("botocore.loaders")
    models: Any = import_module("botocore.model")
    described = models.ServiceModel(loaders.Loader().load_service_model("ec2", "service-2"))
    shape = described.operation_model("RunInstances").input_shape
    # Ray finds a subnet of its own list, and says how many.
    asks = {key: value for key, value in node.items() if key != "SubnetIds"} | {"MinCount": 1, "MaxCount": 1}
    yield from _aws_shape(asked, shape, asks, ("available_node_types", name, "node_config"))


def _aws_shape(asked: Asked, shape: Any, value: Any, path: tuple[str | int, ...]) -> Iterator[str]:
    python = {"structure": dict, "list": list, "string": str, "integer": int, "long": int, "boolean": bool}
    wanted = {"structure": "keys with values", "list": "a list", "string": "a text", "boolean": "true or false"}
    kind = shape.type_name
    where = ".".join(map(str, path))
    if kind in python and (not isinstance(value, python[kind]) or (kind in ("integer", "long") and value is True)):
        yield f"{asked.at(*path)}: {where} is {shown(value)} and must be {wanted.get(kind, 'a whole number')}"
    elif kind == "structure":
        for key, inner in value.items():
            if key in shape.members:
                yield from _aws_shape(asked, shape.members[key], inner, (*path, key))
            else:
                yield f"{asked.at(*path, key)}: no option '{key}' in {where}{nearest(str(key), list(shape.members))}"
    elif kind == "list":
        for number, inner in enumerate(value):
            yield from _aws_shape(asked, shape.member, inner, (*path, number))


def _azure_node(asked: Asked, name: str, node: dict[str, Any]) -> Iterator[str]:
    """By the parameters of Ray's own template of a machine."""
    autoscaler: Any = import_module("ray.autoscaler")
    template = Path(autoscaler.__file__).parent / "_private" / "_azure" / "azure-vm-template.json"
    # Ray turns the zone into the template's.
    known = [*json.loads(template.read_text())["parameters"], "availability_zone"]
    path = ("available_node_types", name, "node_config")
    for key in node:
        if key not in ("azure_arm_parameters", "tags"):
            close = nearest(str(key), ["azure_arm_parameters", "tags"])
            yield f"{asked.at(*path, key)}: no option '{key}' in {'.'.join(path)}{close}"
    for key in node.get("azure_arm_parameters") or {}:
        if key not in known:
            where = ".".join((*path, "azure_arm_parameters"))
            yield f"{asked.at(*path, 'azure_arm_parameters', key)}: no option '{key}' in {where}{nearest(key, known)}"


def _gcp_node(asked: Asked, name: str, node: dict[str, Any]) -> Iterator[str]:
    """By the names of the fields of Compute Engine's instances."""
    path = ("available_node_types", name, "node_config")
    # A node of TPUs has fields of another service.
    if "acceleratorType" in node or "acceleratorConfig" in node:
        return
    for key in node:
        if key not in _INSTANCE:
            yield f"{asked.at(*path, key)}: no option '{key}' in {'.'.join(path)}{nearest(str(key), _INSTANCE)}"
