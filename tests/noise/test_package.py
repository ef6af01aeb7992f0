"""The room as a whole: its example runs, and it stands on numpy and scipy alone."""

import doctest
import subprocess
import sys

import rl_gns.noise


def test_the_example_in_the_docstring_runs():
    result = doctest.testmod(rl_gns.noise)
    assert result.attempted >= 5 and result.failed == 0


def test_public_names_exist_and_are_documented():
    for name in rl_gns.noise.__all__:
        assert getattr(rl_gns.noise, name).__doc__, name


def test_import_loads_no_torch_ray_or_gymnasium():
    code = "import rl_gns.noise, sys; print([m for m in ('torch', 'ray', 'gymnasium') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
