"""The fault harness: many submissions to a service and a Slurm that are killed, stopped and starved, then counted.

``make faults`` runs the full form, tests/end_to_end/test_faults.py the short one; docs/reliability.md has the figures.
"""
