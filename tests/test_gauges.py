"""Gauges as Ray's own metrics port shows them, what is not known and so not shown, and the dashboard of them."""

import json
import logging
import os
import re
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from test_sweep import Heard
from tiny import CARTPOLE, config, finished, replaced

from rl_gns.distributed import session
from rl_gns.distributed.metrics import GAUGES, TAGS, Gauges, known
from rl_gns.distributed.nodes import shows_metrics
from rl_gns.records import to_json
from rl_gns.rundir import RunDir
from rl_gns.study.grid import Grid
from rl_gns.study.sweep import sweep
from rl_gns.study.train import train

DASHBOARD = Path(__file__).resolve().parent.parent / "cluster" / "grafana.json"
NOISE = {f"rl_gns_b_simple_{name}" for name in ("resolved", "env_steps", "low_env_steps", "high_env_steps")}
NO_SUMS = {"late_blocks": 0, "replaced_actors": 0, "probe_seconds": 0.0, "seconds": 0.0}
LINE = re.compile(r"ray_(rl_gns_\w+)\{(.*)\} (\S+)")


class Port:
    """What Ray's metrics port of this session has shown so far: looked at until `close`."""

    def __init__(self):
        import ray

        (node,) = ray.nodes()
        self.host, self.number = node["NodeManagerAddress"], node["MetricsExportPort"]
        self._url = f"http://{self.host}:{self.number}/metrics"
        self._looks, self._over = [], threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self):
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while not self._over.wait(0.5):
            look = {}
            with direct.open(self._url, timeout=30) as answer:
                for name, tags, value in LINE.findall(answer.read().decode()):
                    tags = dict(re.findall(r'(\w+)="([^"]*)"', tags))
                    look.setdefault(tuple(tags[tag] for tag in TAGS), {})[name] = float(value)
            self._looks.append(look)

    def close(self):
        self._over.set()
        self._thread.join()

    def when(self, tags, env_steps):
        """Gauge -> value, of a run, at the first look that has it at that env step."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for look in self._looks:
                if look.get(tags, {}).get("rl_gns_env_steps") == env_steps:
                    return look[tags]
            time.sleep(0.1)
        pytest.fail(f"{tags} at env step {env_steps} never came; the last look: {self._looks[-1:]}")


@pytest.fixture(scope="module")
def port():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "RAY_metrics_report_interval_ms", "3000")
        with session.start(3, 100_000_000):
            seen = Port()
            yield seen
            seen.close()


@pytest.mark.cluster
def test_the_port_on_loopback_shows_the_last_line_of_metrics_jsonl(port, tmp_path):
    """After two sittings: what is summed is summed over the run."""
    for total in (700, 1500):
        train(replaced(config(CARTPOLE), actors=1, total_env_steps=total), tmp_path)
    records = list(RunDir(tmp_path).records())
    last, scale = records[-1], records[-1]["noise"]["policy"]
    expected = {
        "env_steps": last["env_steps"],
        "optimizer_steps": last["optimizer_steps"],
        "env_steps_per_second": last["used_env_steps"] / last["seconds"],
        "batch_size_env_steps": 128,
        "learning_rate": 1e-3,
        "return_mean_score": last["return_mean"],
        "b_simple_resolved": scale["resolved"],
        "b_simple_env_steps": scale["b_simple"] if scale["resolved"] else None,
        "b_simple_low_env_steps": scale["low"] or None,
        "b_simple_high_env_steps": scale["high"] if scale["resolved"] else None,
        "control_channel_flag": {"ok": 0, "reads low": -1, "reads high": 1, None: None}[last["noise_control_flag"]],
        "late_blocks": 0,
        "replaced_actors": 0,
        "probe_seconds_ratio": sum(r["probe_seconds"] for r in records) / sum(r["seconds"] for r in records),
    }
    shown = port.when((str(tmp_path), "CartPole", "0"), last["env_steps"])
    assert shown == pytest.approx({f"rl_gns_{k}": float(v) for k, v in expected.items() if v is not None}, rel=1e-12)
    assert port.host == "127.0.0.1"
    assert shows_metrics(port.host, port.number) and not shows_metrics(port.host, 1)


@pytest.mark.cluster
@pytest.mark.slow
def test_the_cells_of_a_sweep_are_told_apart(port, tmp_path):
    settings = replaced(config(CARTPOLE), goals=(10_000.0,), goals_judged_on="training")
    assert sweep(settings, Grid((64, 128), (1e-3,), "sqrt", (0, 1)), tmp_path, Heard(), cells_at_once=2).failed == {}
    cells = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(cells) == 4
    for cell in cells:
        run = RunDir(cell)
        last, tags = list(run.records())[-1], (str(cell), "CartPole", str(run.config().seed))
        assert port.when(tags, last["env_steps"])["rl_gns_batch_size_env_steps"] == last["batch_size"]


@pytest.mark.cluster
def test_a_failure_is_told_once_and_stops_nothing(port, tmp_path, caplog):
    record, no_tag = finished(config(CARTPOLE))[1][-1], None  # Ray takes strings alone
    gauges = Gauges(tmp_path, no_tag, 0)
    with caplog.at_level(logging.WARNING):
        gauges.show(record)
        gauges.show(record)
    assert [f"no gauges of {tmp_path} from here on" in text for text in caplog.messages] == [True]


@pytest.fixture(scope="module")
def line():
    return to_json(finished(config(CARTPOLE))[1][-1])


def test_what_is_not_known_sets_nothing(line):
    nothing = {"return_mean": None, "noise": None, "noise_control_flag": None, "seconds": 0.0}
    sure = {"env_steps", "optimizer_steps", "batch_size_env_steps", "learning_rate", "late_blocks", "replaced_actors"}
    assert set(known({**line, **nothing}, NO_SUMS)) == {f"rl_gns_{name}" for name in sure}


def test_a_noise_scale_is_shown_as_far_as_it_is_known(line):
    def shown(**changes):
        scale = {**line["noise"]["policy"], **changes}
        values = known({**line, "noise": {"policy": scale}}, NO_SUMS)
        return {name.removeprefix("rl_gns_b_simple_"): value for name, value in values.items() if name in NOISE}

    whole = {"b_simple": 900.0, "low": 500.0, "high": 2000.0}
    ends = {"env_steps": 900.0, "low_env_steps": 500.0, "high_env_steps": 2000.0}
    assert shown(resolved=True, **whole) == {"resolved": 1.0, **ends}
    assert shown(resolved=False, **whole) == {"resolved": 0.0, "low_env_steps": 500.0}
    assert shown(resolved=False, b_simple=None, low=0.0, high=None) == {"resolved": 0.0}
    assert shown(resolved=True, b_simple=900.0, low=0.0, high=None) == {"resolved": 1.0, "env_steps": 900.0}


def test_every_gauge_can_be_known_and_has_words(line):
    scale = {**line["noise"]["policy"], "resolved": True, "b_simple": 900.0, "low": 500.0, "high": 2000.0}
    full = {**line, "noise": {"policy": scale}, "return_mean": 20.0, "noise_control_flag": "reads low"}
    values = known(full, {**NO_SUMS, "probe_seconds": 1.0, "seconds": 4.0})
    assert set(values) == set(GAUGES) and all(GAUGES.values())
    assert (values["rl_gns_control_channel_flag"], values["rl_gns_probe_seconds_ratio"]) == (-1.0, 0.25)


def test_the_dashboard_draws_every_gauge_and_no_other():
    dashboard = json.loads(DASHBOARD.read_text())
    drawn = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert {name for expr in drawn for name in re.findall(r"ray_\w+", expr)} == {f"ray_{name}" for name in GAUGES}
    shown = {expr.partition("{")[0] for expr in drawn}
    assert shown == {f"ray_{name}" for name in GAUGES}, "each is drawn, not only a condition of others"
    for expr in drawn:
        only_resolved = expr.startswith(("ray_rl_gns_b_simple_env_steps", "ray_rl_gns_b_simple_high"))
        assert ("b_simple_resolved" in expr and " == 1)" in expr) == only_resolved


def test_the_dashboard_is_whole():
    dashboard = json.loads(DASHBOARD.read_text())
    panels, variables = dashboard["panels"], {each["name"] for each in dashboard["templating"]["list"]}
    assert dashboard["title"] and dashboard["schemaVersion"] >= 36 and "id" not in dashboard
    assert set(re.findall(r"\$\{?(?!__)(\w+)", json.dumps(dashboard))) == variables
    assert len({panel["id"] for panel in panels}) == len(panels)
    tiles = []
    for panel in panels:
        at = panel["gridPos"]
        tiles += [(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert len(set(tiles)) == len(tiles) and max(x for x, _ in tiles) < 24, "panels lie on each other"
