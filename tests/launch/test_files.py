"""A mistake in a launch file, or on the user's own machine, is one line with its place and remedy."""

from pathlib import Path

import pytest

from siamray.launch.machine import others_may_read
from tests.launch.conftest import FILES, User

RAY_UP = ("aws", "gcp", "azure", "onpremise")


@pytest.mark.parametrize("name", RAY_UP)
@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("idle_timeout_minutes", "idle_timeout_minuts"), "; did you mean 'idle_timeout_minutes'?"),
        (("upscaling_speed: 1.0", "upscaling_speed: fast"), "upscaling_speed is 'fast' and must be a number"),
        (("cluster_name: siamray\n", ""), "the file lacks cluster_name; add it"),
        (("  ssh_user:", "  ssh_usr:"), "no option 'ssh_usr' in auth; did you mean 'ssh_user'?"),
        (("rsync_exclude: [\"__pycache__\"]", "rsync_exclude: cache"), "rsync_exclude is 'cache' and must be a list"),
    ],
)  # fmt: skip
def test_a_typo_in_a_file_of_ray_up_is_a_line_with_its_place_and_the_nearest_name(
    user: User, name: str, change: tuple[str, str], line: str
) -> None:
    path = user.file(name, change)
    said = user.refused(path)
    assert line in said
    number = said.removeprefix("siamray: FILE:").partition(":")[0]
    key = change[1].strip().partition(":")[0]
    if key:
        assert key in path.read_text().splitlines()[int(number) - 1]


@pytest.mark.parametrize("name", RAY_UP)
def test_bad_indentation_is_named_by_its_line(user: User, name: str) -> None:
    path = user.file(name, ("provider:\n  type:", "provider:\n type:"))
    # A mapping whose keys stand at two depths: YAML itself gives up at the second.
    said = user.refused(path)
    number = int(said.removeprefix("siamray: FILE:").partition(":")[0])
    assert "no YAML here" in said
    assert "indentation" in said
    lines = path.read_text().splitlines()
    assert abs(number - 1 - next(n for n, line in enumerate(lines) if line.startswith(" type:"))) <= 4


def test_tabs_and_keys_given_twice_are_named(user: User) -> None:
    said = user.refused(user.file("aws", ("  region: us-east-1", "\tregion: us-east-1")))
    assert "indent by spaces, not tabs" in said
    said = user.refused(user.file("aws", ("max_workers: 12\n", "max_workers: 12\nmax_workers: 2\n")))
    assert "max_workers is given twice" in said


@pytest.mark.parametrize(
    ("name", "change", "line"),
    [
        ("aws", ("type: aws", "type: was"), "provider.type is 'was'; did you mean 'aws'?"),
        ("aws", ("  region:", "  regoin:"), "no option 'regoin' in provider; did you mean 'region'?"),
        ("aws", ("    max_workers: 8", "    max_worker: 8"), "types.gpu_spot; did you mean 'max_workers'?"),
        ("aws", ("    max_workers: 8", "    max_workers: eight"), "max_workers is 'eight' and must be a whole number"),
        ("aws", ("head_node_type: head", "head_node_type: haed"), "Ray refuses it (`head_node_type` must be one of"),
        ("aws", ("    min_workers: 0", "    min_workers: 20"), "max_workers` is smaller than"),
        ("aws", ("InstanceType: g4dn", "InstanceTyp: g4dn"), "no option 'InstanceTyp'"),
        ("aws", ("VolumeSize: 100", "VolumeSize: big"), "Ebs.VolumeSize is 'big' and must be a whole number"),
        ("azure", ("        osDiskSize", "        osDiskSiz"), "no option 'osDiskSiz'"),
        ("gcp", ("      machineType: n1", "      machinetype: n1"), "did you mean 'machineType'?"),
        ("onpremise", ("  worker_ips: [10.0.0.11, 10.0.0.12]\n", ""), "provider lacks worker_ips; add it"),
        ("onpremise", ("[10.0.0.11, 10.0.0.12]", "10.0.0.11"), "provider.worker_ips is '10.0.0.11' and must be a list"),
    ],
)  # fmt: skip
def test_what_rays_schema_lets_through_is_found_too(user: User, name: str, change: tuple[str, str], line: str) -> None:
    said = user.refused(user.file(name, change), only=False)
    assert line in said
    assert said.startswith("siamray: FILE:")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("workerGroupSpecs:", "workerGroupSpec:"), "no option 'workerGroupSpec'"),
        (("mode: token", "mode: tokens"), "authOptions.mode is 'tokens'; did you mean 'token'?"),
        (("maxReplicas: 8", "maxReplicas: many"), "maxReplicas is 'many' and must be a whole number"),
        (("minReplicas: 0", "minReplicas: 9"), "they must rise from minReplicas over replicas to maxReplicas"),
        (("kind: Ray", "kind: Rya"), "did you mean 'Ray"),
        (("persistentVolumeClaim:", "persistentVolumClaim:"), "; did you mean 'persistentVolumeClaim'?"),
        (("runAsUser: 1000", "runAsUser: ray"), "runAsUser is 'ray' and must be a whole number"),
    ],
)
@pytest.mark.parametrize("name", ["kubernetes_cluster", "kubernetes_job"])
def test_a_typo_in_a_manifest_is_found_by_kuberays_and_kubernetes_schemas(
    user: User, name: str, change: tuple[str, str], line: str
) -> None:
    said = user.refused(user.file(name, change), only=False)
    assert line in said
    assert said.startswith("siamray: FILE:")


