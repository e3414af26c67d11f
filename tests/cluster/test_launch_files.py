"""The files that start clusters are valid, start what they say, open no door, and hold no secret."""

import copy
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import kubernetes_validate
import pytest
import yaml
from moto.server import ThreadedMotoServer
from packaging.requirements import Requirement
from ray.autoscaler._private.util import prepare_config, validate_config

from siamray.compose import compose
from siamray.launch.kuberay import SCHEMAS
from siamray.launch.kubernetes import KUBERNETES
from tests.cluster import requirements

CHECKOUT = Path(__file__).resolve().parents[2]
LAUNCH = CHECKOUT / "experiments" / "cluster" / "launch"
RAY_UP = {
    "aws": CHECKOUT / "cluster.yaml",
    "gcp": LAUNCH / "gcp.yaml",
    "azure": LAUNCH / "azure.yaml",
    "onpremise": LAUNCH / "onpremise.yaml",
}
MANIFESTS = {"cluster": LAUNCH / "kubernetes_cluster.yaml", "job": LAUNCH / "kubernetes_job.yaml"}
CLOUDS = ("aws", "gcp", "azure")


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


def documents() -> list[Any]:
    return [
        pytest.param(document, id=f"{name}-{document['kind']}")
        for name, path in MANIFESTS.items()
        for document in yaml.safe_load_all(path.read_text())
    ]


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_itself_finds_a_file_of_ray_up_valid(name: str) -> None:
    validate_config(prepare_config(read(RAY_UP[name])))


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_refuses_a_misspelt_option(name: str) -> None:
    wrong = {**read(RAY_UP[name]), "idle_timeout": 5}
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout"):
        validate_config(prepare_config(wrong))


@pytest.mark.parametrize("name", CLOUDS)
def test_a_cloud_runs_nothing_but_a_small_head_until_it_is_asked(name: str) -> None:
    config = read(RAY_UP[name])
    groups = dict(config["available_node_types"])
    # A head without processors runs no trial.
    assert groups.pop(config["head_node_type"])["resources"] == {"CPU": 0}
    assert set(groups) == {"gpu_spot", "gpu_on_demand", "cpu"}
    assert {group["min_workers"] for group in groups.values()} == {0}
    assert 0 < config["idle_timeout_minutes"] <= 10
    assert config["provider"]["cache_stopped_nodes"] is False
    # Nodes at full price are a fallback: they do for the same trials, and are taken after the others.
    assert groups["gpu_spot"]["resources"] == groups["gpu_on_demand"]["resources"]
    assert groups["gpu_spot"]["priority"] > groups["gpu_on_demand"].get("priority", 0)
    asked = compose("sweep", [f"cluster={name}"]).cluster
    room = groups["gpu_spot"]["resources"]
    assert asked.cpus <= room["CPU"]
    assert asked.gpus <= room["GPU"]
    assert asked.trials is not None
    assert asked.trials <= sum(groups[group]["max_workers"] for group in ("gpu_spot", "gpu_on_demand"))


@pytest.mark.parametrize("name", RAY_UP)
def test_every_node_asks_for_a_token_that_no_file_holds(name: str) -> None:
    text, config = RAY_UP[name].read_text(), read(RAY_UP[name])
    for kind in ("head", "worker"):
        *_, start = config[f"{kind}_start_ray_commands"]
        assert "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$HOME/.ray/auth_token" in start
        assert start.index("RAY_AUTH_MODE") < start.index("ray start")
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    # Ray writes it for all to read.
    assert config["setup_commands"][0] == "chmod 700 ~/.ray"
    assert "RAY_AUTH_TOKEN=" not in text
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    assert "0.0.0.0" not in text
    # No run of digits and letters that could be one.
    assert not re.search(r"\b(?=\w*\d)[0-9a-fA-F]{32,}\b", text)


@pytest.mark.parametrize("name", RAY_UP)
def test_what_a_file_ships_is_in_the_checkout_and_does_for_an_installation(name: str) -> None:
    shipped = {to: Path(what) for to, what in read(RAY_UP[name])["file_mounts"].items()}
    del shipped["~/.ray/auth_token"]
    for to, what in shipped.items():
        assert (CHECKOUT / what).exists()
        assert to == f"~/siamray/{what}"
    packages = {Path("siamray"), Path("dashboards"), Path("experiments"), Path("pyproject.toml")}
    assert packages <= set(shipped.values())
    assert read(RAY_UP[name])["setup_commands"][1] == "bash ~/siamray/experiments/cluster/launch/setup.sh"


