"""An AWS account (moto's) is asked before a cluster is started in it: what it lacks is a line with its remedy."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from moto.servicequotas.models import ServiceQuotasBackend
from moto.ssm.models import ssm_backends

from siamray.launch import aws
from tests.cluster.test_launch_files import LAUNCH
from tests.launch.conftest import User

ACCOUNT = "222233334444"
BUCKET = "bucket-of-the-launch"
STORE = f"store=s3://{BUCKET}/store"
NAMED = "resolve:ssm:/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"


@pytest.fixture(scope="module")
def settings() -> Iterator[dict[str, str]]:
    """The environment by which an AWS of this process is reached; its account has what aws_account.yaml makes."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it writes a line per request
    host, port = moto.get_host_and_port()
    where = {"endpoint_url": f"http://{host}:{port}", "region_name": "us-east-1"}
    anyone = {"aws_access_key_id": "a-key", "aws_secret_access_key": "a-secret"}
    # An account that no other test of this process uses.
    role = f"arn:aws:iam::{ACCOUNT}:role/tests"
    given = boto3.client("sts", **where, **anyone).assume_role(RoleArn=role, RoleSessionName="tests")["Credentials"]
    who = {
        "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
        "AWS_SESSION_TOKEN": given["SessionToken"],
    }
    session = boto3.Session(**{name.lower(): value for name, value in who.items()})
    session.client("cloudformation", **where).create_stack(
        StackName="siamray",
        TemplateBody=(LAUNCH / "aws_account.yaml").read_text(),
        Parameters=[{"ParameterKey": "Bucket", "ParameterValue": BUCKET}],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    yield {"AWS_ENDPOINT_URL": where["endpoint_url"], **who}
    moto.stop()


@pytest.fixture
def account(user: User, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> User:
    """The account's user, with quotas that are enough; moto knows none of EC2, nor Amazon's own parameters."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    quotas(monkeypatch, {})
    image = here("ec2").describe_images(Owners=["099720109477"])["Images"][0]
    name_image(monkeypatch, image["ImageId"])
    return user


def here(service: str) -> Any:
    """A client of the account; of a session of its own, as boto3 keeps the first one's credentials."""
    return boto3.Session(region_name="us-east-1").client(service)


def name_image(monkeypatch: pytest.MonkeyPatch, image: str) -> None:
    """Lets Systems Manager know the name of the image, in one region."""
    backend = ssm_backends[ACCOUNT]["us-east-1"]
    asked, known = backend.get_parameters, NAMED.removeprefix("resolve:ssm:")
    here("ssm").put_parameter(Name="ours", Value=image, Type="String", Overwrite=True)
    monkeypatch.setattr(backend, "get_parameters", lambda names: asked(["ours" if n == known else n for n in names]))


def quotas(monkeypatch: pytest.MonkeyPatch, allowed: dict[str, float]) -> None:
    """Gives the account quotas of processors: code -> how many; 1000 where none is named."""

    def get(self: ServiceQuotasBackend, service_code: str, quota_code: str) -> dict[str, Any]:
        return {"ServiceCode": service_code, "QuotaCode": quota_code, "Value": float(allowed.get(quota_code, 1000))}

    monkeypatch.setattr(ServiceQuotasBackend, "get_service_quota", get)


def answers(monkeypatch: pytest.MonkeyPatch, service: str, operation: str, code: str) -> None:
    """Lets AWS refuse one operation with an error of this name."""
    errors = here("sts").exceptions.ClientError
    made: Callable[..., Any] = aws._client

    def client(session: Any, name: str, region: str | None = None) -> Any:
        real = made(session, name, region)
        if name == service:

            def refuse(**_: Any) -> None:
                raise errors({"Error": {"Code": code, "Message": "so it is"}}, operation)

            setattr(real, operation, refuse)
        return real

    monkeypatch.setattr(aws, "_client", client)


def test_an_account_that_has_all_that_is_wanted_is_ready_and_nothing_was_started(account: User) -> None:
    path = account.file("aws")
    code, out, troubles = account.check(path, STORE, f"results=s3://{BUCKET}/results")
    assert (code, troubles) == (0, [])
    assert f"ready: ray up {path}" in out
    assert f"account {ACCOUNT}" in out
    assert "us-east-1 has c6i.4xlarge, g4dn.xlarge, t3.large" in out
    assert "All G and VT Spot Instance Requests: 1000 processors, 32 at most wanted" in out
    assert "instance profiles siamray-head, siamray-worker" in out
    assert "you may start head, gpu_spot, gpu_on_demand, cpu" in out
    assert f"s3://{BUCKET}/store can be written from here" in out
    machines = here("ec2")
    assert not machines.describe_instances()["Reservations"]
    assert "Contents" not in here("s3").list_objects_v2(Bucket=BUCKET)


def test_without_a_place_it_says_that_no_bucket_was_tested(account: User) -> None:
    code, out, _ = account.check(account.file("aws"))
    assert code == 0
    assert "store=s3://BUCKET/store results=s3://BUCKET/results" in out


def test_nobody_is_asked_without_boto3(account: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws, "find_spec", lambda _: None)
    assert "ray up needs boto3, which is not installed here; pip install boto3" in account.refused(account.file("aws"))


def test_no_credentials_and_a_profile_that_is_not_there_are_named(
    account: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    path = account.file("aws")
    assert "no credentials of AWS were found; aws configure" in account.refused(path)
    monkeypatch.setenv("AWS_PROFILE", "anothers")
    assert "(anothers) could not be found; correct AWS_PROFILE" in account.refused(path)


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("ExpiredToken", "your credentials of AWS have expired (ExpiredToken); get new ones (aws sso login"),
        ("InvalidClientTokenId", "AWS does not know your credentials (InvalidClientTokenId); aws configure"),
        ("AccessDenied", "AWS refuses to say who you are (AccessDenied)"),
    ],
)
def test_credentials_that_are_expired_or_unknown_are_named(
    account: User, monkeypatch: pytest.MonkeyPatch, code: str, line: str
) -> None:
    answers(monkeypatch, "sts", "get_caller_identity", code)
    assert line in account.refused(account.file("aws"))


def test_an_aws_that_does_not_answer_is_named(account: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert "AWS cannot be reached (EndpointConnectionError)" in account.refused(account.file("aws"))


def test_a_region_or_zone_that_is_not_there_is_named_with_the_nearest(account: User) -> None:
    said = account.refused(account.file("aws", ("region: us-east-1", "region: us-east1")))
    assert "provider.region is 'us-east1'; did you mean 'us-east-1'?" in said
    zone = ("region: us-east-1", "region: us-east-1\n  availability_zone: us-east-1z")
    assert "us-east-1 has no zone 'us-east-1z'; did you mean" in account.refused(account.file("aws", zone), only=False)


def test_a_type_that_the_region_lacks_is_named_with_the_nearest(account: User) -> None:
    said = account.refused(account.file("aws", ("InstanceType: g4dn.xlarge", "InstanceType: g4dn.xlrge")), STORE)
    assert "us-east-1 has no type 'g4dn.xlrge'; did you mean 'g4dn.xlarge'?" in said


def test_more_processors_or_gpus_than_the_type_has_are_named(account: User) -> None:
    said = account.refused(account.file("aws", ("{CPU: 4, GPU: 1}", "{CPU: 8, GPU: 2}")), STORE)
    assert "gpu_spot promises 8 CPU where there are 4, 2 GPU where there are 1 of g4dn.xlarge" in said


def test_a_quota_below_max_workers_is_named_with_what_to_ask_for(
    account: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = account.file("aws")
    quotas(monkeypatch, {"L-3819A6DF": 0, "L-DB2E81BA": 4})
    code, _, troubles = account.check(path, STORE)
    assert code == 2
    spot, on_demand = sorted(troubles, key=lambda line: "L-DB2E81BA" in line)
    assert "8 g4dn.xlarge of gpu_spot are 32 processors" in spot
    assert "'All G and VT Spot Instance Requests' (L-3819A6DF) is 0 in us-east-1; ask AWS for 32" in spot
    assert "2 g4dn.xlarge of gpu_on_demand are 8 processors" in on_demand
    assert "is 4 in us-east-1; ask AWS for 8 (Service Quotas), or lower max_workers: 1 nodes fit" in on_demand
    for line, group in ((spot, "8"), (on_demand, "2")):
        assert path.read_text().splitlines()[int(line.split(":")[2]) - 1].strip() == f"max_workers: {group}"


def test_the_head_counts_with_workers_and_no_more_nodes_than_max_workers(
    account: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One worker at most: 16 processors of the standard families at spot price, 2 of the head at full price.
    path = account.file("aws", ("max_workers: 12", "max_workers: 1"))
    quotas(monkeypatch, {"L-34B43A08": 16, "L-1216C47A": 2, "L-3819A6DF": 4, "L-DB2E81BA": 4})
    code, _, troubles = account.check(path, STORE)
    assert (code, troubles) == (0, [])
    quotas(monkeypatch, {"L-1216C47A": 1})
    assert "1 t3.large of head are 2 processors" in account.refused(path, STORE)


def test_a_missing_profile_image_or_bucket_is_named(account: User) -> None:
    said = account.refused(account.file("aws", ("Name: siamray-head", "Name: siamray-hed")), STORE)
    assert "no instance profile siamray-hed; aws cloudformation deploy" in said
    said = account.refused(account.file("aws", (NAMED, "ami-00000000")), STORE)
    assert "us-east-1 has no image ami-00000000" in said
    said = account.refused(account.file("aws", (NAMED, "resolve:ssm:/nowhere")), STORE)
    assert "us-east-1 has no /nowhere" in said
    said = account.refused(account.file("aws"), "store=s3://nobodys-bucket/store")
    assert "store=s3://nobodys-bucket/store: there is no bucket nobodys-bucket" in said
    said = account.refused(account.file("aws"), "store=s3://No_Bucket!/store")
    assert "'No_Bucket!' cannot be the name of a bucket" in said


def test_a_bucket_that_may_not_be_used_or_written_is_named(account: User, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "s3", "put_object", "AccessDenied")
    assert "you may not write there (AccessDenied); ask for s3:PutObject" in account.refused(account.file("aws"), STORE)
    answers(monkeypatch, "s3", "head_bucket", "403")
    assert f"bucket {BUCKET} is another's, or you may not use it" in account.refused(account.file("aws"), STORE)


def test_who_may_not_start_machines_is_told(account: User, monkeypatch: pytest.MonkeyPatch) -> None:
    path = account.file("aws")
    answers(monkeypatch, "ec2", "run_instances", "UnauthorizedOperation")
    said = account.refused(path, STORE, only=False)
    assert "your credentials may not start head; ask for ec2:RunInstances" in said


def test_what_the_user_may_not_ask_is_not_passed_off_as_checked(account: User, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "iam", "get_instance_profile", "AccessDenied")
    code, out, _ = account.check(account.file("aws"), STORE)
    assert code == 0
    assert "your credentials may not ask (iam:GetInstanceProfile)" in out


def test_an_account_without_a_default_network_is_told_how_to_make_one(
    account: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, "ec2", "run_instances", "VPCIdNotSpecified")
    assert "aws ec2 create-default-vpc" in account.refused(account.file("aws"), STORE, only=False)
