"""The loops that touch Slurm (submit, reconcile, nodes), and the reading of spools.

``loops`` turns them. Each takes what is due from the database (by ``worklists``), asks or tells Slurm, and stores what
follows:

submit      ``submit``, by what ``outbox`` and ``brakes`` allow: ``preparing`` -> ``sending`` (``parallel``)
            -> ``answers`` -> ``storing``; of lost answers ``looking`` -> ``lost``; from a backup ``restored``
reconcile   ``wanted`` passes on what owners ask for; ``reconcile`` asks at the ``cadence`` about what ``watched``
            remembers: ``observe`` (with ``processes``, ``down``) says what that makes of a job
nodes       ``clusters.service`` asks for nodes and partitions
spools      ``ingest``
"""
