"""Configurations go in; comparable trials, and what their comparison says, come out."""
