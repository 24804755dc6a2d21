"""One process with one verifier under steady load, as an API has it. Started by ``bench.rotation``, which it answers
line by line in JSON.

``{"tokens": [...]}`` are tokens that are good from now on, and replace those of before; they are verified one after the
other, at a steady rate. ``{"watch": [...]}`` are tokens whose key is about to be revoked: verified as well, and no
fault when they are refused. ``{"report": true}`` is answered with what has happened since the last one: how many
verifications there were, which good tokens were refused, when each of the watched was first refused; and why the key
set was fetched each time since the start. Times are seconds of the system's monotonic clock, which all processes share.
"""

import json
import sys
import threading
import time
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import Mapping
from itertools import count
from typing import Any

from bench.fetches import Counting, reasons
from jotgate import JotgateError, UnknownKey, Verifier
from jotgate.core.revocations import Revocation

RATE = 400  # verifications a second
REFRESH_S = 1.0
COOLDOWN_S = 2.0
# The servers announce a second, and a verifier takes a minute for that at least, or its own refresh time if that is
# less, as here. It asks up to a tenth sooner.
SOONEST_S = 0.9 * REFRESH_S
_BATCH = 20


class Load:
    """A thread that verifies."""

    def __init__(self, verifier: Verifier, transport: Counting) -> None:
        self._verifier = verifier
        self._transport = transport
        self._lock = threading.Lock()
        self._tokens: tuple[str, ...] = ()
        self._watched: dict[str, float | None] = {}
        self._verified = 0
        self._refused: Counter[str] = Counter()
        self._key_events: list[float] = []
        self._strangers: list[float] = []
        verifier.on_revoked(self._note_revocation)
        threading.Thread(target=self._run, daemon=True).start()

    def take(self, tokens: list[str]) -> None:
        """Verify these from now on."""
        known = self._verifier.status().keys
        if any(header_of(token)["kid"] not in known for token in tokens):
            self._strangers.append(time.monotonic())
        self._tokens = tuple(tokens)

    def watch(self, tokens: list[str]) -> None:
        """Note when each of these is refused first."""
        with self._lock:
            self._watched = dict.fromkeys(tokens)

    def report(self) -> Mapping[str, Any]:
        """Tell what has happened since the last report."""
        with self._lock:
            told = {
                "verified": self._verified,
                "refused": dict(self._refused),
                "watched": list(self._watched.values()),
                "fetched": reasons(
                    self._transport.fetches.copy(),
                    key_events=self._key_events,
                    strangers=self._strangers,
                    soonest_s=SOONEST_S,
                    cooldown_s=COOLDOWN_S,
                ),
                "keys": list(self._verifier.status().keys),
            }
            self._verified, self._refused = 0, Counter()
        return told

    def _run(self) -> None:
        next_at = time.monotonic()
        for number in count():
            tokens = self._tokens
            with self._lock:
                for position in range(_BATCH if tokens else 0):
                    self._verify(tokens[(number * _BATCH + position) % len(tokens)])
                for token, refused_at in self._watched.items():
                    if refused_at is None and not self._is_good(token):
                        self._watched[token] = time.monotonic()
            next_at += _BATCH / RATE
            time.sleep(max(next_at - time.monotonic(), 0))

    def _note_revocation(self, revocation: Revocation) -> None:
        if revocation.kind == "key":
            self._key_events.append(time.monotonic())

    def _judge(self, token: str) -> None:
        presented_at = time.monotonic()
        try:
            self._verifier.verify(token)
        except UnknownKey:
            self._strangers.append(presented_at)
            raise

    def _verify(self, token: str) -> None:
        try:
            self._judge(token)
            self._verified += 1
        except JotgateError as fault:
            self._refused[fault.code] += 1

    def _is_good(self, token: str) -> bool:
        try:
            self._judge(token)
        except JotgateError:
            return False
        return True


def header_of(token: str) -> dict[str, str]:
    """Read a token's header."""
    segment = token.partition(".")[0]
    header: dict[str, str] = json.loads(urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    return header


def say(answer: Mapping[str, Any]) -> None:
    """Answer with one line."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Serve the parent until it closes the pipe."""
    issuer, audience, ca_file = sys.argv[1:]
    transport = Counting(ca_file)
    verifier = Verifier(
        issuer=issuer, audience=audience, transport=transport, refresh_s=REFRESH_S, cooldown_s=COOLDOWN_S
    )
    verifier.wait_ready(60)
    load = Load(verifier, transport)
    say({"ready": True})
    for line in sys.stdin:
        asked = json.loads(line)
        if "tokens" in asked:
            load.take(asked["tokens"])
        elif "watch" in asked:
            load.watch(asked["watch"])
        else:
            say(load.report())
    verifier.close()


if __name__ == "__main__":
    main()
