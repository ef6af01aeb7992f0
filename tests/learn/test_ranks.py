"""Learners that share each step, two real processes of torch.distributed: they take the steps of one, and read its
noise scale; and the two forms of the moments agree."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import namespace
import numpy as np
import pytest
import torch
from tiny import CARTPOLE, PONG, fingerprint

from rl_gns.config import RunConfig
from rl_gns.config_file import from_table
from rl_gns.config_rules import validate
from rl_gns.learn.gradients import GroupGradients, column_groups, grams, norms_dots
from rl_gns.learn.rank_learner import RankLearner, share_of
from rl_gns.learn.ranks import Ranks, listener, stall_seconds
from rl_gns.noise.moments import signal_and_trace, without_each
from rl_gns.noise.scale import single
from rl_gns.records import PARTS, GroupMoments
from rl_gns.rollout.sources import LocalSource
from rl_gns.study.build import _world, make_learner

UPDATES = 4
LOOPBACK = "127.0.0.1"
CASES = {
    "transitions": (CARTPOLE, {}, {}),
    "columns": (CARTPOLE, {"minibatch_by": "columns"}, {}),
    "pixels": (PONG | {"learner": {**PONG["learner"], "precision": "fp32"}}, {}, {"waves": 2}),
}
"""Base settings and what is changed of batch and rollout; the last one has 8 columns, in 2 waves, and float32
everywhere: some CPUs round bf16 by how many rows they multiply at once (1e-4 in the weights, Xeon with AMX)."""


def shared(n_ranks, base=CARTPOLE, **changes):
    """Settings for several learners."""
    table = {"learners": n_ranks, "noise": {"across_env_steps": 0}, **changes}
    return validate(from_table(table, from_table(base, RunConfig())))


def gradients_of(rng, n_groups, parameters):
    """J correlated groups of unequal size, float32."""
    policy, rest = (torch.from_numpy(rng.normal(0.3, 1, (n_groups, parameters)).astype(np.float32)) for _ in range(2))
    return GroupGradients(policy, rest, rng.integers(1, 200, n_groups), 0.0, np.zeros((n_groups, 0)))


def test_norms_and_dots_give_what_the_gram_matrix_gives():
    """Two derivations of the same float32 gradients, the second in halves that know each other's mean alone."""
    rng = np.random.default_rng(0)
    whole = gradients_of(rng, 12, 3000)
    share = whole.env_steps / whole.env_steps.sum()
    parts = torch.stack([whole.policy.double(), whole.rest.double(), whole.policy.double() + whole.rest.double()])
    found = np.zeros((12, 3, 2))
    for rank in (0, 1):
        own, other = slice(rank, None, 2), slice(1 - rank, None, 2)
        theirs = torch.einsum("j,pjc->pc", torch.from_numpy(share[other]), parts[:, other])
        mine = dataclasses.replace(whole, policy=whole.policy[own], rest=whole.rest[own])
        found[own] = norms_dots(mine, share[own], lambda mean, theirs=theirs: mean.add_(theirs))
    by_gram = GroupMoments(grams(whole), whole.env_steps)
    by_dots = GroupMoments({}, whole.env_steps, norms_dots={part: found[:, i] for i, part in enumerate(PARTS)})
    for part in PARTS:
        np.testing.assert_allclose(signal_and_trace(by_dots, part), signal_and_trace(by_gram, part), rtol=1e-10)
        np.testing.assert_allclose(without_each(by_dots, part), without_each(by_gram, part), rtol=1e-9)
        assert single(by_dots, part).high == pytest.approx(single(by_gram, part).high, rel=1e-6)
    wrong = GroupMoments({}, whole.env_steps, norms_dots={"policy": found[:, 0] * [1, 1.001]})
    assert signal_and_trace(wrong)[1] != pytest.approx(signal_and_trace(by_gram)[1], rel=1e-10), "negative control"


def test_every_column_is_on_one_rank_and_its_group_with_it():
    settings = shared(3, rollout={"columns_per_collector": 4}, noise={"groups": 6, "across_env_steps": 0})
    source, learner = LocalSource(settings), make_learner(settings)
    source.publish(learner.weights(), 0)
    blocks = source.collect(4, 16).blocks
    whole = np.concatenate([b.reward + 10 * b.valid for b in blocks], axis=1)
    for rank in range(3):
        own = [share_of(b, rank, 3) for b in blocks]
        mine = np.concatenate([b.reward + 10 * b.valid for b in own], axis=1)
        np.testing.assert_array_equal(mine, whole[:, rank::3])
        assert np.concatenate([b.last_value for b in own]).shape == (mine.shape[1],)
        for k, own_columns in enumerate(column_groups(mine.shape[1], 2)):
            np.testing.assert_array_equal(rank + 3 * np.sort(own_columns), np.sort(column_groups(16, 6)[rank + 3 * k]))