@pytest.mark.parametrize("name", ["kubernetes_cluster", "kubernetes_job"])
def test_a_manifest_with_the_users_own_registry_is_ready(user: User, name: str) -> None:
    user.program("kubectl", "exit 1")
    said = user.refused(user.file(name), only=False)
    assert "image: REGISTRY is the example's; write your registry of images" in said
    path = user.file(name, *[("image: REGISTRY/", "image: registry.example.org/")] * 3)
    code, out, troubles = user.check(path)
    assert (code, troubles) == (0, [])
    assert f"ready: kubectl apply -f {path}" in out
    # What only the cluster knows is not passed off as checked.
    assert "kubectl apply --dry-run=server" in out


def test_what_was_not_replaced_is_named(user: User) -> None:
    said = user.refused(user.file("gcp"), "store=gs://BUCKET/store", only=False)
    assert said == "siamray: store=gs://BUCKET/store: BUCKET is the example's; write your bucket's name"
    _, _, troubles = user.check(user.file("gcp"))
    assert any("provider.project_id is my-project, the example's" in line for line in troubles)
    # Nobody's hosts are asked by mistake.
    said = user.refused(user.file("onpremise"))
    assert "head_ip and worker_ips are the example's; write your hosts'" in said


def test_a_missing_key_token_or_file_is_named_with_the_command_that_makes_it(user: User) -> None:
    hosts = ("10.0.0.10", "a"), ("10.0.0.11, 10.0.0.12", "b")
    (user.home / ".ssh" / "id_ed25519").unlink()
    (user.home / ".ray" / "auth_token").unlink()
    path = user.file("onpremise", *hosts, ("LICENSE: LICENSE", "LICENSE: LICENCE"))
    code, _, troubles = user.check(path)
    assert code == 2
    assert [line.rpartition("; ")[2] for line in troubles] == [
        "start in the root of the checkout",
        'name yours, or: ssh-keygen -t ed25519 -f ~/.ssh/id_ed25519 -N ""',
        "make one: ray get-auth-token --generate > /dev/null && chmod 700 ~/.ray",
    ]


def test_a_key_or_token_that_others_may_read_is_refused(user: User) -> None:
    (user.home / ".ssh" / "id_ed25519").chmod(0o644)
    path = user.file("onpremise", ("10.0.0.10", "a"))
    assert "others may read ~/.ssh/id_ed25519, so that ssh refuses it; chmod 600 it" in user.refused(path)


