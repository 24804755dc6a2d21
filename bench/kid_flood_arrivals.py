"""What arrives at an API's event loop, sent from a process of its own. Started by ``bench.kid_flood``.

``python -m bench.kid_flood_arrivals FD SECONDS GOOD_RATE STRANGERS_RATE``: to the socket FD it sends a datagram for
each request, by chance, at so many a second on average. STRANGER stands for a stranger's token; any other is for a good
token and tells when it was sent, in seconds of the system's monotonic clock. END is the last.
"""

import random
import socket
import sys
import time

STRANGER, END = b"stranger", b"end"


def main() -> None:
    """Send."""
    number, seconds, good_rate, strangers_rate = sys.argv[1:]
    chance = random.Random(7)  # noqa: S311 - so that good tokens and strangers' do not fall in step
    good_due = time.monotonic()
    end = good_due + float(seconds)
    stranger_due = good_due if float(strangers_rate) else end
    with socket.socket(fileno=int(number)) as api:
        while (due := min(good_due, stranger_due)) < end:
            time.sleep(max(due - time.monotonic(), 0))
            if stranger_due <= good_due:
                api.send(STRANGER)
                stranger_due += chance.expovariate(float(strangers_rate))
            else:
                api.send(repr(time.monotonic()).encode())
                good_due += chance.expovariate(float(good_rate))
        api.send(END)


if __name__ == "__main__":
    main()
