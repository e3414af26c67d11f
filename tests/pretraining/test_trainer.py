"""The same training runs on Ray Train workers, and they agree with one process about the labels."""

import dataclasses
import os
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ray.train import TrainingFailedError

from siamray.config import Config
from siamray.data.store import Store
from siamray.errors import UserError
from siamray.pretraining import encoder, trainer, worker_group
from siamray.pretraining.encoder import PairEncoder
from siamray.pretraining.loop import DivergedError
from siamray.pretraining.worker_group import WorkerGroup


def asking(config: Config, workers: int) -> Config:
    return dataclasses.replace(config, cluster=dataclasses.replace(config.cluster, workers=workers))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_two")
def test_one_process_and_two_workers_fit_the_same_mixture_to_the_same_distances(
    tiny_config: Config, tiny_store: Store, tmp_path: Path
) -> None:
    # Without training the weights are equal by construction, so that distances, mixtures and labels must be too.
    method = dataclasses.replace(tiny_config.pretraining, epochs=1, learning_rate=0.0, pairs_per_epoch=192)
    free = dataclasses.replace(method.mixture, minimum_separation=0.0, anchors="ends", anchor_pairs=48)
    method = dataclasses.replace(method, labels="mixture", mixture=free, warmup_epochs=0, weight_decay=0.0)
    config = dataclasses.replace(tiny_config, pretraining=method)
    trainer.pretrain(config, tiny_store, tmp_path / "alone")
    trainer.pretrain(asking(config, 2), tiny_store, tmp_path / "together")
    alone, together = (pd.read_parquet(tmp_path / name / "epochs.parquet") for name in ("alone", "together"))
    # The labels that trained epoch 1 come from the initial weights: their mean over all pairs must be the same.
    assert (alone.label_mean > 0).any()
    assert together.label_mean.tolist() == pytest.approx(alone.label_mean.tolist(), abs=1e-12)
    for name in ("sure_similar", "sure_different"):
        assert together[name].iloc[:2].tolist() == pytest.approx(alone[name].iloc[:2].tolist(), abs=1e-12)
    histograms = [pd.read_parquet(tmp_path / name / "distances.parquet") for name in ("alone", "together")]
    first, second = (table[table.epoch == 0] for table in histograms)
    # The counts are exact; the fit to them is, but for the order in which a processor adds.
    pd.testing.assert_frame_equal(first, second, rtol=0, atol=1e-12)
    assert encoder.load(tmp_path / "together" / "encoder").metadata["world_size"] == 2


def test_workers_that_can_never_be_placed_are_refused_before_anything_starts(tiny_config: Config) -> None:
    with pytest.raises(UserError, match=r"cluster\.workers=8 with cluster\.cpus=1 needs 8 CPUs, and there are 2"):
        trainer.check_placement(asking(tiny_config, 8).cluster, {"CPU": 2.0})
    with pytest.raises(UserError, match="GPU"):
        trainer.check_placement(dataclasses.replace(tiny_config.cluster, gpus=1.0), {"CPU": 2.0})


def training(config: Config, seed: int, workers: int = 1, failures: int = 2, **method: object) -> Config:
    """Three epochs, whose layers and masses draw random numbers."""
    cluster = dataclasses.replace(config.cluster, workers=workers, failures=failures)
    changed = dataclasses.replace(config.pretraining, **{"epochs": 3, **method})  # type: ignore[arg-type]
    return dataclasses.replace(config, seed=seed, pretraining=changed, cluster=cluster)


def left(folder: Path) -> tuple[bytes, pd.DataFrame, pd.DataFrame]:
    """What a training has found: the encoder's weights to the last bit, its epochs, its distances."""
    tables = (pd.read_parquet(folder / f"{name}.parquet") for name in ("epochs", "distances"))
    epochs, distances = tables
    return (folder / "encoder" / "model.safetensors").read_bytes(), epochs.drop(columns="seconds"), distances


def assert_same(one: Path, other: Path) -> None:
    (weights, *tables), (other_weights, *other_tables) = left(one), left(other)
    assert weights == other_weights
    for table, other_table in zip(tables, other_tables, strict=True):
        pd.testing.assert_frame_equal(table, other_table, check_exact=True)


