"""The Atari protocol as plain settings. Standard library only, so that a command line may import it for free."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AtariOptions:
    """How an Atari game is presented to the agent; the vector worlds ignore all of it.

    An *emulator frame* is 1/60 s of the console; an *env step* is one agent decision, `frameskip` frames.
    """

    frame_size: int = 84
    """Height and width of one grey frame, pixels."""
    frame_stack: int = 4
    """Newest frames in one observation, frames (one an env step); zero-padded after a reset."""
    frameskip: int = 4
    """Emulator frames per env step; the observation is the maximum of the last two."""
    sticky_action_probability: float = 0.0
    """Probability, at each emulator frame, that the previous action is repeated instead."""
    life_loss_terminal: bool = False
    """Report a lost life as `terminated`; the game goes on and the next env step is a real one."""
    noop_max: int = 30
    """A reset plays U{0 .. noop_max - 1} no-op emulator frames (one fewer after the FIRE); 0 or 1 for none."""
    fire_reset: bool = True
    """Press FIRE for one emulator frame at a reset, in games that have it."""
    full_action_space: bool = False
    """All 18 joystick actions instead of the game's own minimal set."""
    max_episode_frames: int = 108_000
    """Time limit in emulator frames, counted from the end of the reset's own frames; a multiple of `frameskip`."""
    clip_rewards: bool = True
    """Clip the learner's reward to [-1, 1] points per env step; the raw reward is always reported as well."""

    def __post_init__(self) -> None:
        for name, least in (("frame_size", 1), ("frame_stack", 1), ("frameskip", 1), ("noop_max", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0.0 <= self.sticky_action_probability < 1.0:
            raise ValueError(f"sticky_action_probability must be in [0, 1), got {self.sticky_action_probability}")
        if self.max_episode_frames < self.frameskip or self.max_episode_frames % self.frameskip:
            raise ValueError(
                f"max_episode_frames must be a positive multiple of frameskip {self.frameskip}, "
                f"got {self.max_episode_frames}"
            )