def test_the_versions_of_a_node_are_exact_whole_and_what_the_project_asks_for() -> None:
    lines = [line for line in requirements.FILE.read_text().splitlines() if not line.startswith("#")]
    pinned = dict(line.split("==") for line in lines)
    assert len(pinned) == len(lines)
    for text in metadata.requires("siamray") or []:
        need = Requirement(text)
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in requirements.EXTRAS):
            name = need.name.lower()
            assert name in pinned, f"{name}: python -m tests.cluster.requirements writes the file anew"
            assert need.specifier.contains(pinned[name]), text
    # Whatever those need is there too.
    assert set(requirements.closure()) <= set(pinned)
    assert f"rayproject/ray:{pinned['ray']}-py311-cpu" in (LAUNCH / "Dockerfile").read_text()
    for path in MANIFESTS.values():
        assert f"rayVersion: {pinned['ray']}\n" in path.read_text()


def test_the_images_of_nodes_with_gpus_bring_a_driver_that_the_pinned_torch_can_use() -> None:
    runtime = next(need for need in map(Requirement, metadata.requires("torch") or []) if need.name == "cuda-toolkit")
    # NVIDIA's release notes: CUDA 13 wants a driver of 580 or later.
    assert runtime.specifier.contains("13.0.3")
    gpu = read(RAY_UP["gcp"])["available_node_types"]["gpu_spot"]["node_config"]
    image = gpu["disks"][0]["initializeParams"]["sourceImage"]
    assert int(image.rpartition("-nvidia-")[2]) >= 580


@pytest.mark.parametrize("document", documents())
def test_a_manifest_has_the_fields_of_its_kind(document: dict[str, Any]) -> None:
    wrong = copy.deepcopy(document)
    wrong["spec"]["headGroupSpecs"] = {}
    if document["kind"] not in SCHEMAS:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        with pytest.raises(kubernetes_validate.ValidationError, match="headGroupSpecs"):
            kubernetes_validate.validate(wrong, KUBERNETES, strict=True)
        return
    jsonschema.validate(document, SCHEMAS[document["kind"]])
    with pytest.raises(jsonschema.ValidationError, match="headGroupSpecs"):
        jsonschema.validate(wrong, SCHEMAS[document["kind"]])
    # Of pods KubeRay's schema says nothing: Kubernetes' own does.
    spec = document["spec"].get("rayClusterSpec", document["spec"])
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = {**group["template"], "apiVersion": "v1", "kind": "Pod"}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        misspelt = {**pod, "spec": {**pod["spec"], "container": []}}
        with pytest.raises(kubernetes_validate.ValidationError, match="container"):
            kubernetes_validate.validate(misspelt, KUBERNETES, strict=True)


@pytest.mark.parametrize("document", documents())
def test_pods_ask_for_a_token_and_may_not_become_root(document: dict[str, Any]) -> None:
    if document["kind"] == "NetworkPolicy":
        peers = [peer for rule in document["spec"]["ingress"] for peer in rule["from"]]
        assert all("podSelector" in peer for peer in peers)
        return
    spec = document["spec"].get("rayClusterSpec", document["spec"])
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]} == {"/shared", "/dev/shm"}
        assert not pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"]
    assert {group["minReplicas"] for group in spec["workerGroupSpecs"]} == {0}


