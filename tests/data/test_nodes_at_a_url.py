"""A store or results at a URL are tested from every node as a folder is."""

import pytest
from upath import UPath

from siamray import nodes
from siamray.errors import UserError


def test_a_place_at_a_url_is_marked_written_read_and_cleared(s3: UPath) -> None:
    with nodes._marked({"results": str(s3)}) as marks:
        folder, mark = marks["results"]
        looked = nodes._look("a-node", marks, gpus=False)
        assert looked["speeds"]["results"].trouble == ""
        assert min(looked["speeds"]["results"].write, looked["speeds"]["results"].read) > 0
        # Only folders of this machine have free space.
        assert not [place for place in looked["free_gb"] if "s3" in place]
        assert nodes._speed(UPath(folder), "another mark", "a-node").trouble == "unshared"
        s3.fs.rm_file(f"{UPath(folder).path}/driver")
        assert nodes._speed(UPath(folder), mark, "a-node").trouble == "unshared"
    s3.fs.invalidate_cache()
    assert s3.fs.find(s3.path) == []


def test_a_node_without_the_right_to_write_there_says_so(s3: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    with nodes._marked({"results": str(s3)}) as marks:
        folder, mark = marks["results"]

        def forbidden(*given: object, **more: object) -> None:
            raise PermissionError("AccessDenied")

        with monkeypatch.context() as patch:
            patch.setattr(UPath(folder).fs, "pipe_file", forbidden)
            assert "is forbidden; use credentials that may" in nodes._speed(UPath(folder), mark, "a-node").trouble


def test_a_driver_without_a_bucket_says_so_before_any_node_is_asked(s3: UPath) -> None:
    with (
        pytest.raises(UserError, match="lies in no bucket that exists"),
        nodes._marked({"store": "s3://nowhere/store"}),
    ):
        pass
