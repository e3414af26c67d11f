"""Encoders: seeds, exports that timm reads alone, folders of other origin, and what is wrong with bad ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from siamray.config import EncoderConfig
from siamray.errors import UserError
from siamray.pretraining.encoder import build, export, load

SMALL = EncoderConfig(projector_hidden=16, projector_features=8)
FACTS = {"patch_pixels": 48, "spacing_mm": 0.4, "normalization": "image", "epochs": 3}


def patches(count: int = 3, side: int = 48) -> torch.Tensor:
    return torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(9))


def same_state(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "encoder"
    encoder = build(SMALL, 3, 48)
    with torch.no_grad():
        # Batch norm statistics other than their start, so that they are seen to travel too.
        encoder(2 * patches(8) + 1)
    export(encoder, folder, FACTS)
    return folder, encoder.eval()


def test_same_seed_same_weights_other_seed_others():
    assert same_state(build(SMALL, 1), build(SMALL, 1))
    first, second = build(SMALL, 1), build(SMALL, 2)
    assert not torch.equal(first.trunk.conv1[0].weight, second.trunk.conv1[0].weight)
    assert not torch.equal(first.projector[0].weight, second.projector[0].weight)


def test_building_and_loading_leave_the_global_random_state_alone(exported):
    before = torch.get_rng_state()
    build(SMALL, 5)
    load(exported[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_do_not_depend_on_the_global_random_state():
    first = build(SMALL, 1)
    torch.manual_seed(123)
    assert same_state(first, build(SMALL, 1))


def test_forward_gives_features_and_embeddings():
    encoder = build(SMALL, 0)
    features, embedding = encoder(patches())
    assert features.shape == (3, encoder.features) == (3, 512)
    assert embedding.shape == (3, 8)


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "convnext_atto", "vit_tiny_patch16_224"])
def test_backbones_of_other_families_survive_the_way_to_disk_and_back(backbone, tmp_path):
    encoder = build(EncoderConfig(backbone=backbone, projector_hidden=16, projector_features=8), 0, 48).eval()
    export(encoder, tmp_path / "encoder", FACTS)
    loaded = load(tmp_path / "encoder")
    alone = timm.create_model(f"local-dir:{tmp_path / 'encoder'}", pretrained=True, in_chans=1, num_classes=0).eval()
    with torch.no_grad():
        features, embedding = encoder(patches())
        assert features.shape == (3, encoder.features)
        assert torch.equal(loaded(patches())[0], features)
        assert torch.equal(loaded(patches())[1], embedding)
        assert torch.equal(alone(patches()), features)


def test_an_unknown_backbone_names_the_nearest():
    with pytest.raises(UserError, match="resnet10t") as raised:
        build(EncoderConfig(backbone="resnet10tt"), 0)
    assert "\n" not in str(raised.value)


def test_an_unknown_weight_tag_names_the_nearest():
    with pytest.raises(UserError, match=r"resnet18\.a1_in1k"):
        build(EncoderConfig(backbone="resnet18.a1_in1kk"), 0)


@pytest.mark.parametrize("backbone", ["hf-hub:timm/resnet10t.c3_in1k", "local-dir:/tmp"])
def test_a_backbone_from_elsewhere_is_no_backbone_name(backbone):
    with pytest.raises(UserError, match="not a timm model"):
        build(EncoderConfig(backbone=backbone), 0)


def test_a_backbone_that_cannot_take_the_patches_says_so():
    with pytest.raises(UserError, match=r"backbone=levit_128s .*50 pixels"):
        build(EncoderConfig(backbone="levit_128s"), 0, 50)


def test_imagenet_weights_that_cannot_be_had_end_in_one_line(monkeypatch):
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match=r"encoder\.weights=random") as raised:
        build(EncoderConfig(weights="imagenet"), 0)
    assert "\n" not in str(raised.value)


def test_imagenet_weights_are_asked_for_one_grey_channel(monkeypatch):
    asked = {}
    real = timm.create_model

    def recording(name: str, pretrained: bool = False, **arguments: object) -> torch.nn.Module:
        asked.update(arguments, pretrained=pretrained)
        return real(name, pretrained=False, **arguments)

    monkeypatch.setattr(timm, "create_model", recording)
    build(EncoderConfig(weights="imagenet"), 0)
    assert asked == {"pretrained": True, "in_chans": 1, "num_classes": 0, "global_pool": "avg"}


def test_an_export_comes_back_exactly(exported):
    folder, encoder = exported
    loaded = load(folder)
    assert not loaded.training
    assert same_state(loaded.trunk, encoder.trunk)
    assert same_state(loaded.projector, encoder.projector)
    with torch.no_grad():
        for ours, theirs in zip(encoder(patches()), loaded(patches()), strict=True):
            assert torch.equal(ours, theirs)


def test_timm_loads_an_export_without_siamray(exported, tmp_path):
    folder, encoder = exported
    save_file({"patches": patches()}, tmp_path / "in.safetensors")
    script = f"""
