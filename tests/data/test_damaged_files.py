"""Each damaged or odd file ends as a short reason, or as the right pixels where it is fine; none as wrong pixels."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siamray.data.dicom import ImageError, read_header, read_image
from tests.data.damaged_files import SYNTAXES, cases, encoded, plain, stream_of, write_cases
from tests.data.damaged_pictures import RIGHT, Case
from tests.data.dicom_files import SECRETS

CASES = cases()
# Reads every file in one process; what it printed, how it ended and how much memory it took is looked at.
BATCH = """
import json, resource, sys
from pathlib import Path
import numpy as np
from siamray.data.dicom import ImageError, read_header, read_image

limit = 6 * 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
found = {}
for name in json.load(sys.stdin):
    path = Path(sys.argv[1]) / name
    for read in (read_header, read_image):
        try:
            got = read(path)
            found.setdefault(name, []).append(["read", ""])
        except ImageError as error:
            found.setdefault(name, []).append(["left out", str(error)])
# Not ru_maxrss: that is inherited from the process that started this one.
peak = [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(json.dumps({"found": found, "peak": max(peak)}))
"""


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_damaged_file_is_a_reason_and_an_odd_one_its_pixels(tmp_path: Path, case: Case) -> None:
    path = tmp_path / case.name
    case.write(path)
    if case.reason is None:
        np.testing.assert_allclose(read_image(path).pixels, case.pixels, atol=1e-6)
        return
    with pytest.raises(ImageError, match=case.reason) as found:
        read_image(path)
    text = str(found.value)
    assert 0 < len(text) < 200
    assert "\n" not in text
    assert str(tmp_path) not in text
    assert not any(secret in text for secret in SECRETS.values())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_header_leaves_out_only_what_reading_leaves_out(tmp_path: Path, case: Case) -> None:
    path = tmp_path / case.name
    case.write(path)
    try:
        reason = read_header(path).reason
    except ImageError as error:
        reason = str(error)
    if case.reason is None:
        assert reason is None
    elif reason is not None:
        assert 0 < len(reason) < 200
        assert not any(secret in reason for secret in SECRETS.values())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux: /proc says how much memory was taken")
def test_all_of_them_are_read_in_one_process_in_little_memory_and_silence(tmp_path: Path) -> None:
    written = write_cases(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", BATCH, str(tmp_path)],
        input=json.dumps([path.name for path in written]),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    result = json.loads(done.stdout)
    assert result["peak"] < 1_000_000, "kilobytes"
    # gdcm's JPEG library reports on stderr, in words of its own.
    assert not any(secret in done.stderr for secret in SECRETS.values())
    assert "Traceback" not in done.stderr
    for path, case in written.items():
        outcome, reason = result["found"][path.name][1]
        assert (outcome == "read") == (case.reason is None), (path.name, reason)


@pytest.mark.parametrize("name", [*SYNTAXES, "uncompressed"])
def test_any_damage_to_any_encoding_is_a_reason_or_an_image_of_the_right_size(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    whole = plain() if name == "uncompressed" else encoded(SYNTAXES[name], stream_of(SYNTAXES[name]))
    path = tmp_path_factory.mktemp("damaged") / "image.dcm"

    @given(cut=st.floats(0.2, 1), flips=st.lists(st.tuples(st.floats(0, 0.9999), st.integers(0, 7)), max_size=8))
    def check(cut: float, flips: list[tuple[float, int]]) -> None:
        damaged = bytearray(whole)
        for place, bit in flips:
            damaged[132 + int(place * (len(damaged) - 132))] ^= 1 << bit
        path.write_bytes(damaged[: len(damaged) if cut > 0.6 else int(cut * len(damaged))])
        try:
            pixels = read_image(path).pixels
        except ImageError as error:
            reason = str(error)
        else:
            reason = "read"
            assert np.isfinite(pixels).all()
            assert 0 <= pixels.min() < pixels.max() <= 1
            # A flipped bit of Rows or Columns may still fit the bytes of an image that is not compressed.
            assert name == "uncompressed" or pixels.shape == RIGHT.shape
        assert 0 < len(reason) < 200
        assert not any(secret in reason for secret in SECRETS.values())

    check()
