"""A file of ``ray up`` for AWS goes in; what the account says comes out: credentials, types, quota, rights, bucket.

It asks, and starts nothing: machines are asked for as a dry run, and the object written into a bucket is removed.
"""

import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from siamray.errors import nearest
from siamray.launch.checks import Asked, Check, good, trouble, troubled, unchecked

# Families of types that share a quota of processors -> what its quota is called, at full and at spot price.
QUOTAS = {
    ("g", "vt"): (
        "L-DB2E81BA",
        "Running On-Demand G and VT instances",
        "L-3819A6DF",
        "All G and VT Spot Instance Requests",
    ),
    ("p",): ("L-417A185B", "Running On-Demand P instances", "L-7212CCBC", "All P Spot Instance Requests"),
    ("a", "c", "d", "h", "i", "m", "r", "t", "z"): (
        "L-1216C47A",
        "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
        "L-34B43A08",
        "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests",
    ),
}
_SSM = "resolve:ssm:"
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "UnauthorizedAccess", "403"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_UNKNOWN = {"InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch", "AuthFailure"}
_UNKNOWN |= {"InvalidAccessKeyId"}
_LOGIN = {"UnauthorizedSSOTokenError", "SSOTokenLoadError", "TokenRetrievalError", "LoginRefreshRequired"}
_SECONDS = 10


@dataclass(frozen=True)
class _Group:
    """A kind of node: its name, type, most nodes, whether at spot price, and processors (0: not known)."""

    name: str
    type: str
    nodes: int
    spot: bool
    processors: int


def check_account(asked: Asked) -> list[Check]:
    """Asks an AWS account whether it can and may do what a file wants.

    Args:
        asked: the file; valid.
    """
    if find_spec("boto3") is None:
        return [trouble("AWS", f"{asked.name}: ray up needs boto3, which is not installed here; pip install boto3")]
    session, found = _session(asked)
    if session is None:
        return found
    found += _credentials(asked, session)
    if troubled(found):
        return found
    types, said = _types(asked, session)
    found += said
    groups = list(_groups(asked, types))
    found += [*_quotas(asked, session, groups), *_images(asked, session), *_profiles(asked, session)]
    if not troubled(found):
        # A dry run would name again what is wrong already, in AWS's words.
        found += _dry_runs(asked, session)
    return [*found, *_buckets(asked, session)]


def _session(asked: Asked) -> tuple[Any, list[Check]]:
    """Makes a session in the file's region; None with the trouble where there can be none."""
    boto3: Any = import_module("boto3")
    provider = asked.config["provider"]
    where, region = asked.at("provider", "region"), provider["region"]
    try:
        session = boto3.Session(region_name=region, **provider.get("aws_credentials", {}))
        known = [
            name
            for partition in session.get_available_partitions()
            for name in session.get_available_regions("ec2", partition_name=partition)
        ]
    except Exception as error:
        return None, [trouble("credentials", f"{asked.name}: {_no_credentials(error)}")]
    if region not in known:
        return None, [trouble("region", f"{where}: provider.region is '{region}'{nearest(region, known)}")]
    return session, []


def _client(session: Any, service: str, region: str | None = None) -> Any:
    config: Any = import_module("botocore.config")
    settings = config.Config(connect_timeout=_SECONDS, read_timeout=_SECONDS, retries={"max_attempts": 2})
    return session.client(service, config=settings, region_name=region)


def _credentials(asked: Asked, session: Any) -> list[Check]:
    """Asks who the user is."""
    region = session.region_name
    try:
        identity = _client(session, "sts").get_caller_identity()
    except Exception as error:
        if _code(error) in _UNKNOWN and region != "us-east-1":
            try:
                _client(session, "sts", "us-east-1").get_caller_identity()
            except Exception:
                return [trouble("credentials", f"{asked.name}: {_no_credentials(error)}")]
            where = asked.at("provider", "region")
            enable = f"aws account enable-region --region-name {region}"
            return [trouble("region", f"{where}: this account has not enabled {region}; {enable}, or name another")]
        return [trouble("credentials", f"{asked.name}: {_no_credentials(error)}")]
    return [good("credentials", f"account {identity['Account']}, {identity['Arn'].rpartition(':')[2]}, {region}")]


