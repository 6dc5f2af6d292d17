"""Checkpoints: saved whole or not at all, read as data and never as code, resumed bit by bit (docs/checkpoints.md)."""