def test_a_token_in_a_closed_folder_is_the_users_alone_whatever_its_own_mode(tmp_path: Path) -> None:
    # As Ray writes it, and README.md closes its folder. Folders of the tests may be closed themselves.
    token = tmp_path / "auth_token"
    token.write_text("a-token")
    token.chmod(0o644)
    tmp_path.chmod(0o700)
    assert not others_may_read(token)
    opened = all(folder.stat().st_mode & 0o001 for folder in tmp_path.parents)
    tmp_path.chmod(0o755)
    assert others_may_read(token) == opened
    token.chmod(0o600)
    assert not others_may_read(token)


def test_a_cluster_without_a_token_is_refused(user: User) -> None:
    path = user.file("onpremise", ("10.0.0.10", "a"), ("RAY_AUTH_MODE=token", "A=b"))
    said = user.refused(path, only=False)
    assert "head_start_ray_commands start Ray without RAY_AUTH_MODE=token" in said
    path = user.file("onpremise", ("10.0.0.10", "a"), ("  ~/.ray/auth_token: ~/.ray/auth_token\n", ""))
    assert "file_mounts ships no token" in user.refused(path, only=False)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nowhere.yaml"], "nowhere.yaml: there is no such file"),
        ([], "name one file that starts a cluster"),
        (["cluster.yaml", "stor=s3://b"], "stor= is no option of this command; did you mean 'store'?"),
        (["experiments/cluster/launch/slurm.sh"], "sbatch --test-only experiments/cluster/launch/slurm.sh"),
        (["experiments/cluster/launch/requirements.txt"], "no keys with values at its outermost level"),
        (["experiments/cluster/launch/aws_account.yaml"], "a template of CloudFormation starts no cluster"),
    ],
)
def test_a_command_line_that_names_no_launch_file_ends_in_one_line(
    user: User, words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from siamray.errors import run_command
    from siamray.launch.__main__ import main

    with pytest.raises(SystemExit) as ended:
        run_command(lambda _: main(words))
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert line in said[-1]


def test_google_and_azure_say_what_they_did_not_ask(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("siamray.launch.google.missing_packages", lambda *_: [])
    path = user.file("gcp", ("my-project", "our-project"))
    assert "no credentials of Google Cloud were found; gcloud auth application-default login" in user.refused(path)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(user.home / "key.json"))
    assert "there is no such file" in user.refused(path)
    (user.home / "key.json").write_text('{"type": "service_account", "project_id": "another"}')
    code, out, _ = user.check(path)
    assert code == 0
    assert "of project another and not our-project" in out
    assert "Google is not asked" in out
    wrong = user.file("gcp", ("my-project", "our-project"), ("us-central1-a", "europe-west4-a"))
    assert "zone 'europe-west4-a' is not in region 'us-central1'" in user.refused(wrong)

    monkeypatch.setattr("siamray.launch.azure._packages", lambda *_: [])
    keys = ("~/.ssh/siamray_azure", "~/.ssh/id_ed25519"), ("~/.ssh/siamray_azure.pub", "~/.ssh/id_ed25519")
    path = user.file("azure", *[(f": {old}\n", f": {new}\n") for old, new in keys])
    assert "Ray logs in by Azure's az" in user.refused(path)
    user.program("az", "exit 0")
    assert "nobody has logged in to Azure here; az login" in user.refused(path)
    (user.home / ".azure").mkdir()
    entry = '{"id": "00000000-0000-0000-0000-000000000001", "name": "ours", "isDefault": true}'
    (user.home / ".azure" / "azureProfile.json").write_text(f'{{"subscriptions": [{entry}]}}')
    assert "add it (az account show --query id), or pip install azure-cli-core" in user.refused(path)
    named = ("  type: azure", "  type: azure\n  subscription_id: 00000000-0000-0000-0000-000000000001")
    path = user.file("azure", named, *[(f": {old}\n", f": {new}\n") for old, new in keys])
    code, out, _ = user.check(path)
    assert code == 0
    assert "Azure is not asked" in out


def test_files_as_they_are_shipped_are_valid(user: User) -> None:
    for name in RAY_UP:
        _, out, _ = user.check(FILES[name])
        assert "valid, by Ray's own schema and rules" in out
