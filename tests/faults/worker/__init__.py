"""The worker's kill matrix: one fault at a time to a running training of two nodes, and what was left of it.

``make faults-worker`` runs it, tests/end_to_end/test_kill_matrix.py two of its rows; docs/reliability.md has the table.
"""
