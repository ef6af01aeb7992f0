"""A sitting that another node of a named cluster computes, as events for the process that keeps the run directory."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rl_gns.config import RunConfig
from rl_gns.distributed import session
from rl_gns.distributed.tasks import Item, Lost
from rl_gns.records import Fault, UpdateRecord
from rl_gns.study.goals import Look
from rl_gns.study.sitting import Checkpoint, Event, Left, batches

if TYPE_CHECKING:
    from rl_gns.distributed import trainer_actor

Resume = Callable[[], tuple[dict[str, Any] | None, list[Look]]]
"""`Keeper.resume`: where a sitting begins; asked again where the trainer's process was lost."""


def on_the_cluster(config: RunConfig, resume: Resume, notice: Callable[[], bool] | None = None) -> Iterator[Event]:
    """Every event must be kept before the next is asked for; the notice ends it early. A trainer that was lost, or that
    left a node that is to go, is a fault of the first record after it, until a checkpoint holds that record."""
    notice = notice or (lambda: False)
    with session.start(0, 0):
        from rl_gns.distributed import trainer_actor

        wanted, tries = _wanted(config), _Tries()
        while tries.left:
            tries.left = False
            for told in trainer_actor.events(batches, lambda: (config, *resume()), wanted, notice):
                if isinstance(told, Item):
                    yield from (tries.kept(event) for event in told.value)
                elif isinstance(told, Lost):
                    _LOG.warning(
                        "the trainer's process was lost (%s); it goes on from the last checkpoint", told.reason
                    )
                    tries.left = False
                    tries.broke_off("trainer lost", f"the trainer: {told.reason}")
                else:
                    _LOG.warning("%s", told.words)
            tries.left = tries.left and not notice()


class _Tries:
    """What became of the trainers so far."""

    def __init__(self) -> None:
        self.left = True  # its node, by the last trainer, so another is to start; the first starts so too
        self._faults: list[Fault] = []
        self._untold: list[Fault] = []
        self._done = self._saved = 0  # env steps, of the last record and of the last checkpoint; 0 before the first

    def kept(self, event: Event) -> Event:
        """The event as it is to be kept."""
        self.left = isinstance(event, Left)
        if isinstance(event, UpdateRecord):
            self._done, self._saved = event.env_steps, self._saved or event.env_steps - event.used_env_steps
            if self._untold:
                event, self._untold = dataclasses.replace(event, faults=[*self._untold, *event.faults]), []
        elif isinstance(event, Checkpoint):
            self._faults, self._saved = list(self._untold), event.env_steps
        elif isinstance(event, Left):
            self.broke_off("draining", "the trainer: its node is being drained, and was left")
        return event

    def broke_off(self, what: str, reason: str) -> None:
        """The next one goes on from the last checkpoint; `events` starts it where this one was lost."""
        self._faults.append(Fault(what, [], [], reason, self._done - self._saved))
        self._done, self._untold = self._saved, list(self._faults)


def _wanted(config: RunConfig) -> trainer_actor.Wanted:
    """Of several learners each brings its own CPU and GPU."""
    from rl_gns.distributed import trainer_actor

    threads = config.learner.threads
    if config.learners == 1:
        return trainer_actor.Wanted(config.learner.device, threads, config.actor_cpus)
    return trainer_actor.Wanted("cpu", threads, config.actor_cpus + config.learners, learns=False)


_LOG = logging.getLogger(__name__)
