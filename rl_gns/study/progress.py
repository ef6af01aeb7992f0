"""Where a run stands, in numbers and in words, from its records: what the live view and `status` say."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

from rl_gns.control_channel import trip_words, tripped

RATE_SECONDS = 60.0
"""Rates are over the newest records that cover so much of the run's own time (a choice)."""

FAULTS = {
    "skipped_steps": "optimizer steps skipped",
    "replaced_actors": "actors replaced",
    "refused_blocks": "blocks refused",
}
"""Field of a record -> what is said of it. Older records have fewer of them."""
SO_FAR = ("skipped_steps",)
"""Those that a record counts from the run's beginning; it holds the others of its own rollout alone."""


class Progress:
    """A run that ends at `total_env_steps`; `add` takes its records as dicts, oldest first, from any one on."""

    def __init__(self, total_env_steps: int):
        self.total_env_steps = total_env_steps
        self.last: dict[str, Any] | None = None
        self.noise: dict[str, Any] | None = None
        """The newest noise scale of the policy part."""
        self.trip: dict[str, Any] | None = None
        """The newest record seen whose control channel did not read the truth."""
        self.batch_change: tuple[int, int] | None = None
        """(batch size before, env steps when it changed) of the newest change seen."""
        self.since_env_steps: int | None = None
        """Env steps before the first record seen; 0: the whole run was seen. None before the first record."""
        self._summed: Counter[str] = Counter()
        self._recent: deque[tuple[int, float]] = deque()

    def add(self, record: dict[str, Any]) -> None:
        """KeyError where it is no record of a rollout."""
        if self.last and record["batch_size"] != self.last["batch_size"]:
            self.batch_change = self.last["batch_size"], self.last["env_steps"]
        if record["noise"]:
            self.noise = record["noise"]["policy"]
        if tripped(record):
            self.trip = record
        if self.since_env_steps is None:
            self.since_env_steps = record["env_steps"] - record["used_env_steps"]
        self._summed.update({name: record.get(name, 0) for name in FAULTS if name not in SO_FAR})
        self._recent.append((record["used_env_steps"], record["seconds"]))
        while self.seconds_covered() - self._recent[0][1] >= RATE_SECONDS:
            self._recent.popleft()
        self.last = record

    def seconds_covered(self) -> float:
        """The time that the rate is over: 60 s or little more, less where fewer records were seen."""
        return sum(seconds for _, seconds in self._recent)

    def env_steps_per_second(self) -> float | None:
        """Sum of used_env_steps / sum of seconds, evaluations left out; None before the first record."""
        covered = self.seconds_covered()
        return sum(steps for steps, _ in self._recent) / covered if covered > 0 else None

    def seconds_left(self) -> float | None:
        """To the end of the budget at that rate; None while there is no rate."""
        rate = self.env_steps_per_second()
        return max(0, self.total_env_steps - self.env_steps) / rate if rate else None

    @property
    def env_steps(self) -> int:
        return self.last["env_steps"] if self.last else 0

    @property
    def share(self) -> float:
        """Fraction of the budget that is spent, at most 1."""
        return min(1.0, self.env_steps / self.total_env_steps)

    def faults(self) -> dict[str, int]:
        """Field -> count, of those that happened: SO_FAR in the whole run, the others since `since_env_steps`."""
        counts = {**self._summed, **{name: self.last.get(name) for name in SO_FAR if self.last}}
        return {name: counts[name] for name in FAULTS if counts.get(name)}

    def fault_words(self) -> str:
        """`1 optimizer steps skipped, 2 actors replaced since env step 12,000`; empty where nothing happened."""
        since = f" since env step {self.since_env_steps:,}" if self.since_env_steps else ""
        counts = self.faults().items()
        return ", ".join(f"{n:,} {FAULTS[name]}{'' if name in SO_FAR else since}" for name, n in counts)

    def control_words(self) -> dict[str, str]:
        """What the control channel read wrong, where it did."""
        return {"control channel": trip_words(self.trip)} if self.trip else {}

    def words(self) -> dict[str, str]:
        """What -> how much, with units, in the order that it is shown."""
        words = {"env steps": f"{self.env_steps:,} of {self.total_env_steps:,} ({self.share:.0%})"}
        if self.last is None:
            return words
        words |= {
            "return": return_words(self.last["return_mean"]),
            "batch size": self._batch_words(),
            "B_simple (policy)": b_simple_words(self.noise) if self.noise else "not measured yet",
            "env steps a second": number(self.env_steps_per_second()),
            "ETA": duration(self.seconds_left()),
        }
        return words | ({"faults": self.fault_words()} if self.faults() else {}) | self.control_words()

    def _batch_words(self) -> str:
        now = f"{self.last['batch_size']:,} env steps (of {self.last['requested_env_steps']:,} a rollout)"
        if self.batch_change is None:
            return now
        before, env_steps = self.batch_change
        return f"{now}; {before:,} until env step {env_steps:,}"


def b_simple_words(scale: dict[str, Any]) -> str:
    """`12,000 [8,000 to 20,000] env steps`, or what is known while it is unresolved, of a noise scale as on disk."""
    b_simple, low, needed = scale["b_simple"], scale["low"], scale["env_steps_needed"]
    if scale["resolved"]:
        return f"{b_simple:,.0f} [{low:,.0f} to {scale['high']:,.0f}] env steps"
    estimate = "" if b_simple is None else f" (estimate {b_simple:,.0f})"
    bound = f"at least {low:,.0f} env steps" if low > 0 else "no limit yet"
    more = f", at least {float(f'{needed:.2g}'):,.0f} more env steps" if needed else ""
    return f"{bound}{estimate}; unresolved: {scale['reason']}{more}"


def return_words(return_mean: float | None) -> str:
    """The smoothed return, or why there is none."""
    return "no episode finished yet" if return_mean is None else f"{return_mean:.2f}"


def number(value: float | None) -> str:
    """Whole, with thousands separators; `...` while unknown."""
    return "..." if value is None else f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """h:mm:ss; `...` while unknown."""
    if seconds is None:
        return "..."
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{left:02d}"