import sys, timm, torch
from safetensors.torch import load_file, save_file
patches, found = load_file(r"{tmp_path}/in.safetensors")["patches"], {{}}
for name, arguments in {{"asked": dict(in_chans=1, num_classes=0), "as_it_is": dict()}}.items():
    with torch.no_grad():
        found[name] = timm.create_model("local-dir:{folder}", pretrained=True, **arguments).eval()(patches)
assert not any(name.split(".")[0] == "siamray" for name in sys.modules)
save_file(found, r"{tmp_path}/out.safetensors")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = encoder(patches())[0]
    found = load_file(tmp_path / "out.safetensors")
    assert set(found) == {"asked", "as_it_is"}
    for features in found.values():
        torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6)


def test_an_export_carries_its_facts(exported):
    facts = json.loads((exported[0] / "siamray.json").read_text())
    assert FACTS.items() <= facts.items()
    assert facts["backbone"] == "resnet10t"
    assert facts["seed"] == 3
    assert facts["features"] == 512
    assert facts["siamray"]
    assert load(exported[0]).metadata == facts


def test_an_export_is_readable_by_whoever_may_read_its_folder(exported):
    modes = {path.stat().st_mode & 0o777 for path in exported[0].rglob("*") if path.is_file()}
    umask = os.umask(0)
    os.umask(umask)
    assert modes == {0o666 & ~umask}


def test_channels_last_weights_are_exported_alike(exported, tmp_path):
    folder, encoder = exported
    export(load(folder).to(memory_format=torch.channels_last), tmp_path / "encoder", {})
    assert same_state(load(tmp_path / "encoder").trunk, encoder.trunk)


def test_an_export_replaces_an_older_one_and_leaves_nothing_beside_it(exported, tmp_path):
    for seed in (0, 1):
        export(build(SMALL, seed), tmp_path / "encoder", {})
    assert load(tmp_path / "encoder").metadata["seed"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]


def test_an_export_that_fails_leaves_the_older_one_whole(tmp_path, monkeypatch):
    export(build(SMALL, 0), tmp_path / "encoder", {})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="full disk"):
        export(build(SMALL, 1), tmp_path / "encoder", {})
    assert load(tmp_path / "encoder").metadata["seed"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]


def test_an_export_never_replaces_a_folder_of_something_else(tmp_path):
    (tmp_path / "thesis.txt").write_text("five years of work")
    with pytest.raises(UserError, match="something else"):
        export(build(SMALL, 0), tmp_path, {})
    assert (tmp_path / "thesis.txt").exists()


def plain_folder(folder: Path, channels: int, legacy: bool) -> torch.nn.Module:
    """A classifier as timm's own tools write it, of the given input channels."""
    torch.manual_seed(channels)
    model = timm.create_model("resnet10t", in_chans=channels, num_classes=5).eval()
    cfg = {"input_size": [channels, 64, 64], "num_classes": 5, "first_conv": "conv1.0", "classifier": "fc"}
    config = {"architecture": "resnet10t", **cfg} if legacy else {"architecture": "resnet10t", "pretrained_cfg": cfg}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "model.safetensors")
    return model