def beside_one(ranks, settings):
    """A rank and a learner that has everything, on the same rollouts; a line an update. The last one holds a NaN."""
    one, mine, source = make_learner(settings), RankLearner(ranks, settings, *_world(settings)), LocalSource(settings)
    found = []
    for update in range(UPDATES):
        source.publish(one.weights(), one.version)
        blocks = source.collect(settings.collectors(settings.batch.size), settings.batch.segment_steps).blocks
        if update == UPDATES - 1:
            blocks[1].reward[3, 1] = np.nan  # in a column of the last rank
        batch = one.prepare(blocks)
        valid = np.concatenate([b.valid for b in blocks], axis=1)
        share = mine.prepare([share_of(b, ranks.rank, ranks.n_ranks) for b in blocks], valid)
        moments = [one.probe(batch), mine.probe(share)]
        stats = [one.update(batch, 1e-3), mine.update(share, 1e-3)]
        there, here = one.weights(), mine.weights()
        found.append(
            {
                "weights": max(float(np.abs(here[name] - there[name]).max()) for name in there),
                "fingerprint": fingerprint(mine),
                "pairs": [[*signal_and_trace(m, part)] for m in moments for part in PARTS] if moments[0].finite else [],
                "finite": [m.finite for m in moments],
                "control": float(np.abs(moments[0].control.gram - moments[1].control.gram).max()),
                "variance": float(np.abs(moments[0].control.group_variance - moments[1].control.group_variance).max()),
                "alike": [
                    [m.env_steps.tolist(), m.key_id, m.batch_size, m.policy_version, m.n_groups] for m in moments
                ],
                "ratio_error": [m.max_ratio_error for m in moments],
                "scaled": [[b.normaliser, b.mean, b.std] for b in (batch, share.whole)],
                "stats": [list(vars(s).values()) for s in stats],
                "skipped": [one.skipped_steps, mine.skipped_steps],
                "bad_rows": [len(each.bad_rows["action"]) if each.bad_rows else 0 for each in (one, mine)],
            }
        )
    return found


def precision_of(ranks, first, others):
    """What all compute in where `auto` is `first` on rank 0 and `others` elsewhere."""
    settings = shared(ranks.n_ranks, learner={"precision": others if ranks.rank else first})
    return RankLearner(ranks, settings, *_world(settings)).precision


def _at_work(rank, n_ranks, port, device):
    """One process; rank 0 first prints the port where the others find it."""
    listening = None
    if rank == 0:
        listening = listener(LOOPBACK)
        port = listening.getsockname()[1]
        print(port, flush=True)
    torch.set_num_threads(1)
    ranks = Ranks(rank, n_ranks, LOOPBACK, port, LOOPBACK, 120.0, device, listening)
    found = {"precision": [precision_of(ranks, *each) for each in (("bf16", "bf16"), ("bf16", "fp32"))]}
    for name, (base, batch, rollout) in CASES.items():
        settings = shared(n_ranks, base, batch=batch, rollout=rollout)
        settings = dataclasses.replace(settings, learner=dataclasses.replace(settings.learner, device=device))
        found[name] = beside_one(ranks, settings)
    print(json.dumps(found), flush=True)
    ranks.close()
    os._exit(0)  # torch's threads may abort, or hang, where the interpreter takes them down