def _no_credentials(error: Exception) -> str:
    """Says why AWS does not know the user, and the remedy."""
    kinds, code = {kind.__name__ for kind in type(error).__mro__}, _code(error)
    if kinds & _LOGIN or "SSOError" in kinds:
        return "your login to AWS has expired; aws sso login"
    if "ProfileNotFound" in kinds:
        return f"{' '.join(str(error).split())}; correct AWS_PROFILE, or aws configure --profile makes it"
    if kinds & {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"}:
        return "no credentials of AWS were found; aws configure, or name yours by AWS_PROFILE"
    if code in _EXPIRED:
        return f"your credentials of AWS have expired ({code}); get new ones (aws sso login, or a new session token)"
    if code in _UNKNOWN:
        return f"AWS does not know your credentials ({code}); aws configure with a key that is there, or AWS_PROFILE"
    if kinds & {"ConnectionError", "HTTPClientError", "BotoCoreError"} and not code:
        return f"AWS cannot be reached ({type(error).__name__}); look at your network, proxy and AWS_ENDPOINT_URL"
    return f"AWS refuses to say who you are ({code or type(error).__name__}); mend your credentials"


def _code(error: BaseException) -> str:
    """AWS's own name of an error; "" where it has none."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _asking(subject: str, right: str, ask: Callable[[], Iterable[Check]]) -> list[Check]:
    """Asks one thing; where that is forbidden or fails, says that it is not checked.

    Args:
        subject: what is asked about.
        right: that the user needs for it.
        ask: asks, and says what was found.
    """
    errors: Any = import_module("botocore.exceptions")
    try:
        return list(ask())
    except (errors.ClientError, errors.BotoCoreError) as error:
        if _code(error) in _DENIED:
            return [unchecked(subject, f"your credentials may not ask ({right})")]
        return [unchecked(subject, f"AWS did not answer ({_code(error) or type(error).__name__})")]


def _nodes(asked: Asked) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, group in asked.config.get("available_node_types", {}).items():
        yield name, group["node_config"]


def _types(asked: Asked, session: Any) -> tuple[dict[str, dict[str, Any]], list[Check]]:
    """Asks which of the types the region has, and what they have; type -> EC2's description."""
    described: dict[str, dict[str, Any]] = {}

    def ask() -> Iterator[Check]:
        machines = _client(session, "ec2")
        zones = [zone.strip() for zone in str(asked.config["provider"].get("availability_zone") or "").split(",")]
        zones = [zone for zone in zones if zone]
        known = {zone["ZoneName"] for zone in machines.describe_availability_zones()["AvailabilityZones"]}
        for zone in zones:
            if zone not in known:
                where = asked.at("provider", "availability_zone")
                yield trouble(
                    "region", f"{where}: {session.region_name} has no zone '{zone}'{nearest(zone, sorted(known))}"
                )
        if not set(zones) <= known:
            return
        kind = "availability-zone" if zones else "region"
        filters = [{"Name": "location", "Values": zones}] if zones else []

        def offers(types: list[str]) -> set[str]:
            only = [{"Name": "instance-type", "Values": types}] if types else []
            pages = machines.get_paginator("describe_instance_type_offerings")
            answers = pages.paginate(LocationType=kind, Filters=[*filters, *only])
            return {offer["InstanceType"] for answer in answers for offer in answer["InstanceTypeOfferings"]}

        place = ", ".join(zones) or session.region_name
        wanted = {node["InstanceType"] for _, node in _nodes(asked) if "InstanceType" in node}
        offered = offers(sorted(wanted))
        if not wanted <= offered:
            # For the nearest one.
            offered = offers([])
        if there := sorted(wanted & offered):
            answer = machines.describe_instance_types(InstanceTypes=there)["InstanceTypes"]
            described.update({kind["InstanceType"]: kind for kind in answer})
        bad = False
        for name, group in asked.config.get("available_node_types", {}).items():
            path = ("available_node_types", name, "node_config", "InstanceType")
            named = group["node_config"].get("InstanceType")
            if named is None:
                bad = True
                yield trouble("types", f"{asked.at(*path)}: node_config of {name} lacks InstanceType; add it")
            elif named not in offered:
                bad = True
                family = [other for other in offered if other.split(".")[0] == str(named).split(".")[0]]
                near = nearest(str(named), family or sorted(offered))
                yield trouble("types", f"{asked.at(*path)}: {place} has no type '{named}'{near}")
            elif said := _more_than_there_is(group["resources"], described.get(named, {})):
                bad = True
                where = asked.at("available_node_types", name, "resources")
                yield trouble("types", f"{where}: {name} promises {said} of {named}; correct resources or InstanceType")
        if not bad:
            yield good("types", f"{place} has {', '.join(sorted(wanted))}")

    return described, _asking("types", "ec2:DescribeInstanceTypeOfferings, ec2:DescribeInstanceTypes", ask)


def _more_than_there_is(resources: dict[str, int], described: dict[str, Any]) -> str:
    """Says which resources a file promises that the type has not; "" where none."""
    processors = described.get("VCpuInfo", {}).get("DefaultVCpus")
    if processors is None:
        return ""
    gpus = sum(gpu["Count"] for gpu in described.get("GpuInfo", {}).get("Gpus", []))
    there = {"CPU": processors, "GPU": gpus}
    return ", ".join(
        f"{resources[key]} {key} where there are {n}" for key, n in there.items() if resources.get(key, 0) > n
    )


def _groups(asked: Asked, types: dict[str, dict[str, Any]]) -> Iterator[_Group]:
    head = asked.config.get("head_node_type")
    for name, group in asked.config.get("available_node_types", {}).items():
        node = group["node_config"]
        kind = node.get("InstanceType", "")
        most = group.get("max_workers", 0 if name == head else asked.config.get("max_workers", 2))
        spot = node.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        processors = types.get(kind, {}).get("VCpuInfo", {}).get("DefaultVCpus", 0)
        yield _Group(name, kind, most + (name == head), spot, processors)


def _quotas(asked: Asked, session: Any, groups: list[_Group]) -> list[Check]:
    """Holds the most processors that a file may start against the account's quotas of them."""
    together: dict[tuple[str, str], list[_Group]] = defaultdict(list)
    found = []
    for group in groups:
        family = _family(group.type)
        named = next((quota for members, quota in QUOTAS.items() if family in members), None)
        if named is None or not group.processors:
            if group.type:
                found.append(unchecked("quota", f"of {group.type}: not one of the quotas that are known here"))
            continue
        together[named[2:] if group.spot else named[:2]].append(group)
    for (code, called), members in together.items():
        found += _asking(
            "quota",
            "servicequotas:GetServiceQuota",
            lambda code=code, called=called, members=members: [_quota(asked, session, code, called, members)],  # type: ignore[misc]
        )
    return found


def _family(kind: str) -> str:
    """The letters before a type's generation: g of g4dn.xlarge."""
    letters = ""
    for letter in kind:
        if not letter.isalpha():
            break
        letters += letter
    return letters


def _quota(asked: Asked, session: Any, code: str, called: str, members: list[_Group]) -> Check:
    quotas = _client(session, "service-quotas")
    try:
        answer = quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)
    except Exception as error:
        if _code(error) != "NoSuchResourceException":
            raise
        answer = quotas.get_aws_default_service_quota(ServiceCode="ec2", QuotaCode=code)
    allowed = int(answer["Quota"]["Value"])
    # The head comes on top of max_workers.
    left = asked.config.get("max_workers", 2) + any(group.name == asked.config["head_node_type"] for group in members)
    asks = 0
    for group in sorted(members, key=lambda group: -group.processors):
        nodes = min(group.nodes, left)
        asks, left = asks + nodes * group.processors, left - nodes
    named = " and ".join(f"{group.nodes} {group.type} of {group.name}" for group in members)
    if asks <= allowed:
        return good("quota", f"{called}: {allowed} processors, {asks} at most wanted; what runs already is not counted")
    where = asked.at("available_node_types", members[0].name, "max_workers")
    fit = allowed // max(group.processors for group in members)
    return trouble(
        "quota",
        f"{where}: {named} are {asks} processors, and the account's quota '{called}' ({code}) is {allowed} in "
        f"{session.region_name}; ask AWS for {asks} (Service Quotas), or lower max_workers: {fit} nodes fit",
    )