@pytest.mark.parametrize("legacy", [False, True], ids=["current", "legacy"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_plain_timm_folder_sees_the_grey_patch_in_every_channel(tmp_path, channels, legacy):
    model = plain_folder(tmp_path / "plain", channels, legacy)
    loaded = load(tmp_path / "plain")
    with torch.no_grad():
        features, embedding = loaded(patches())
        expected = model.forward_head(model.forward_features(patches().repeat(1, channels, 1, 1)), pre_logits=True)
    assert torch.equal(features, expected)
    assert loaded.projector is None
    assert torch.allclose(embedding, features / features.norm(dim=1, keepdim=True))


def test_a_run_starts_from_a_folder_with_its_trunk_and_projectors_of_its_own(exported):
    first, second = (build(EncoderConfig(folder=str(exported[0])), seed, 48) for seed in (0, 1))
    assert same_state(first.trunk, exported[1].trunk)
    assert same_state(second.trunk, exported[1].trunk)
    assert not torch.equal(first.projector[0].weight, second.projector[0].weight)
    assert first.training
    assert first(patches())[1].shape == (3, 64)


def test_a_three_channel_start_is_exported_with_its_channels(tmp_path):
    plain_folder(tmp_path / "plain", 3, legacy=False)
    encoder = build(EncoderConfig(folder=str(tmp_path / "plain")), 0).eval()
    export(encoder, tmp_path / "encoder", {})
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "encoder")(patches())[1], encoder(patches())[1])
        grey = timm.create_model(f"local-dir:{tmp_path / 'encoder'}", pretrained=True, in_chans=1, num_classes=0).eval()
        torch.testing.assert_close(grey(patches()), encoder(patches())[0], rtol=1e-4, atol=1e-5)


def spoil(folder: Path, how: str) -> None:
    if how == "truncated weights":
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    elif how == "no weights":
        (folder / "model.safetensors").unlink()
    elif how == "no projector":
        (folder / "projector" / "projector.safetensors").unlink()
    elif how == "no config":
        (folder / "config.json").unlink()
    elif how == "broken config":
        (folder / "config.json").write_text("{")
    elif how == "list config":
        (folder / "config.json").write_text("[]")
    elif how == "broken metadata":
        (folder / "siamray.json").write_text("?")
    elif how == "unknown architecture":
        (folder / "config.json").write_text(json.dumps({"architecture": "resnet10x", "pretrained_cfg": {}}))
    elif how == "other weights":
        save_file({"something": torch.zeros(2)}, folder / "model.safetensors")


@pytest.mark.parametrize(
    "how",
    [
        "truncated weights",
        "no weights",
        "no projector",
        "no config",
        "broken config",
        "list config",
        "broken metadata",
        "unknown architecture",
        "other weights",
    ],
)
def test_a_spoilt_folder_is_named_in_one_line(tmp_path, how):
    export(build(SMALL, 0), tmp_path / "encoder", FACTS)
    spoil(tmp_path / "encoder", how)
    with pytest.raises(UserError) as raised:
        load(tmp_path / "encoder")
    assert str(tmp_path / "encoder") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_weights_of_another_model_are_refused_even_where_timm_would_skip_them(tmp_path):
    plain_folder(tmp_path / "plain", 1, legacy=False)
    spoil(tmp_path / "plain", "other weights")
    with pytest.raises(UserError, match="lacks"):
        load(tmp_path / "plain")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path / "nowhere")


class Trap:
    """Pickled, it would write a file when it is read carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_folder_is_executed(tmp_path):
    plain_folder(tmp_path / "plain", 1, legacy=False)
    (tmp_path / "plain" / "model.safetensors").unlink()
    torch.save({"state_dict": Trap(tmp_path / "sprung")}, tmp_path / "plain" / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be loaded"):
        load(tmp_path / "plain")
    assert not (tmp_path / "sprung").exists()
