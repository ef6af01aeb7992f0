"""What McCandlish et al. (2018, arXiv 1812.06162) show for their seven Atari games, to stand beside ours.

Read off the appendix's figures of the Atari games (B_crit to each goal, and the noise scale, against the score) by
pixels on logarithmic axes, good to about 5 %. B_crit of Alien is the middle of 2,600 to 3,400, between which two of its
figures lie, and the two figures of Beam Rider imply B_crit that differ by 1.2 to 2.1. Goals are the first and the last
of each figure. The noise scale is smoothed there, by how much is not said, and is that of the whole loss or of a part
of it, which is not said either.
"""

from __future__ import annotations

from rl_gns.comparison import PaperValue

PROTOCOL = (
    "A2C on 84 x 84 with the Nature CNN, 5-step segments, 1 epoch, 1 minibatch, RMSProp at the best rate of a grid for "
    "each batch size, over a whole training, one seed; early is the lowest after the first scores, not a fresh policy; "
    "whether of the whole loss or of the policy part is not said"
)
SOURCE = "McCandlish et al. 2018, arXiv 1812.06162, appendix, figures of the Atari games; digitised, about 5 %"
VALUES = {
    # game: (noise scale early, at the end, B_crit at the first goal, at the last, first goal, last goal)
    "Alien": (1_100, 15_000, 111, 3_000, 250, 2_000),
    "BeamRider": (3_300, 28_000, 600, 3_700, 600, 7_500),
    "Breakout": (365, 20_000, 73, 5_000, 2, 600),
    "Pong": (500, 2_600, 250, 340, -19, 19),
    "Qbert": (2_500, 27_000, 234, 5_400, 300, 20_000),
    "Seaquest": (2_100, 7_000, 235, 1_230, 150, 1_750),
    "SpaceInvaders": (4_500, 34_000, 750, 8_300, 250, 70_000),
}
GAMES = tuple(VALUES)
"""The paper's seven."""


def paper_values(games: list[str]) -> list[PaperValue]:
    """Of those games that the paper has, in their order."""
    return [PaperValue(game, *map(float, VALUES[game]), PROTOCOL, SOURCE) for game in games if game in VALUES]
