"""A verifier in a process of its own, as an API has it; tests under faults start it and talk to it in lines of JSON.

It says `{"ready": …}`, then `{"heard": [sids], "at": seconds}` for each session that it hears has ended, and answers
`{"judge": token}` with `{"judged": …}`: "accepted", or the code of the refusal. Times are of the system's monotonic
clock, which all processes share.
"""

import json
import sys
import threading
import time

from jotgate import JotgateError, Verifier
from jotgate.core.revocations import Revocation

_saying = threading.Lock()


def say(**told: object) -> None:
    with _saying:
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


def hear(revocation: Revocation) -> None:
    if revocation.kind == "session":
        say(heard=revocation.ids, at=time.monotonic())


def judge(verifier: Verifier, token: str) -> str:
    try:
        verifier.verify(token)
    except JotgateError as refusal:
        return refusal.code
    return "accepted"


def main() -> None:
    issuer, audience, ca_file = sys.argv[1:]
    with Verifier(issuer=issuer, audience=audience, ca_file=ca_file) as verifier:
        verifier.on_revoked(hear)
        verifier.wait_ready(60)
        say(ready=True)
        for line in sys.stdin:
            say(judged=judge(verifier, json.loads(line)["judge"]))


if __name__ == "__main__":
    main()
