"""Measurements, each run as ``python -m benchmarks.NAME``: a table for people, ``--json`` for scripts."""
