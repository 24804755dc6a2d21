"""Verifiers that note when they heard of a session's end: in this process, or in one of their own."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from urllib.parse import urlsplit

from jotgate import JotgateError, Verifier
from jotgate.core.revocations import Revocation
from jotgate.verifier.transport import MAX_BODY_BYTES, Answer, EventStream, HttpsTransport

WITHIN_S = 60  # only a failing test waits so long


class ToReplica(HttpsTransport):
    """HTTPS to one replica, whatever address the issuer has: what a balancer that sticks does."""

    def __init__(self, ca_file: Path, port: int) -> None:
        super().__init__(ca_file)
        self._port = port

    def get(
        self, url: str, timeout_s: float, *, max_bytes: int = MAX_BODY_BYTES, headers: Mapping[str, str] | None = None
    ) -> Answer:
        return super().get(self._there(url), timeout_s, max_bytes=max_bytes, headers=headers or {})

    def open(self, url: str, timeout_s: float, *, headers: Mapping[str, str], max_frame_bytes: int) -> EventStream:
        return super().open(self._there(url), timeout_s, headers=headers, max_frame_bytes=max_frame_bytes)

    def _there(self, url: str) -> str:
        parts = urlsplit(url)
        return parts._replace(netloc=f"{parts.hostname}:{self._port}").geturl()


class Ear:
    """What a verifier has heard, and what it says about tokens."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._heard: dict[str, float] = {}
        self._changed = threading.Condition()

    def heard_at(self, sid: str, until: float) -> float | None:
        """When it heard that the session has ended, by the monotonic clock; waits for that until then at most."""
        with self._changed:
            self._changed.wait_for(lambda: sid in self._heard, max(until - time.monotonic(), 0))
            return self._heard.get(sid)

    def judge(self, token: str) -> str:
        """Return "accepted", or the code of the refusal."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def _note(self, sids: list[str] | tuple[str, ...], at: float) -> None:
        with self._changed:
            for sid in sids:
                self._heard.setdefault(sid, at)
            self._changed.notify_all()


class NearEar(Ear):
    """A verifier in this process."""

    def __init__(self, name: str, verifier: Verifier) -> None:
        super().__init__(name)
        self.verifier = verifier
        verifier.on_revoked(self._hear)
        verifier.wait_ready(WITHIN_S)

    def _hear(self, revocation: Revocation) -> None:
        if revocation.kind == "session":
            self._note(revocation.ids, time.monotonic())

    def judge(self, token: str) -> str:
        try:
            self.verifier.verify(token)
        except JotgateError as refusal:
            return refusal.code
        return "accepted"

    def close(self) -> None:
        self.verifier.close()


class DistantEar(Ear):
    """A verifier in a process of its own."""

    def __init__(self, name: str, issuer: str, audience: str, ca_file: Path) -> None:
        super().__init__(name)
        program = Path(__file__).with_name("distant.py")
        self._process = subprocess.Popen(
            [sys.executable, str(program), issuer, audience, str(ca_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answers: SimpleQueue[str] = SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._answers.get(timeout=WITHIN_S) == "ready"

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if "heard" in told:
                self._note(told["heard"], told["at"])
            else:
                self._answers.put(told.get("judged", "ready"))

    def judge(self, token: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"judge": token}) + "\n")
        self._process.stdin.flush()
        return self._answers.get(timeout=WITHIN_S)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()  # which it takes for the end
        assert self._process.wait(WITHIN_S) == 0
        self._reader.join(WITHIN_S)
        self._process.stdout.close()