def _images(asked: Asked, session: Any) -> list[Check]:
    """Looks the images up, by their names where the file has names."""
    wanted = {node["ImageId"]: name for name, node in _nodes(asked) if "ImageId" in node}

    def ask() -> Iterator[Check]:
        for image, name in wanted.items():
            where = asked.at("available_node_types", name, "node_config", "ImageId")
            found = image
            if image.startswith(_SSM):
                answer = _client(session, "ssm").get_parameters(Names=[image.removeprefix(_SSM)])["Parameters"]
                if not answer:
                    yield trouble(
                        "images", f"{where}: {session.region_name} has no {image.removeprefix(_SSM)}; correct the name"
                    )
                    continue
                found = answer[0]["Value"]
            try:
                described = _client(session, "ec2").describe_images(ImageIds=[found])["Images"]
            except Exception as error:
                if not _code(error).startswith("InvalidAMIID"):
                    raise
                described = []
            if described:
                yield good("images", f"{described[0].get('Name') or found} ({found})")
            else:
                yield trouble("images", f"{where}: {session.region_name} has no image {found}; name one that it has")

    return _asking("images", "ssm:GetParameters, ec2:DescribeImages", ask)


def _profiles(asked: Asked, session: Any) -> list[Check]:
    """Looks for the roles that the nodes are to have."""
    wanted: dict[str, tuple[str | int, ...]] = {}
    for name, node in _nodes(asked):
        profile = node.get("IamInstanceProfile", {})
        if named := profile.get("Name") or str(profile.get("Arn", "")).rpartition("/")[2]:
            wanted.setdefault(named, ("available_node_types", name, "node_config", "IamInstanceProfile"))

    def ask() -> Iterator[Check]:
        rights = _client(session, "iam")
        there = []
        for named, path in wanted.items():
            try:
                profile = rights.get_instance_profile(InstanceProfileName=named)["InstanceProfile"]
            except Exception as error:
                if _code(error) != "NoSuchEntity":
                    raise
                deploy = (
                    "aws cloudformation deploy with experiments/cluster/launch/aws_account.yaml makes it (README.md)"
                )
                yield trouble("roles", f"{asked.at(*path)}: the account has no instance profile {named}; {deploy}")
                continue
            if profile["Roles"]:
                there.append(named)
            else:
                yield trouble("roles", f"{asked.at(*path)}: instance profile {named} has no role; add one to it")
        if there:
            yield good("roles", f"instance profiles {', '.join(there)}")

    return _asking("roles", "iam:GetInstanceProfile", ask)


