"""What ``benchmarks.exposed_communication`` is made of.

``cases`` are the fixed configurations, ``bound`` and ``figures`` are pure: the least communication that can be exposed,
and the rows. ``hosts`` makes two namespace hosts and drives the ranks, which run ``rank`` with its ``contenders``.
"""
