"""The meter beside a training loop of one's own: it finds what the gradients themselves say, and changes nothing."""

import contextlib
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from rl_gns import NoiseScaleMeter
from rl_gns.noise import group_moments, pool

MICRO_BATCHES, SAMPLES = 8, 16


def model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(10, 20), nn.Tanh(), nn.Linear(20, 3))


def data(step: int, index: int, samples: int = SAMPLES):
    """Inputs and labels of a micro-batch, a function of step and index alone."""
    generator = torch.Generator().manual_seed(1000 * step + index)
    inputs = torch.randn(samples, 10, generator=generator)
    return inputs, (inputs[:, :3] + torch.randn(samples, 3, generator=generator)).argmax(dim=1)


def train(network, steps: int, indices=range(MICRO_BATCHES), meter=None, quiet=contextlib.nullcontext, keep=None):
    """Momentum SGD, gradients of `indices` added up; all but the last micro-batch run inside `quiet`."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    scales = []
    for step in range(steps):
        optimizer.zero_grad()
        for index in indices:
            inputs, labels = data(step, index)
            with quiet() if index != indices[-1] else contextlib.nullcontext():
                (nn.functional.cross_entropy(network(inputs), labels) / len(indices)).backward()
            if meter:
                meter.micro_batch(len(inputs))
            if keep is not None:
                keep.append(torch.cat([p.grad.flatten() for p in network.parameters()]).double().numpy())
        scales.append(meter.step() if meter else None)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.step()
    return scales


def test_training_is_bitwise_the_same_with_it():
    bare, metered = model(), model()
    train(bare, 20)
    assert train(metered, 20, meter=NoiseScaleMeter(metered.parameters()))[-1].n_rollouts == 20
    for one, other in zip(bare.parameters(), metered.parameters(), strict=True):
        assert torch.equal(one, other) and torch.equal(one.grad, other.grad)


def test_it_finds_what_the_stored_gradients_say():
    network, sums = model(), []
    found = train(network, 40, meter=NoiseScaleMeter(network.parameters()), keep=sums)[-1]
    sums = np.array(sums).reshape(40, MICRO_BATCHES, -1)
    expected = pool([group_moments(np.diff(s, axis=0, prepend=0.0), SAMPLES) for s in sums])
    for name in ("signal_sq", "noise_trace", "b_simple", "low", "high"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-4), name
    assert found.reason == expected.reason and found.n_groups == 8 and found.env_steps == 40 * MICRO_BATCHES * SAMPLES
    assert (found.first_version, found.last_version, found.part) == (0, 39, "total")


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_known_noise_scale_with_unequal_micro_batches(reduction):
    """A sample's loss is w . x and its gradient x: N(1, 3^2) in 20 coordinates, signal_sq 20, noise_trace 180.
    Standard errors are about 1 % (fixed seed)."""
    weight = nn.Parameter(torch.zeros(20))
    meter = NoiseScaleMeter([weight], reduction=reduction, confidence=0.999, window=None)
    torch.manual_seed(0)
    for _ in range(200):
        weight.grad = None
        for samples in (4, 8, 16, 32, 4, 8, 16, 32):
            loss = (1 + 3 * torch.randn(samples, 20)) @ weight
            getattr(loss, reduction)().backward()
            meter.micro_batch(samples)
        scale = meter.step()
    assert scale.b_simple == pytest.approx(9, rel=0.05) and scale.resolved and scale.low < 9 < scale.high
    assert scale.noise_trace == pytest.approx(180, rel=0.05) and scale.signal_sq == pytest.approx(20, rel=0.05)


def test_two_groups_give_a_number_and_the_reason():
    network = model()
    scale = train(network, 30, range(2), NoiseScaleMeter(network.parameters()))[-1]
    assert math.isfinite(scale.b_simple) and not scale.resolved and scale.reason.startswith("2 groups: at least 8")


def test_the_window_forgets():
    network = model()
    scales = train(network, 30, meter=NoiseScaleMeter(network.parameters(), window=10))
    assert scales[-1].n_rollouts == 10 and (scales[-1].first_version, scales[-1].last_version) == (20, 29)


def test_a_gradient_that_is_not_finite_is_left_out_and_counted():
    weight = nn.Parameter(torch.ones(3))
    meter = NoiseScaleMeter([weight])
    for step, factor in enumerate((math.nan, 1.0)):
        weight.grad = None
        for k in range(2):
            ((weight**2).sum() * (k + 1) * factor).backward()
            meter.micro_batch(1)
        assert (meter.step() is None) == (step == 0)
    assert meter.skipped == 1


def test_a_closed_meter_sees_nothing():
    weight = nn.Parameter(torch.ones(3))
    meter = NoiseScaleMeter([weight])
    meter.close()
    weight.sum().backward()
    with pytest.raises(RuntimeError, match="without a backward pass"):
        meter.micro_batch(1)


def backward(network, meter, times: int = 1, index: int = 0) -> None:
    for _ in range(times):
        inputs, labels = data(0, index)
        nn.functional.cross_entropy(network(inputs), labels).backward()
    meter.micro_batch(SAMPLES)


def clipped(network, meter):
    backward(network, meter), backward(network, meter, index=1)
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1e-3)
    meter.step()


def never_zeroed(network, meter):
    for _ in range(2):
        backward(network, meter), backward(network, meter, index=1)
        meter.step()


def zeroed_between(network, meter):
    backward(network, meter)
    network.zero_grad()
    backward(network, meter, index=1)
    meter.step()


def left_over(network, meter):
    backward(network, meter)
    network(data(0, 0)[0]).sum().backward()
    meter.step()


@pytest.mark.parametrize(
    ("mistake", "error", "words"),
    [
        (clipped, RuntimeError, "not the sum of its micro-batches"),
        (never_zeroed, RuntimeError, r"zero_grad\(\) before the first one"),
        (zeroed_between, RuntimeError, "not the sum of its micro-batches"),
        (left_over, RuntimeError, r"a backward pass without its micro_batch\(\)"),
        (lambda network, meter: backward(network, meter, times=2), RuntimeError, "two backward passes"),
        (lambda network, meter: meter.micro_batch(4), RuntimeError, "without a backward pass"),
        (lambda network, meter: [backward(network, meter), meter.step()], ValueError, "1 micro-batches in the step"),
        (lambda network, meter: [network(data(0, 0)[0]).sum().backward(), meter.micro_batch(0)], ValueError, "got 0"),
    ],
)
def test_a_wrong_loop_is_told_so(mistake, error, words):
    network = model()
    with pytest.raises(error, match=words):
        mistake(network, NoiseScaleMeter(network.parameters()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"confidence": 95}, "between 0 and 1, got 95"),
        ({"reduction": "none"}, "'mean' or 'sum', got 'none'"),
        ({"window": 0}, "at least 1 step or None, got 0"),
        ({"parameters": [torch.ones(2)]}, "none of them requires a gradient"),
    ],
)
def test_wrong_options_are_one_line(options, words):
    with pytest.raises(ValueError, match=words):
        NoiseScaleMeter(**{"parameters": model().parameters()} | options)


def _rank(rank: int, store: str, when: str) -> None:
    """One of two ranks, half of the micro-batches each; prints its last noise scale and the sums of its weights.

    `when` gradients are averaged over the ranks: at the `end` of a step, in `each` micro-batch, or `never`.
    """
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    network = nn.parallel.DistributedDataParallel(model())
    half = MICRO_BATCHES // 2
    indices = range(rank * half, (rank + 1) * half)
    meter = NoiseScaleMeter(network.parameters())
    try:
        with network.no_sync() if when == "never" else contextlib.nullcontext():
            quiet = network.no_sync if when == "end" else contextlib.nullcontext
            scale = train(network, 30, indices, meter, quiet)[-1]
        weights = [float(p.detach().double().sum()) for p in network.parameters()]
        print(json.dumps([scale.signal_sq, scale.noise_trace, scale.low, scale.high, scale.n_groups, weights]))
    except RuntimeError as error:
        print(json.dumps(str(error)))
    torch.distributed.destroy_process_group()
    # DistributedDataParallel keeps gloo's threads past it, and one that still holds a tensor of Python's while the
    # interpreter ends aborts the process, meter or none (torch 2.13, pytorch/pytorch#179291): it ends without that.
    sys.stdout.flush()
    os._exit(0)


def on_two_ranks(tmp_path, when: str) -> list:
    """What both ranks printed. The store is a file and the sockets are on the loopback."""
    code = "import sys, test_meter; test_meter._rank(int(sys.argv[1]), *sys.argv[2:])"
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(rank), str(tmp_path / "store"), when],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [rank.communicate(timeout=240)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0]
    return [json.loads(text) for text in said]


@pytest.mark.parametrize("when", ["end", "each"])
def test_two_ranks_say_the_same_as_one_process_with_all_micro_batches(tmp_path, when):
    """A rank's losses are divided by its own 4 micro-batches instead of by 8: signal and trace are 4 times larger."""
    first, second = on_two_ranks(tmp_path, when)
    assert first == second
    network = model()
    alone = train(network, 30, meter=NoiseScaleMeter(network.parameters()))[-1]
    signal_sq, noise_trace, low, high, n_groups, weights = first
    assert n_groups == alone.n_groups == 8
    assert weights == pytest.approx([float(p.detach().double().sum()) for p in network.parameters()], rel=1e-3)
    assert [low, high] == pytest.approx([alone.low, alone.high], rel=1e-3)
    assert [signal_sq, noise_trace] == pytest.approx([4 * alone.signal_sq, 4 * alone.noise_trace], rel=1e-3)


def test_gradients_that_the_ranks_never_averaged_are_refused_on_both(tmp_path):
    assert all("is not the sum of its micro-batches" in said for said in on_two_ranks(tmp_path, "never"))
