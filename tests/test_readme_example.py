"""The README's example of a loop of one's own is run as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
[CODE] = [code for code in re.findall(r"```python\n(.*?)```", README, re.S) if "load_digits" in code]
LINE = re.compile(r"step +(\d+): loss ([\d.]+), B_simple (\d+) images \[(\d+) to (\d+|inf)\]")


def test_the_digits_example_shows_the_noise_scale_growing_as_the_loss_falls():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    rows = [tuple(map(float, row)) for row in LINE.findall(done.stdout)]
    _, losses, scales, lows, highs = zip(*rows, strict=True)
    assert len(rows) == len(done.stdout.splitlines()) >= 4
    assert list(losses) == sorted(losses, reverse=True) and losses[-1] < losses[0] / 3
    assert scales[-1] > 4 * scales[0] and lows[-1] > highs[0], "beyond what the intervals leave to chance"


def test_it_fits_on_a_screen():
    assert len([line for line in CODE.splitlines() if line.strip()]) <= 20
