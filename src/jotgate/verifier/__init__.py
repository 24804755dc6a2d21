"""Freshness of keys and revocations around core's `verify_token`; it must not know servers or frameworks."""

from jotgate.verifier.snapshot import KeySource, Snapshot
from jotgate.verifier.verifier import Status, Verifier

__all__ = ["KeySource", "Snapshot", "Status", "Verifier"]