@dataclasses.dataclass(frozen=True)
class Notes:
    """Writes down which process has trained which epoch, and kills it after some of them."""

    folder: str
    kills: tuple[int, ...] = ()

    def __call__(self, epoch: int, encoder: PairEncoder, folder: Path) -> bool:
        notes = Path(self.folder) / "notes"
        notes.mkdir(parents=True, exist_ok=True)
        before = len(list(notes.iterdir()))
        (notes / f"{before:03d} {epoch} {os.getpid()}").write_text(str(folder), encoding="utf-8")
        if before < len(self.kills) and self.kills[before] == epoch:
            os.kill(os.getpid(), signal.SIGKILL)
        return True

    def read(self) -> list[tuple[int, int]]:
        """Epochs done and process, in order."""
        names = sorted(path.name.split() for path in (Path(self.folder) / "notes").iterdir())
        return [(int(epoch), int(process)) for _, epoch, process in names]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_two")
def test_workers_that_have_trained_before_give_the_numbers_of_new_ones(
    tiny_config: Config, tiny_store: Store, tmp_path: Path
) -> None:
    wanted = training(tiny_config, 1)
    diverging = training(tiny_config, 2, learning_rate=1e30, schedule="constant")
    epochs: list[int] = []
    with closing(WorkerGroup()) as workers:
        notes = [Notes(str(tmp_path / name)) for name in ("new", "used")]
        trainer.pretrain(wanted, tiny_store, tmp_path / "new", examine=notes[0], workers=workers)
        trainer.finish(tmp_path / "new")
        with pytest.raises(DivergedError, match="no longer"):
            trainer.pretrain(diverging, tiny_store, tmp_path / "diverging", workers=workers)
        trainer.pretrain(
            wanted, tiny_store, tmp_path / "used", lambda record: epochs.append(record["epoch"]), notes[1], workers
        )
    processes = {process for note in notes for _, process in note.read()}
    assert len(processes) == 1
    assert os.getpid() not in processes
    assert epochs == [1, 2, 3]
    trainer.pretrain(dataclasses.replace(wanted, cluster=tiny_config.cluster), tiny_store, tmp_path / "in process")
    assert_same(tmp_path / "new", tmp_path / "used")
    assert_same(tmp_path / "in process", tmp_path / "used")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_two")
def test_a_worker_lost_in_a_later_training_is_replaced_and_goes_on_from_the_checkpoint(
    tiny_config: Config, tiny_store: Store, tmp_path: Path
) -> None:
    wanted = training(tiny_config, 1, failures=1)
    epochs: list[int] = []
    with closing(WorkerGroup()) as workers:
        trainer.pretrain(training(tiny_config, 2, failures=1), tiny_store, tmp_path / "before", workers=workers)
        trainer.finish(tmp_path / "before")
        lost = Notes(str(tmp_path / "lost"), kills=(0, 2))
        trainer.pretrain(
            wanted, tiny_store, tmp_path / "lost", lambda record: epochs.append(record["epoch"]), lost, workers
        )
        # Killed once more than its attempts: that training fails, and the next one gets new workers.
        again = Notes(str(tmp_path / "failing"), kills=(1, 1))
        with pytest.raises(TrainingFailedError):
            trainer.pretrain(wanted, tiny_store, tmp_path / "failing", examine=again, workers=workers)
        trainer.pretrain(wanted, tiny_store, tmp_path / "failing", examine=again, workers=workers)
    assert [epoch for epoch, _ in lost.read()] == [1, 2, 2]
    assert epochs == [1, 2, 3]
    assert len({process for _, process in lost.read()}) == 2
    trainer.pretrain(dataclasses.replace(wanted, cluster=tiny_config.cluster), tiny_store, tmp_path / "calm")
    for name in ("lost", "failing"):
        assert left(tmp_path / name)[1].equals(left(tmp_path / "calm")[1])


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_two")
def test_two_workers_train_on_after_a_training_that_diverged(
    tiny_config: Config, tiny_store: Store, tmp_path: Path
) -> None:
    wanted = training(tiny_config, 1, workers=2, failures=0, pairs_per_epoch=128)
    diverging = training(
        tiny_config, 2, workers=2, failures=0, pairs_per_epoch=128, learning_rate=1e30, schedule="constant"
    )
    with closing(WorkerGroup()) as workers:
        trainer.pretrain(wanted, tiny_store, tmp_path / "first", workers=workers)
        trainer.pretrain(wanted, tiny_store, tmp_path / "second", workers=workers)
        with pytest.raises(DivergedError, match="no longer"):
            trainer.pretrain(diverging, tiny_store, tmp_path / "diverging", workers=workers)
        # It has cost the workers their lives, and no attempt of the next one.
        trainer.pretrain(wanted, tiny_store, tmp_path / "third", workers=workers)
    for name in ("second", "third"):
        assert_same(tmp_path / "first", tmp_path / name)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs Linux: a name of each process's own folder")
