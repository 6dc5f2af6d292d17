"""``lockstep.DistributedOptimizer``: takes the place of ``hvd.DistributedOptimizer`` in one line.

The object is of a class made from the given optimizer's own, and shares its state and parameter groups, as Horovod's
does: schedulers, ``isinstance`` and checkpoints see the optimizer they know.
"""

from __future__ import annotations

import copy
import itertools
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim import optimizer as torch_optimizer

from lockstep_worker.gradients import arguments, deferral, endings, guards, plain
from lockstep_worker.gradients.broadcasting import OWN, by_itself
from lockstep_worker.gradients.buffers import size_of
from lockstep_worker.gradients.counters import Counters
from lockstep_worker.gradients.deferral import Deferral
from lockstep_worker.gradients.errors import GradientError
from lockstep_worker.gradients.named import describe, names_of
from lockstep_worker.gradients.pieces import HEADER
from lockstep_worker.gradients.recorded import of_another_run, plan_of
from lockstep_worker.gradients.reducer import Reducer
from lockstep_worker.gradients.transport import Transport, give_back, open_transport, transport_name

_numbers = itertools.count()


class DistributedOptimizer(Optimizer):
    """An optimizer whose gradients are averaged over all ranks before each of its updates.

    ``named_parameters``: names and parameters, as Horovod takes them; every parameter of the optimizer has to be
    among them, alike on all ranks. ``defer``: an update is done when its parameters are used next, see
    docs/gradients.md; ``deferred`` says whether it is so. ``piece_bytes``: bytes sent at once; ``credit``: pieces under
    way at once; None: found by measuring in the first steps. ``tuning``: what ``tuning`` was in an earlier run of the
    same model, itself or as JSON; used as it is, and nothing is measured. ``transport``: "horovod", "gloo", "tcp".
    ``max_grad_norm``: clips the averaged gradients by their global norm before each update. ``separable``: whether a
    parameter's update needs no other gradient, where the optimizer's class is not known.
    ``backward_passes_per_step``: as Horovod's; ``accumulate`` says it better. ``compression`` to ``process_set`` are
    Horovod's, by its names and places: what it does by default may be said.

    Raises ``GradientError`` for what cannot be exchanged or is not offered, in the constructor or the first step.
    """

    def __new__(cls, optimizer: Optimizer, *_arguments: object, **_named: object) -> DistributedOptimizer:  # noqa: PYI034 - of a class made here
        """An object of a class of its own, below both this one and the given optimizer's."""
        if isinstance(optimizer, DistributedOptimizer):
            raise GradientError("this optimizer is distributed already")
        base = type(optimizer)
        made: DistributedOptimizer = object.__new__(type(base.__name__, (cls, base), {"__module__": base.__module__}))
        return made

    def __init__(  # noqa: PLR0917 - Horovod's by their places
        self,
        optimizer: Optimizer,
        named_parameters: Iterable[tuple[str, Tensor]] | None = None,
        compression: object = None,
        backward_passes_per_step: int = 1,
        op: object = None,
        gradient_predivide_factor: float = 1.0,
        num_groups: int = 0,
        groups: object = None,
        sparse_as_dense: bool = False,  # noqa: FBT001, FBT002 - in Horovod's place
        process_set: object = None,
        *,
        defer: bool = True,
        piece_bytes: int | None = None,
        credit: int | None = None,
        tuning: Mapping[str, Any] | str | None = None,
        transport: str | Transport = "horovod",
        max_grad_norm: float | None = None,
        separable: bool | None = None,
    ) -> None:
        # A scheduler that was made before has put a ``step`` of the other object into its __dict__.
        self.__dict__.update({name: value for name, value in optimizer.__dict__.items() if name != "step"})
        arguments.check_passes(backward_passes_per_step)
        arguments.check(
            compression=compression,
            op=op,
            gradient_predivide_factor=gradient_predivide_factor,
            num_groups=num_groups,
            groups=groups,
            sparse_as_dense=sparse_as_dense,
            process_set=process_set,
        )
        if (credit is not None and credit < 1) or (piece_bytes is not None and piece_bytes < 2 * HEADER):
            raise GradientError(
                f"credit ({credit}) has to be at least 1, piece_bytes ({piece_bytes}) at least {2 * HEADER}"
            )
        named = names_of(self, named_parameters)
        recorded = None
        if tuning is not None:
            if piece_bytes is not None or credit is not None:
                raise GradientError("tuning has a piece size and a credit of its own; leave piece_bytes and credit out")
            names, parameters = [one for one, _ in named], [one for _, one in named]
            recorded = plan_of(tuning, describe(names, parameters), [size_of(one) for one in parameters])
        name = f"lockstep.{next(_numbers)}"
        carrier = open_transport(transport, name)
        kind = transport_name(carrier)
        if tuning is not None and (other := of_another_run(tuning, transport=kind, ranks=carrier.size)):
            recorded = None
            if carrier.rank == 0 and carrier.size > 1:
                print(f"lockstep: the tuning was made with {other}; it is measured anew", file=sys.stderr)
        against = "defer=False" if not defer else deferral.reason_against(optimizer, separable)
        if against is None and max_grad_norm is not None:
            against = "max_grad_norm needs every gradient before any update"
        if carrier.size == 1:
            against = "there is one rank"
        own = _Own(max_grad_norm, against, getattr(carrier, "carried_by", None))
        own.made = carrier if isinstance(transport, str) else None
        self.__dict__[OWN] = own
        if carrier.size > 1:
            own.reducer = Reducer(
                named,
                carrier,
                name=name,
                piece_bytes=piece_bytes,
                credit=credit,
                recorded=recorded,
                passes=backward_passes_per_step,
                defer=against is None,
                before_backward=own.complete,
            )
            own.counters = own.reducer.counters
            own.deferral = Deferral(own.reducer, self._update)
            endings.register(own)
            endings.wrap("horovod.torch", "broadcast_optimizer_state", by_itself)
            if defer and against is not None and carrier.rank == 0:
                print(
                    f"lockstep: updates are not deferred, their communication overlaps with the backward pass only: "
                    f"{against}", file=sys.stderr,
                )  # fmt: skip

    # -- what Horovod's has ------------------------------------------------------------------------------------------

    def synchronize(self) -> None:
        """Waits until all gradients of this step are averaged; then ``step()`` within ``skip_synchronize()``."""
        own = self._own
        own.complete()
        if own.reducer is not None:
            own.reducer.synchronize()
            own.reducer.catch_up(agreed=own.against is not None)
        own.synchronized = True

    @contextmanager
    def skip_synchronize(self) -> Iterator[None]:
        """Within it ``step()`` does not synchronize: that has been done, and the gradients used since."""
        own = self._own
        own.should_synchronize = False
        try:
            yield
        finally:
            own.should_synchronize = True

    def set_backward_passes_per_step(self, passes: int) -> None:
        """As Horovod's: so many backward passes come before a gradient is sent, from now on."""
        arguments.check_passes(passes)
        if self._own.reducer is not None:
            self._own.reducer.expect(passes)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401 - as torch's
        """One update from the averaged gradients, with the hyper-parameters of this moment.

        Deferred, it returns at once, and every parameter is updated when it is used next.
        """
        own = self._own
        if own.by_itself:
            return plain.plain_step(type(self), DistributedOptimizer)(self)
        if own.closed:
            raise GradientError(
                "the exchange was closed, by close() or with what carries it; no step is averaged any more"
            )
        own.complete()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if own.should_synchronize:
            if own.synchronized and own.reducer is not None:
                warnings.warn(
                    "optimizer.step() after optimizer.synchronize(), outside of optimizer.skip_synchronize(): the "
                    "gradients are averaged once more, to no effect but time",
                    stacklevel=2,
                )
            if self._can_defer():
                assert own.reducer is not None
                assert own.deferral is not None
                own.complete()  # a closure may have used what it left
                own.reducer.flush()
                if not own.reducer.late():
                    own.deferral.seal(self.param_groups)
                    own.synchronized = False
                    return loss
                self.synchronize()
            else:
                self.synchronize()
        own.synchronized = False
        began = time.perf_counter()
        if own.max_grad_norm is not None:
            # A GradScaler leaves it to a fused optimizer to divide by the scale, behind this.
            scale = float(getattr(self, "grad_scale", None) or 1.0)
            torch.nn.utils.clip_grad_norm_([one for group in self.param_groups for one in group["params"]],
                                           own.max_grad_norm * scale)  # fmt: skip
        super().step()
        own.counters.updating += time.perf_counter() - began
        if own.reducer is not None:
            own.reducer.watch_first_uses()
        return loss

    # Else torch would call the step's hooks around it once more.
    step.hooked = True  # type: ignore[attr-defined]

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 - as torch's
        """As torch's; what is on its way to a deferred update is not touched."""
        own = self._own
        with own.deferral.alone() if own.deferral is not None else nullcontext():
            if own.deferral is not None and own.deferral.pending:
                own.deferral.replace_gradient(by_zeros=not set_to_none)
            elif own.reducer is not None and own.reducer.begun:
                raise GradientError(
                    "zero_grad() between backward() and step() or synchronize(): the gradients are being exchanged"
                )
            with guards.untouched():
                super().zero_grad(set_to_none)

    # -- what Horovod's has not --------------------------------------------------------------------------------------

    @contextmanager
    def accumulate(self) -> Iterator[None]:
        """Backward passes within it add to the gradients of this rank; the one behind it sends what has added up."""
        reducer = self._own.reducer
        if reducer is None:
            yield
            return
        before, reducer.accumulating = reducer.accumulating, True
        try:
            yield
        finally:
            reducer.accumulating = before

    @property
    def deferred(self) -> bool:
        """Whether updates are deferred, once the first steps are measured."""
        return self._own.against is None

    @property
    def undeferred_because(self) -> str | None:
        """Why they are not."""
        return self._own.against

    @property
    def tuning(self) -> dict[str, Any] | None:
        """Piece size, credit, packing and order as chosen last, in plain values for a checkpoint.

        Alike on all ranks; a later run takes it as ``tuning=``. None until it is chosen, and of one rank.
        """
        reducer = self._own.reducer
        return None if reducer is None else copy.deepcopy(reducer.planner.document)

    def take_statistics(self) -> dict[str, Any]:
        """What the exchange cost this rank since the last call, as a record has it (docs/records.md); seconds, bytes.

        ``exposed_s``, ``waiting_s`` where it can be known, ``communication_s``, ``optimizer_s``, ``gradient_bytes``.
        """
        return self._own.counters.take()

    @property
    def seconds_inside(self) -> float:
        """Seconds since the start that this rank has waited for gradients or computed updates, wherever it did."""
        counters = self._own.counters
        return counters.waited + counters.updating

    def complete(self) -> None:
        """Does what is left of a deferred update: afterwards parameters and state are those of the last ``step()``."""
        self._own.complete()

    def close(self) -> None:
        """Completes, ends the exchange thread and takes the hooks from the parameters; the optimizer is done with."""
        self._own.close()

    # -- what has to complete first ----------------------------------------------------------------------------------

    @property
    def state(self) -> Any:  # noqa: ANN401 - as torch's
        """The state per parameter, complete."""
        own = self.__dict__.get(OWN)
        if own is not None and own.updating != threading.get_ident():
            own.complete()
        return self.__dict__["state"]

    @state.setter
    def state(self, state: Any) -> None:  # noqa: ANN401
        self.__dict__["state"] = state

    def state_dict(self) -> dict[str, Any]:
        """Complete."""
        self._own.complete()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What was sealed is done before, and then overwritten like the rest."""
        self._own.complete()
        super().load_state_dict(state_dict)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """On all ranks alike; they agree on a new plan at the next backward pass."""
        own = self._own
        own.complete()
        super().add_param_group(param_group)
        if own.reducer is not None:
            group = len(self.param_groups) - 1
            own.reducer.add(
                [(f"group.{group}.{place}", one) for place, one in enumerate(self.param_groups[-1]["params"])]
            )

    # -- inside ------------------------------------------------------------------------------------------------------

    @property
    def _own(self) -> _Own:
        own: _Own = self.__dict__[OWN]
        return own

    def _can_defer(self) -> bool:
        own = self._own
        return (
            own.against is None
            and own.reducer is not None
            and not own.reducer.measuring
            and not own.reducer.wants_new_plan
            # Hooks around step() want to see a step; a scaler hands its scale over in attributes for one call.
            and not self._optimizer_step_pre_hooks
            and not self._optimizer_step_post_hooks
            and not torch_optimizer._global_optimizer_pre_hooks  # noqa: SLF001 - no public way to ask
            and not torch_optimizer._global_optimizer_post_hooks  # noqa: SLF001
            and not hasattr(self, "grad_scale")
        )

    def _update(self, groups: list[dict[str, Any]]) -> None:
        """The mathematics of the given optimizer on these groups alone."""
        own = self._own
        own.updating = threading.get_ident()
        try:
            # Wherever in a forward pass a parameter was touched: an update is not computed as that pass is.
            with torch.inference_mode(mode=False), torch.autocast("cpu", enabled=False):
                plain.update(self, groups, plain.plain_step(type(self), DistributedOptimizer))
        finally:
            own.updating = None


class _Own:
    """What is ours in the optimizer, under one name of its ``__dict__``."""

    def __init__(self, max_grad_norm: float | None, against: str | None, carried_by: str | None) -> None:
        self.max_grad_norm = max_grad_norm
        self.against = against
        self.carried_by = carried_by
        self.counters = Counters()
        self.reducer: Reducer | None = None
        self.deferral: Deferral | None = None
        self.synchronized = False
        self.should_synchronize = True
        self.updating: int | None = None
        """The thread that computes an update."""
        self.made: Transport | None = None
        """What carries it, where that is nobody else's."""
        self.by_itself = False
        """Whether ``step()`` is this rank's own, for the time being."""
        self.closed = False

    def complete(self, seconds: float | None = None) -> None:
        if self.deferral is not None:
            self.deferral.complete(seconds)

    def close(self, seconds: float = endings.AT_EXIT) -> None:
        try:
            self.complete(seconds)
        finally:
            if self.reducer is not None and self.deferral is not None:
                self.deferral.abandon()
                is_idle = not self.reducer.begun
                if self.reducer.close(seconds) and is_idle and self.made is not None:
                    give_back(self.made)
                self.reducer = self.deferral = None
                self.closed = True
