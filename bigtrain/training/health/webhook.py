"""A webhook: small JSON by POST from a thread of its own; training never waits for it and never stops because of it."""

import json
import queue
import threading
import urllib.request
from collections.abc import Mapping
from typing import Any

TIMEOUT_S = 10.0  # for one POST
CLOSE_S = 15.0  # that the end of a run waits for what is still on its way


class Webhook:
    """Posts to one URL, one message after the other."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._failures: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def post(self, message: Mapping[str, Any]) -> None:
        """Send a message soon."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="webhook", daemon=True)
            self._thread.start()
        self._messages.put(json.dumps(message).encode())

    def failures(self) -> list[str]:
        """Return what went wrong since the last call, a sentence each."""
        found = []
        while not self._failures.empty():
            found.append(self._failures.get())
        return found

    def close(self) -> list[str]:
        """Wait a little for what is on its way, and return what went wrong since the last call of `failures`."""
        if self._thread is not None:
            self._messages.put(None)
            self._thread.join(CLOSE_S)
            self._thread = None
        return self.failures()

    def _work(self) -> None:
        while (message := self._messages.get()) is not None:
            # The settings take http and https alone: urllib would open file: URLs too.
            request = urllib.request.Request(self._url, message, {"Content-Type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT_S):
                    pass
            except (OSError, ValueError) as error:  # URLError and HTTPError are OSErrors
                self._failures.put(f"the webhook did not take a message: {error}")
