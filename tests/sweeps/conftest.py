"""Tests of results at a URL share the S3 server of those of stores."""

from tests.data.conftest import s3, server

__all__ = ["s3", "server"]
