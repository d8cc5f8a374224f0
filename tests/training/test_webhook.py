"""The webhook sends to a local server; one that is away, slow or broken costs nothing but a line of the log."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from bigtrain.training.health import webhook as module
from bigtrain.training.health.watchdog import WatchdogSettings
from bigtrain.training.health.webhook import Webhook


class Receiver(BaseHTTPRequestHandler):
    """Keeps what it gets in `server.got`, and answers as `server.answer` says."""

    def do_POST(self) -> None:  # noqa: N802 (the name http.server calls)
        server: Any = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.got.append((self.headers["Content-Type"], json.loads(body)))
        server.released.wait(30)
        self.send_response(server.answer)
        self.end_headers()

    def log_message(self, *words: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Any]:
    """An HTTP server of this machine that takes POSTs."""
    server: Any = HTTPServer(("127.0.0.1", 0), Receiver)
    server.got, server.answer, server.released = [], 200, threading.Event()
    server.released.set()
    server.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


def test_messages_arrive_as_json_in_order(server: Any) -> None:
    webhook = Webhook(server.url)
    for number in range(3):
        webhook.post({"event": "alarm", "number": number})
    assert webhook.close() == []
    assert server.got == [("application/json", {"event": "alarm", "number": number}) for number in range(3)]


def test_a_slow_server_keeps_nobody_waiting(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
    server.released.clear()
    webhook = Webhook(server.url)
    started_s = time.monotonic()
    webhook.post({"event": "alarm"})
    assert time.monotonic() - started_s < 5
    (failure,) = webhook.close()
    assert "timed out" in failure
    assert webhook.failures() == []


@pytest.mark.parametrize("answer", [500, 404])
def test_a_refusal_is_told_and_the_next_message_is_sent(server: Any, answer: int) -> None:
    webhook, server.answer = Webhook(server.url), answer
    webhook.post({"number": 1})
    webhook.post({"number": 2})
    failures = webhook.close()
    assert len(server.got) == 2
    assert [str(answer) in failure for failure in failures] == [True, True]


def test_nobody_there_is_told() -> None:
    webhook = Webhook("http://127.0.0.1:9/nobody")
    webhook.post({})
    (failure,) = webhook.close()
    assert "the webhook did not take a message" in failure


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.org/x", "example.org", "http://with space"])
def test_only_http_is_posted_to(url: str) -> None:
    with pytest.raises(ValueError, match="webhook"):
        WatchdogSettings(webhook=url)
