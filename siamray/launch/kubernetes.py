"""A manifest for Kubernetes goes in; what its schemas say of it comes out. Nothing is asked of a Kubernetes cluster."""

import shutil
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from siamray.errors import nearest
from siamray.launch import kuberay
from siamray.launch.checks import Asked, Check, good, trouble, unchecked
from siamray.launch.schema import mistakes, said

# The oldest one that KubeRay 1.5 and 1.6 are tested with.
KUBERNETES = "1.30"
_RAY = "ray.io/"


def check_manifest(asked: Asked) -> list[Check]:
    """Holds one resource against the schema of its kind, and the pods in it against Kubernetes' own.

    Args:
        asked: the file, and of it one resource.
    """
    kind = str(asked.config.get("kind"))
    if str(asked.config.get("apiVersion", "")).startswith(_RAY):
        if kind not in kuberay.SCHEMAS:
            return [trouble(asked.name, f"{asked.at('kind')}: kind is {kind}{nearest(kind, list(kuberay.SCHEMAS))}")]
        found = mistakes(asked, kuberay.SCHEMAS[kind], asked.config) or list(_groups(asked))
        return found or [good(kind, "every field is one of KubeRay 1.6"), *_pods(asked)]
    if "apiVersion" not in asked.config or "kind" not in asked.config:
        return [trouble(asked.name, f"{asked.at()}: no apiVersion and kind of Kubernetes; add them")]
    return _by_kubernetes(asked, kind, {(): asked.config})


def check_machine(asked: Asked) -> list[Check]:
    """Looks whether this machine can apply a manifest, and says what only the cluster itself knows."""
    found = []
    if shutil.which("kubectl") is None:
        found.append(trouble("kubectl", f"{asked.name}: kubectl applies it and is not installed here; install it"))
    else:
        found.append(good("kubectl", "installed"))
    asks = f"kubectl apply --dry-run=server -f {asked.name}"
    found.append(
        unchecked("Kubernetes cluster", f"KubeRay's operator, the claim, GPUs and quota there: {asks} asks it itself")
    )
    return found


def _groups(asked: Asked) -> Iterator[Check]:
    spec = asked.config["spec"]
    above = ("spec", "rayClusterSpec") if "rayClusterSpec" in spec else ("spec",)
    for number, group in enumerate(spec.get("rayClusterSpec", spec).get("workerGroupSpecs", [])):
        least, most = group["minReplicas"], group["maxReplicas"]
        if not least <= group.get("replicas", least) <= most:
            where = asked.at(*above, "workerGroupSpecs", number, "replicas")
            yield trouble(
                asked.name,
                f"{where}: group {group['groupName']} has replicas={group.get('replicas', least)}, minReplicas={least} "
                f"and maxReplicas={most}; they must rise from minReplicas over replicas to maxReplicas",
            )


def _pods(asked: Asked) -> list[Check]:
    """Holds the pods of the head and of all groups against Kubernetes' schema."""
    spec = asked.config["spec"]
    above: tuple[str | int, ...] = ("spec",)
    if "rayClusterSpec" in spec:
        spec, above = spec["rayClusterSpec"], ("spec", "rayClusterSpec")
    pods = {}
    if "headGroupSpec" in spec:
        pods[(*above, "headGroupSpec", "template")] = spec["headGroupSpec"]["template"]
    for number, group in enumerate(spec.get("workerGroupSpecs", [])):
        pods[(*above, "workerGroupSpecs", number, "template")] = group["template"]
    as_pods = {path: {"metadata": {}, **pod, "apiVersion": "v1", "kind": "Pod"} for path, pod in pods.items()}
    return _by_kubernetes(asked, "pods", as_pods)


def _by_kubernetes(asked: Asked, subject: str, resources: dict[tuple[str | int, ...], dict[str, Any]]) -> list[Check]:
    """Holds resources against Kubernetes' own schemas; of each the first mistake.

    Args:
        asked: the file.
        subject: what they are.
        resources: path in the file -> resource.
    """
    if find_spec("kubernetes_validate") is None:
        return [unchecked(subject, "their fields: pip install kubernetes-validate brings Kubernetes' schemas")]
    validating: Any = import_module("kubernetes_validate")
    found = []
    for above, resource in resources.items():
        try:
            validating.validate(resource, KUBERNETES, strict=True)
        except validating.ValidationError as error:
            found += [trouble(asked.name, line) for line in said(asked, error, above)]
        except validating.SchemaNotFoundError:
            kind = f"{resource['kind']} of {resource['apiVersion']}"
            return [unchecked(subject, f"{asked.at('kind')}: Kubernetes {KUBERNETES} itself has no {kind}")]
    return found or [good(subject, f"every field is one of Kubernetes {KUBERNETES}")]