def _dry_runs(asked: Asked, session: Any) -> list[Check]:
    """Asks for a machine of every kind as a dry run, which checks rights and settings and starts nothing."""
    errors: Any = import_module("botocore.exceptions")
    machines = _client(session, "ec2")
    may = []
    found = []
    for name, node in _nodes(asked):
        asks = {key: value for key, value in node.items() if key != "SubnetIds"}
        subnets = node.get("SubnetIds")
        if subnets:
            asks["SubnetId"] = subnets[0]
        where = asked.at("available_node_types", name)
        try:
            machines.run_instances(**asks, MinCount=1, MaxCount=1, DryRun=True)
        except errors.ClientError as error:
            code = _code(error)
            if code == "DryRunOperation":
                may.append(name)
            elif code in _DENIED:
                remedy = "ask for ec2:RunInstances, ec2:CreateTags and iam:PassRole"
                found.append(trouble("dry run", f"{where}: your credentials may not start {name}; {remedy}"))
            elif code in ("VPCIdNotSpecified", "MissingInput"):
                remedy = "aws ec2 create-default-vpc, or name SubnetIds"
                found.append(trouble("dry run", f"{where}: the account has no default network here; {remedy}"))
            else:
                told = " ".join(str(error.response["Error"].get("Message", "")).split())[:200]
                found.append(trouble("dry run", f"{where}: AWS would not start {name} ({code}: {told}); correct it"))
        except errors.BotoCoreError as error:
            found.append(unchecked("dry run", f"of {name}: AWS did not answer ({type(error).__name__})"))
    if may:
        found.append(good("dry run", f"you may start {', '.join(may)}"))
    return found


