"""The cells of a comparison as Ray tasks: the same bits as in turn."""

import pytest
from test_compare import Heard, asked, told
from tiny import replaced

from rl_gns.study.compare import Settings, compare

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]


def test_cells_on_ray_give_the_bits_of_cells_in_turn(tmp_path):
    what = asked("CartPole,Chain", seeds=1, initialisations=1)
    serial = compare(what, tmp_path / "serial", Settings(cells_at_once=1), Heard())
    on_ray = replaced(what, base=replaced(what.base, actors=1))
    remote = compare(on_ray, tmp_path / "remote", Settings(cells_at_once=2), Heard())
    assert [(row.game, row.stage) for row in serial.results] == [
        (game, stage) for game in ("CartPole", "Chain") for stage in (0, 512)
    ]
    assert remote.missing == {} and told(remote) == told(serial)