@pytest.mark.usefixtures("ray_of_two")
def test_workers_without_a_common_disk_give_the_same_numbers_and_leave_all_with_their_process(
    tiny_config: Config, tiny_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = training(tiny_config, 1, workers=2, failures=1, pairs_per_epoch=128)
    here = tmp_path / "here"
    here.mkdir()
    seen: list[tuple[int, bool]] = []

    def report(record: dict[str, Any]) -> None:
        # What is sent elsewhere when an epoch has ended holds that epoch.
        epochs = pd.read_parquet(here / "run" / "epochs.parquet").epoch
        seen.append((record["epoch"], epochs.max() >= record["epoch"]))

    with closing(WorkerGroup()) as workers:
        trainer.pretrain(wanted, tiny_store, tmp_path / "common", workers=workers)
        # Its processes were started in another folder than the one that this name means here from now on.
        monkeypatch.chdir(here)
        lost = Notes(str(tmp_path / "notes"), kills=(0, 2))
        trainer.pretrain(wanted, tiny_store, Path("/proc/self/cwd/run"), report, lost, workers)
    assert [epoch for epoch, _ in lost.read()] == [1, 2, 2]
    assert seen == [(1, True), (2, True), (3, True)]
    assert_same(tmp_path / "common", here / "run")
    assert encoder.load(here / "run" / "encoder").metadata["world_size"] == 2
    trained_in = {path.read_text(encoding="utf-8") for path in (tmp_path / "notes" / "notes").iterdir()}
    # One before the loss and one after it, none of which was the folder that they had been told.
    assert len(trained_in) == 2
    assert all("siamray-run-" in folder for folder in trained_in)
    trainer.finish(here / "run")
    assert {path.name for path in (here / "run").iterdir()} == {"encoder", "epochs.parquet", "distances.parquet"}


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_two")
def test_workers_that_wait_in_vain_make_room_for_others(
    tiny_config: Config, tiny_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_group, "_IDLE_SECONDS", 1.0)
    wanted = training(tiny_config, 1, epochs=1)
    wanted = dataclasses.replace(wanted, cluster=dataclasses.replace(wanted.cluster, cpus=2))
    with closing(WorkerGroup()) as first, closing(WorkerGroup()) as second:
        # There is room for one of them: the other one would wait for ever.
        for number, workers in enumerate([first, second, first]):
            trainer.pretrain(wanted, tiny_store, tmp_path / str(number), workers=workers)
    assert_same(tmp_path / "0", tmp_path / "2")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_two")
def test_a_run_that_diverges_on_a_worker_ends_with_its_reason(
    tiny_config: Config, tiny_store: Store, tmp_path: Path
) -> None:
    method = dataclasses.replace(tiny_config.pretraining, learning_rate=1e30, schedule="constant")
    config = asking(dataclasses.replace(tiny_config, pretraining=method), 1)
    config = dataclasses.replace(config, cluster=dataclasses.replace(config.cluster, failures=0))
    with pytest.raises(DivergedError, match="no longer"):
        trainer.pretrain(config, tiny_store, tmp_path)
