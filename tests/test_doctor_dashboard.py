"""`rl-gns doctor` on who can reach a dashboard: real listeners, and what they say."""

import contextlib
import http.server
import json
import socket
import socketserver
import threading

import pytest

from rl_gns.study import doctor


class Dashboard(http.server.BaseHTTPRequestHandler):
    """What Ray's dashboard says to everybody, behind a token or not."""

    mode = "disabled"

    def do_GET(self):
        self.send_response(200 if self.path == "/api/authentication_mode" and self.mode else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"authentication_mode": self.mode}).encode() if self.mode else b"hello")

    def log_message(self, *arguments):
        pass


@pytest.mark.parametrize(
    ("host", "mode", "state"),
    [
        ("127.0.0.1", "disabled", "ok"),
        ("0.0.0.0", "disabled", "failure"),
        ("0.0.0.0", "token", "warning"),
        ("0.0.0.0", "", "warning"),
        ("::", "disabled", "failure"),
    ],
)
def test_a_dashboard_that_others_can_reach(monkeypatch, host, mode, state):
    """A real listener, on loopback or on every interface."""
    monkeypatch.setattr(Dashboard, "mode", mode)

    class Server(http.server.ThreadingHTTPServer):
        address_family = family(host)

    with Server((host, 0), Dashboard) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", f"http://127.0.0.1:{server.server_port}")
        line = doctor.dashboard()
        server.shutdown()
    assert line.state == state and str(server.server_port) in line.found
    assert ("answers HTTP 404: it may be" in line.found) == (not mode) and ("if it is one" in line.do) == (not mode)
    assert ("--dashboard-host=127.0.0.1" in line.do) == (state != "ok")


def test_the_worst_of_several_listeners_is_told(monkeypatch):
    """Something else at one address of a port, an open dashboard at another that is asked after it."""

    class Stranger(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

    class Six(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6

        def server_bind(self):
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            super().server_bind()

    with socketserver.ThreadingTCPServer(("0.0.0.0", 0), Stranger) as one:
        port = one.server_address[1]
        with Six(("::", port), Dashboard) as other:
            for server in (one, other):
                threading.Thread(target=server.serve_forever, daemon=True).start()
            monkeypatch.setenv("RAY_API_SERVER_ADDRESS", f"http://127.0.0.1:{port}")
            line = doctor.dashboard()
            other.shutdown()
        one.shutdown()
    assert line.state == "failure" and line.found == f"port {port} listens on 0.0.0.0, ::, authentication: disabled"


def family(host):
    return socket.AF_INET6 if ":" in host else socket.AF_INET


@pytest.mark.parametrize(
    ("said", "state", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "ok", "no Ray dashboard"),
        (b"", "ok", "no Ray dashboard"),
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "ok", "no Ray dashboard"),
        (b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n", "warning", "answers HTTP 500: it may be"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{", "ok", "no Ray dashboard"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 70_000, "ok", "no Ray dashboard"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"authentication_mode": "disabled"}', "failure", "authentication: disabled"),
        (None, "warning", "said nothing in 0.5 s: it may be a Ray dashboard"),
    ],
)
def test_a_listener_that_speaks_another_tongue_or_none(monkeypatch, said, state, words):
    """A real one, on every interface; None: it holds the line and is silent."""
    monkeypatch.setattr(doctor, "DASHBOARD_SECONDS", 0.5)

    class Stranger(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(1 << 16)
            if said is None:
                self.request.recv(1)  # until the other side goes
            else:
                self.request.sendall(said)

    with socketserver.ThreadingTCPServer(("0.0.0.0", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", f"http://127.0.0.1:{server.server_address[1]}")
        line = doctor.dashboard()
        server.shutdown()
    assert line.state == state and words in line.found
    assert ("--dashboard-host=127.0.0.1" in line.do) == (state != "ok")


def test_a_listener_whose_queue_is_full_is_a_warning(monkeypatch):
    """It takes no more connections, so that connecting itself takes too long."""
    monkeypatch.setattr(doctor, "DASHBOARD_SECONDS", 0.5)
    with socket.socket() as full, contextlib.ExitStack() as waiting:
        full.bind(("0.0.0.0", 0))
        full.listen(0)
        for _ in range(4):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", full.getsockname()[1]))
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", f"http://127.0.0.1:{full.getsockname()[1]}")
        assert doctor.dashboard().state == "warning"
