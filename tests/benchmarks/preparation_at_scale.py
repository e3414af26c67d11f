"""A number of images goes in; how long preparing a folder of so many takes, and how much memory, comes out, as a table.

Run: python -m tests.benchmarks.preparation_at_scale 500 2000 8000. The images are small, so that what is measured is
what siamray does about each of them: tables, tasks, files. All go through Ray, on all processors.
"""

import argparse
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from siamray.compose import compose
from siamray.data.preparation import prepare

# Different pictures; every image is a hard link to one of them under a name of its own.
PICTURES = 8
SAMPLE_SECONDS = 0.2
MEGABYTE = 2**20


def film(seed: int, mirrored: bool) -> npt.NDArray[np.uint8]:
    """A half ellipse of tissue of 96 x 80 pixels, its chest wall at the left or, mirrored, at the right."""
    rows, cols = np.mgrid[:96, :80]
    generator = np.random.default_rng(seed)
    low, high = generator.uniform(0.95, 1.05, 2)
    inside = ((rows - 47) / (38 * low)) ** 2 + (cols / (48 * high)) ** 2 < 1
    pixels = np.where(inside, 0.5 + 0.1 * np.sin(rows / 8) * np.cos(cols / 10), 0.03)
    pixels += 0.004 * generator.standard_normal(pixels.shape)
    pixels = pixels[:, ::-1] if mirrored else pixels
    return np.asarray(np.clip(pixels, 0, 1) * 255, dtype=np.uint8)


def write_folder(root: Path, images: int) -> None:
    """Writes exams.csv and its images: two sides and two views of each woman."""
    pictures = root / "pictures"
    pictures.mkdir(parents=True)
    for number in range(PICTURES):
        for side in "LR":
            Image.fromarray(film(number, side == "R")).save(pictures / f"{number}{side}.png")
    rows = []
    for woman in range(-(-images // 4)):
        folder = root / f"{woman // 1000:03d}"
        folder.mkdir(exist_ok=True)
        for view in ("CC", "MLO"):
            for side in "LR":
                name = f"w{woman:06d}_{side}_{view}"
                (folder / f"{name}.png").hardlink_to(pictures / f"{woman % PICTURES}{side}.png")
                path = f"{folder.name}/{name}.png"
                rows.append((f"w{woman:06d}", name, side, view, path, 2.0, 1 + woman % 5, "ABCD"[woman % 4]))
    shutil.rmtree(pictures)
    columns = ["woman_id", "image_id", "laterality", "view", "path", "spacing_mm", "birads", "density"]
    pd.DataFrame(rows[:images], columns=columns).to_csv(root / "exams.csv", index=False)


@contextmanager
def sampled(peaks: dict[str, float]) -> Iterator[None]:
    """Notes the most memory, in MB, that this process and any of Ray's workers of it hold while the block runs."""
    # Importing ray makes the copy of psutil that it brings along importable.
    import ray  # noqa: F401
    import psutil  # isort: skip

    me, over = psutil.Process(), threading.Event()

    def watch() -> None:
        while not over.wait(SAMPLE_SECONDS):
            peaks["driver"] = max(peaks.get("driver", 0), me.memory_info().rss / MEGABYTE)
            for child in me.children(recursive=True):
                try:
                    if "_attempt" in " ".join(child.cmdline()):
                        peaks["worker"] = max(peaks.get("worker", 0), child.memory_info().rss / MEGABYTE)
                except psutil.Error:
                    continue

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def measure(images: int, place: Path) -> str:
    """Prepares so many images and returns a row of the table."""
    root, folder = place / f"data-{images}", place / f"store-{images}"
    write_folder(root, images)
    config = compose("prepare", ["data=folder", f"data.root={root}", f"store={folder}", "preparation.spacing_mm=2"])
    peaks: dict[str, float] = {}
    with sampled(peaks):
        start = time.perf_counter()
        store = prepare(config, progress=False)
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        prepare(config, progress=False)
        again = time.perf_counter() - start
    size = (folder / "manifest.parquet").stat().st_size
    used = int(store.manifest["used"].sum())
    figures = [
        f"{images}",
        f"{seconds:.1f}",
        f"{images / seconds:.0f}",
        f"{1000 * seconds / images:.1f}",
        f"{again:.2f}",
    ]
    figures += [f"{peaks.get(name, 0):.0f}" for name in ("driver", "worker")]
    figures += [f"{len(store.manifest)} ({used} used)", f"{size}"]
    shutil.rmtree(root)
    shutil.rmtree(folder)
    return "| " + " | ".join(figures) + " |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="time and memory of preparing many images")
    parser.add_argument("images", type=int, nargs="+", help="numbers of images")
    words = parser.parse_args()
    heads = [
        "images",
        "s",
        "images/s",
        "ms an image",
        "s once more",
        "driver MB",
        "worker MB",
        "manifest rows",
        "bytes",
    ]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    with tempfile.TemporaryDirectory() as place:
        for images in words.images:
            print(measure(images, Path(place)), flush=True)


if __name__ == "__main__":
    main()