@pytest.mark.parametrize("path", sorted(LAUNCH.glob("*.sh")), ids=lambda path: path.name)
def test_a_script_is_written_without_mistakes_that_shells_or_shellcheck_find(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True)
    assert os.access(path, os.X_OK)
    if shutil.which("shellcheck") is None:
        pytest.skip("needs shellcheck for more than bash -n")
    done = subprocess.run(["shellcheck", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_way_to_start_a_cluster_has_its_options() -> None:
    for name in (*RAY_UP, "kubernetes", "slurm"):
        cluster = compose("sweep", [f"cluster={name}"]).cluster
        assert cluster.address == "auto"
        assert cluster.failures > compose("sweep", []).cluster.failures


# What a fresh account is asked to do, and does.


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """An AWS account in this process, in which aws_account.yaml was deployed."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it writes a line per request
    host, port = moto.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        settings = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "a-key",
            "AWS_SECRET_ACCESS_KEY": "a-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            # Ray writes a key there.
            "HOME": str(tmp_path_factory.mktemp("home")),
        }
        for name, value in settings.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        boto3.client("cloudformation").create_stack(
            StackName="siamray",
            TemplateBody=(LAUNCH / "aws_account.yaml").read_text(),
            Parameters=[{"ParameterKey": "Bucket", "ParameterValue": "our-bucket"}],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        yield patch
    moto.stop()


def test_the_account_has_a_private_bucket_and_roles_that_can_no_more_than_they_must(
    account: pytest.MonkeyPatch,
) -> None:
    rights = boto3.client("iam")
    assert boto3.client("s3").get_bucket_encryption(Bucket="our-bucket")
    # moto takes no notice of this part of a template.
    text = re.sub(r"!\w+", "", (LAUNCH / "aws_account.yaml").read_text())
    blocked = yaml.safe_load(text)["Resources"]["Store"]["Properties"]["PublicAccessBlockConfiguration"]
    assert list(blocked.values()) == [True] * 4
    for role in ("siamray-head", "siamray-worker"):
        attached = rights.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
        assert [policy["PolicyName"] for policy in attached] == ["siamray-bucket"]
        assert rights.get_instance_profile(InstanceProfileName=role)["InstanceProfile"]["Roles"]
    assert rights.list_role_policies(RoleName="siamray-worker")["PolicyNames"] == []
    policy: Any = rights.get_role_policy(RoleName="siamray-head", PolicyName="start-workers")["PolicyDocument"]
    # A template's document comes back as text.
    policy = yaml.safe_load(policy) if isinstance(policy, str) else policy
    actions = {action for statement in policy["Statement"] for action in _listed(statement["Action"])}
    assert {action for action in actions if "*" in action} == {"ec2:Describe*"}
    (passed,) = [statement for statement in policy["Statement"] if statement["Action"] == "iam:PassRole"]
    assert passed["Resource"].endswith("role/siamray-worker")


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def test_ray_up_starts_what_cluster_yaml_says_with_closed_ports_and_encrypted_disks(
    account: pytest.MonkeyPatch,
) -> None:
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    config = bootstrap_aws(prepare_config(read(RAY_UP["aws"])))
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for name, group in config["available_node_types"].items():
        tags = {"ray-node-type": "head" if name == "head" else "worker", "ray-user-node-type": name}
        provider.create_node(group["node_config"], tags, 1)
    machines = boto3.client("ec2")
    instances = {
        next(tag["Value"] for tag in instance["Tags"] if tag["Key"] == "ray-user-node-type"): instance
        for reservation in machines.describe_instances()["Reservations"]
        for instance in reservation["Instances"]
    }
    assert set(instances) == set(config["available_node_types"])
    for name, instance in instances.items():
        assert {"Key": "project", "Value": "siamray"} in instance["Tags"]
        assert instance["MetadataOptions"]["HttpTokens"] == "required", name
        profile = instance["IamInstanceProfile"]["Arn"].rpartition("/")[2]
        assert profile == ("siamray-head" if name == "head" else "siamray-worker")
        assert (instance.get("InstanceLifecycle") == "spot") == (name in ("gpu_spot", "cpu"))
        assert [group["GroupName"] for group in instance["SecurityGroups"]] == ["siamray"]
    disks = machines.describe_volumes()["Volumes"]
    assert len(disks) >= len(instances)
    assert all(disk["Encrypted"] for disk in disks)
    (group,) = machines.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["siamray"]}])[
        "SecurityGroups"
    ]
    # From outside ssh alone; all else from the group itself.
    open_to_the_world = [rule for rule in group["IpPermissions"] if rule["IpRanges"] or rule.get("Ipv6Ranges")]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in open_to_the_world] == [(22, 22)]
    within = [rule for rule in group["IpPermissions"] if rule not in open_to_the_world]
    assert {pair["GroupId"] for rule in within for pair in rule["UserIdGroupPairs"]} == {group["GroupId"]}
