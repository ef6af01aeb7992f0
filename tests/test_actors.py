"""Where the collectors live changes no bit: none, one and two Ray actors, on CartPole and on real Pong."""

import threading
import time

import pytest
from tiny import CARTPOLE, PONG, config, fingerprint, finished, numbers, replaced

from rl_gns.distributed import session, watch
from rl_gns.study.build import make_learner, object_store_bytes, source
from rl_gns.trainer import Trainer


@pytest.fixture(scope="module", autouse=True)
def ray_session():
    with session.start(2, object_store_bytes(config(PONG))) as started:
        yield started


def on_actors(settings, n_actors):
    from rl_gns.distributed.rollout_actors import RaySource

    source = RaySource(settings, n_actors)
    try:
        run = Trainer(settings, make_learner(settings), source)
        return run, list(run.run())
    finally:
        source.close()


@pytest.mark.parametrize(
    ("base", "waves"), [(CARTPOLE, 1), (CARTPOLE, 2), (PONG, 1)], ids=["cartpole", "waves", "pong"]
)
def test_none_one_and_two_actors_give_the_same_bits(base, waves):
    settings = config(base, {"rollout": {"waves": waves}})
    local, records = finished(settings)
    for n_actors in (1, 2):
        remote, again = on_actors(settings, n_actors)
        assert fingerprint(remote.learner) == fingerprint(local.learner)
        assert [numbers(r) for r in again] == [numbers(r) for r in records]
        assert again[-1].noise_control is not None, "the control channel came through the actors too"


def test_a_checkpoint_moves_between_hosts():
    """Saved on two actors, restored in this process, and the other way round: the bits of an unbroken run."""
    from rl_gns.distributed.rollout_actors import RaySource
    from rl_gns.rollout.sources import LocalSource

    settings = config(CARTPOLE)
    whole, _ = finished(settings)
    for first_source, second_source in (
        (lambda: RaySource(settings, 2), lambda: LocalSource(settings)),
        (lambda: LocalSource(settings), lambda: RaySource(settings, 2)),
    ):
        source = first_source()
        first = Trainer(settings, make_learner(settings), source)
        loop = first.run()
        next(loop), next(loop)
        state = first.state()
        source.close()
        source = second_source()
        second = Trainer(settings, make_learner(settings), source)
        second.restore(state)
        list(second.run())
        source.close()
        assert fingerprint(second.learner) == fingerprint(whole.learner)


def test_an_actors_error_reaches_the_driver_in_one_line():
    from rl_gns.distributed.rollout_actors import RaySource

    settings = config(CARTPOLE)
    source = RaySource(settings, 1)
    weights = make_learner(settings).weights()
    weights["policy_head.bias"] = weights["policy_head.bias"] * float("nan")
    source.publish(weights, 0)
    with pytest.raises(Exception) as caught:
        source.collect(4, 16)
    source.close()
    assert session.reason(caught.value).startswith("FloatingPointError: the policy's logits or values are not finite")


def test_actors_without_work_are_named_at_the_start(caplog):
    settings = config(CARTPOLE, {"rollout": {"columns_per_collector": 16}})

    def said():
        """By us: Ray tells of what earlier tests left unread when it comes to it."""
        return [record.getMessage() for record in caplog.records if record.name.startswith("rl_gns")]

    with source(replaced(settings, actors=1)):
        assert not said()
    with source(replaced(settings, actors=2)):
        assert said() == [
            "--actors: of 2 only 1 can work, since --batch.size 128 makes 1 collector of 16 columns; the nearest is 1, "
            "or a batch of 256"
        ]


def test_more_actors_than_cpus_go_on_with_those_that_fit(monkeypatch):
    from rl_gns.distributed.rollout_actors import RaySource

    settings = config(CARTPOLE)
    monkeypatch.setattr(watch, "UNPLACED_SECONDS", 120.0)
    local, _ = finished(settings)
    source = RaySource(settings, 3)
    places = list(source._crew._places)

    def hurry():  # once two have started, however busy this machine is
        while sum(place.ready is None for place in places) < 2:
            time.sleep(0.05)
        watch.UNPLACED_SECONDS = 2.0

    threading.Thread(target=hurry, daemon=True).start()
    run = Trainer(settings, make_learner(settings), source)
    records = list(run.run())
    source.close()
    (fault,) = records[0].faults
    assert fault.what == "not placed" and fault.generations == [0] and records[0].replaced_actors == 0
    assert len(source._crew._places) == 2 and fingerprint(run.learner) == fingerprint(local.learner)
