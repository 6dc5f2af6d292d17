"""The gradient exchange: averaged gradients in one agreed order, overlapped with backward and the next forward pass.

``pieces`` and ``order`` are pure: what is sent together, and what is sent first. ``plan`` is what the ranks agree on.
``transport`` carries one piece, ``exchange`` is the thread that issues them, ``reducer`` makes averaged gradients of
the ranks' own, ``deferral`` and ``guards`` let an update wait until its parameter is used, ``optimizer`` is the face.
"""