def _buckets(asked: Asked, session: Any) -> list[Check]:
    """Writes an object into each place that is on S3, and removes it."""
    found = []
    if not asked.places:
        asks = "store=s3://BUCKET/store results=s3://BUCKET/results"
        found.append(unchecked("bucket", f"name it as for the sweep, and it is: {asks}"))
    for option, place in asked.places.items():
        if not place.startswith("s3://"):
            found.append(unchecked(option, f"{place} is not on S3; check=true of the sweep tests it"))
            continue
        bucket, _, prefix = place.removeprefix("s3://").partition("/")
        found += _asking(option, "s3:ListBucket", lambda o=option, b=bucket, p=prefix: _bucket(session, o, b, p))  # type: ignore[misc]
    if any(place.startswith("s3://") for place in asked.places.values()):
        found.append(unchecked("bucket", "whether the nodes' role may write it too: check=true of the sweep tests it"))
    return found


def _bucket(session: Any, option: str, bucket: str, prefix: str) -> Iterator[Check]:
    objects = _client(session, "s3")
    named = f"{option}=s3://{bucket}/{prefix}"
    try:
        answer = objects.head_bucket(Bucket=bucket)
    except Exception as error:
        if _code(error) in ("404", "NoSuchBucket"):
            make = "make it (experiments/cluster/launch/aws_account.yaml does), or correct the name"
            yield trouble(option, f"{named}: there is no bucket {bucket}; {make}")
            return
        if _code(error) in ("403", "AccessDenied"):
            yield trouble(
                option, f"{named}: bucket {bucket} is another's, or you may not use it; correct the name or rights"
            )
            return
        if "ParamValidationError" in {kind.__name__ for kind in type(error).__mro__}:
            yield trouble(option, f"{named}: '{bucket}' cannot be the name of a bucket; correct it")
            return
        raise
    key = f"{prefix.rstrip('/')}/.siamray-launch-{secrets.token_hex(8)}".lstrip("/")
    try:
        objects.put_object(Bucket=bucket, Key=key, Body=b"")
        objects.delete_object(Bucket=bucket, Key=key)
    except Exception as error:
        if _code(error) not in _DENIED:
            raise
        remedy = "ask for s3:PutObject and s3:DeleteObject there"
        yield trouble(option, f"{named}: you may not write there ({_code(error)}); {remedy}")
        return
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    region = answer.get("BucketRegion") or headers.get("x-amz-bucket-region") or session.region_name
    far = "" if region == session.region_name else f", but in {region}: reading across regions is slow and is paid for"
    yield good(option, f"s3://{bucket}/{prefix} can be written from here{far}")