def at_work(n_ranks, device="cpu"):
    """What each of so many processes found."""
    here = Path(__file__).resolve()
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(here.parents[1]), str(here.parents[2]), os.environ.get("PYTHONPATH", "")])
    processes, port = [], "0"
    for rank in range(n_ranks):
        if device == "cuda":
            env["CUDA_VISIBLE_DEVICES"] = str(rank)
        command = [sys.executable, str(here), str(rank), str(n_ranks), port, device]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(env)))
        if rank == 0:
            port = processes[0].stdout.readline().strip()
    try:
        said = [process.communicate(timeout=200)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * n_ranks
    return [json.loads(words.splitlines()[-1]) for words in said]


def check(found, weights, moments):
    """All ranks the same bits; one learner's numbers within those tolerances (absolute, relative)."""
    assert {tuple(rank["precision"]) for rank in found} == {("bf16", "bf16" if len(found) == 1 else "fp32")}
    for by in CASES:
        assert len({json.dumps([line["fingerprint"] for line in rank[by]]) for rank in found}) == 1
        for line in found[0][by]:
            assert line["weights"] <= weights and line["alike"][0] == line["alike"][1]
            assert line["control"] <= 1e-9 and line["variance"] <= 1e-12
            assert line["finite"][0] == line["finite"][1] and line["skipped"][0] == line["skipped"][1]
        for line in found[0][by][:-1]:
            one, several = np.split(np.array(line["pairs"]), 2)
            np.testing.assert_allclose(several, one, rtol=moments)
            assert line["ratio_error"] == pytest.approx([0, 0], abs=1e-3)
            assert line["scaled"][0][0] == line["scaled"][1][0]
            np.testing.assert_allclose(line["scaled"][1][1:], line["scaled"][0][1:], rtol=1e-5)
            np.testing.assert_allclose(line["stats"][1], line["stats"][0], rtol=1e-2, atol=1e-4)
        last = [rank[by][-1] for rank in found]
        assert last[0]["finite"] == [False, False] and last[0]["skipped"][0] > 0, "the NaN stops all ranks alike"
        assert last[0]["stats"][1][0] == last[0]["stats"][0][0] < 4
        assert sum(line["bad_rows"][1] for line in last) == last[0]["bad_rows"][0] > 0, "the minibatch, in parts"
        assert any(len(set(line["alike"][0][0])) > 1 for line in found[0][by]), "groups of unequal size: masked rows"
        assert [line["scaled"][0][0] for line in found[0][by]] == ["rollout", "ewma", "ewma", "ewma"]


def test_two_ranks_take_the_steps_of_one_learner_and_read_its_noise_scale():
    """Twelve optimizer steps of float32 in another order; all have 8 groups of columns and one random stream."""
    check(at_work(2), weights=2e-6, moments=1e-4)


MEET = """
import json, os, socket, sys
from pathlib import Path
from rl_gns.learn.ranks import Ranks
rank, host, own = int(sys.argv[1]), *sys.argv[2:]
listening = socket.create_server((host, 29400)) if rank == 0 else None
ranks = Ranks(rank, 2, host, 29400, own, 150.0, listening=listening)
total = ranks.sum([rank + 1.0]).tolist()
rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
doors = [row[1].split(":") for row in rows if row[3] == "0A"]
doors = {socket.inet_ntoa(bytes.fromhex(address)[::-1]) for address, port in doors if int(port, 16) != 22}
ranks.sum([0.0])
print(json.dumps([total, os.environ.get("GLOO_SOCKET_IFNAME"), sorted(doors)]), flush=True)
ranks.close()
os._exit(0)  # torch's threads may abort, or hang, where the interpreter takes them down
"""
TWO_NODES = """
set -e
worker="ssh -q -i {base}/user_key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@{worker}"
$worker "cd {root} && PYTHONPATH={root} timeout 180 {python} {base}/meet.py 1 {head} {worker}" </dev/null &
PYTHONPATH={root} timeout 180 {python} {base}/meet.py 0 {head} {head}
wait $!
"""


@pytest.mark.slow
@pytest.mark.cluster
def test_ranks_on_two_nodes_meet_each_on_its_own_interface(tmp_path):
    """Network namespaces joined by one wire: none of them listens but on its end of it."""
    if reason := namespace.why_not():
        pytest.skip(f"no machines of their own: {reason}")
    root = Path(__file__).resolve().parents[2]
    names = {"base": tmp_path, "root": root, "python": sys.executable, "head": namespace.HEAD}
    (tmp_path / "meet.py").write_text(MEET)
    namespace.prepare(tmp_path, dict.fromkeys(("head", "worker"), tmp_path))
    script = TWO_NODES.format(**names, worker=namespace.WORKER)
    done = namespace.inside(tmp_path, script, root, {**os.environ, "OMP_NUM_THREADS": "1"}, timeout=400)
    assert done.returncode == 0, done.stdout
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[[")]
    assert sorted(found) == [[[3.0], "wire0", [namespace.HEAD]], [[3.0], "wire1", [namespace.WORKER]]]


def test_an_address_that_no_interface_has_is_refused(monkeypatch):
    """Gloo would meet the others wherever this machine's name leads."""
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(OSError, match=r"no network interface has 192\.0\.2\.1, .*; GLOO_SOCKET_IFNAME can name one"):
        Ranks(0, 1, LOOPBACK, 1, "192.0.2.1", 1.0)


def test_an_interface_that_the_user_names_for_gloo_is_enough_on_cpus(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)
    listening = listener(LOOPBACK)
    ranks = Ranks(0, 1, LOOPBACK, listening.getsockname()[1], "192.0.2.1", 20.0, listening=listening)
    assert ranks.sum([2.0]).tolist() == [2.0] and "NCCL_SOCKET_IFNAME" not in os.environ
    ranks.close()


def test_patience_grows_with_the_share_of_a_rollout():
    """The recorded probe of 1,048,576 env steps took one slow core 706 s without a word: half of them at half of its
    rate are no stall. Without anything to compute it is a matter of minutes."""
    assert stall_seconds(1_048_576 // 2) > 2 * 706 and stall_seconds(0) == 300


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("n_ranks", [1, 2])
def test_ranks_on_gpus_take_the_steps_of_one_learner_on_the_cpu(n_ranks):
    """NCCL; the learner beside them computes on the CPU, so their noise scales are held against it too."""
    if torch.cuda.device_count() < n_ranks:
        pytest.skip(f"fewer than {n_ranks} GPUs")
    check(at_work(n_ranks, "cuda"), weights=2e-4, moments=1e-2)


if __name__ == "__main__":
    _at_work(*(int(x) for x in sys.argv[1:4]), sys.argv[4])
