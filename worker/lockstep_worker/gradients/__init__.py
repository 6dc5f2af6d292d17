"""The gradient exchange: averaged gradients in one agreed order, overlapped with backward and the next forward pass.

``optimizer`` is the face; ``arguments`` is what it takes of Horovod's, ``broadcasting`` Horovod's broadcast of its
state, ``errors`` what can be wrong. ``reducer`` makes averaged gradients of the ranks' own, in the memory of
``buffers``; ``exchange`` is the thread that issues pieces, ``counters`` what they cost. ``transport`` carries one
piece, over Horovod, Gloo or ``tcp``, whose ``connections`` are our own; ``isolation`` measures what it takes alone.

``deferral`` lets an update wait until its parameter is used, of which ``guards`` tell by the tensor, and ``entry`` by
the module that is called; ``plain`` does the given optimizer's own mathematics, on some of its groups; ``endings``
completes it before an exchange is ended from outside.

``plan`` is what the ranks agree on, of parameters that they have ``named`` alike. ``planning`` says which plan a step
has, ``timing`` what the first steps took; ``recorded`` is what was chosen, as a document. Pure are ``pieces`` (what is
sent together), ``order`` (what is sent first), ``link`` (what a piece takes on it), ``tuning`` (which plans are worth a
try), ``trials`` (which of them is kept) and ``drift`` (whether steps are still what they were then).
"""
