"""The parts of ``benchmarks.service``: one module a part, each with ``measure(form) -> Found``."""
