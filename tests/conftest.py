"""Skips are honest: each names a reason, and with RL_GNS_NO_SKIP=1 (CI) only a missing GPU is one."""

import os
import signal

import pytest


def pytest_configure():
    """A shell starts what runs in the background with SIGINT ignored, and so would the programs under test."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _skip_is_a_failure(report) -> str | None:
    """What is wrong with a skipped report, or None: `longrepr` is (file, line, "Skipped: reason")."""
    if not report.skipped or hasattr(report, "wasxfail"):
        return None
    reason = report.longrepr[2].removeprefix("Skipped").removeprefix(":").strip()
    if reason in ("", "unconditional skip"):
        return "skipped without a reason"
    if os.environ.get("RL_GNS_NO_SKIP") == "1" and "GPU" not in reason and "CUDA" not in reason:
        return f"skipped where nothing may be (RL_GNS_NO_SKIP=1): {reason}"
    return None


def _judge(report):
    if wrong := _skip_is_a_failure(report):
        report.outcome, report.longrepr = "failed", wrong
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return _judge((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):  # importorskip and skip(allow_module_level=True)
    return _judge((yield))


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu"):
        import torch  # only where such a test runs

        if not torch.cuda.is_available():
            pytest.skip("no GPU: CUDA is not available")
