"""A million addresses and a million names of accounts: memory stays under its bound, and nobody is freed by it."""

import ipaddress
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest

from jotgate.server import Settings
from jotgate.server.limits import MAX_ENTRIES, Asker, Limits
from jotgate.server.log import get_log
from jotgate.server.refusals import TooManyRequests
from jotgate.throttle import MemoryStore

CLIENT = "web"


async def play(folder: Path, count: int, max_entries: int) -> int:
    """Guess from so many addresses at so many accounts; returns what the limits have in memory by then."""
    now = 1_000.0
    settings = Settings(data_dir=folder, limit_strangers="1000000/second")
    tracemalloc.start()
    try:
        limits = Limits(settings, monotonic=lambda: now, log=get_log(), max_entries=max_entries)
        first = Asker(ipaddress.ip_address("192.0.2.1"))
        for _ in range(30):
            await limits.admit("logins", first, CLIENT)
        for n in range(5):
            await limits.guess("ada@example.com", Asker(ipaddress.ip_address(f"198.51.100.{n}")), None)
        for n in range(count):
            asker = Asker(ipaddress.ip_address(0x0A00_0000 + n))
            with suppress(TooManyRequests):  # all at one instant: new ones share what is left
                await limits.admit("logins", asker, CLIENT)
                await limits.guess(f"person{n}@example.com", asker, None)
            if n % (count // 20) == 0:  # the first address again, and the first account: they are not forgotten
                with pytest.raises(TooManyRequests):
                    await limits.admit("logins", first, CLIENT)
                with pytest.raises(TooManyRequests):
                    await limits.guess("ada@example.com", asker, None)
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


async def test_a_flood_of_names_and_addresses_frees_nobody(tmp_path: Path) -> None:
    assert await play(tmp_path, 1_500, 2_048) < MemoryStore(max_entries=2_048).max_bytes


@pytest.mark.soak
async def test_a_million_names_and_addresses(tmp_path: Path) -> None:
    assert await play(tmp_path, 1_000_000, MAX_ENTRIES) < MemoryStore(max_entries=MAX_ENTRIES).max_bytes
