"""The parts of ``benchmarks.saving``: what its ranks run, how they are started, and what their turns come to."""
