"""Reviewing what a sweep left on disk: results in, pictures and pages out."""
