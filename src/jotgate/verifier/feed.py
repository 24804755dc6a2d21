"""Follows an issuer's revocation feed: one daemon thread beside the one that fetches keys.

A thread of its own, because a key set that comes slowly must not hold up a revocation. It knows when to connect, what
to ask for and whom to tell; what messages mean is for `following`, and how bytes get here for `transport`.
"""

import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, Protocol
from urllib.parse import urlsplit

from msgspec import Struct

from jotgate.core.algorithms import ASYMMETRIC
from jotgate.core.feed import (
    MAX_EVENT_BYTES,
    MAX_SNAPSHOT_BYTES,
    FeedKeyUnknown,
    FeedRefused,
    Message,
    parse_event,
    parse_snapshot,
)
from jotgate.core.jwk import KeySet
from jotgate.core.revocations import Revocation, Revocations
from jotgate.verifier.attempt import Attempt
from jotgate.verifier.discovery import FeedAddresses, parse_key_set
from jotgate.verifier.following import FeedFull, Following, Taken
from jotgate.verifier.transport import EventStream, FetchError, HttpsTransport, NoStream, Silence, Transport

_log = logging.getLogger("jotgate.verifier")

TOKEN_AGAIN_S: Final = 300.0
"""After so long a verifier token that was refused is tried again."""

_OK: Final = 200
_UNAUTHORIZED: Final = 401

DEAD_S: Final = 12.0
"""A stream on which nothing came for so long is dead: the issuer sends a heartbeat every 5 s."""
FIRST_FRAME_S: Final = 3.0
"""The issuer sends a heartbeat as soon as somebody connects. Where it does not arrive, something holds it back."""
LASTS_S: Final = 60.0
"""A stream that begins well and falls silent before this has gone the same way, if its issuer goes on to answer. After
this it is an accident on the way: the next one may last."""
POLL_S: Final = 0.8
"""How long to wait, at most, between two questions where no stream passes: a revocation counts within a second."""
STREAM_AGAIN_S: Final = 300.0
"""How long to do so before the stream is tried again."""
STREAM_SOON_S: Final = 5.0
"""The same where the issuer, or a proxy in front of it, said that it is busy."""
KEYS_AGAIN_S: Final = 5.0
"""Messages under unknown keys, and connections that are made anew, cause one fetch each of the feed's keys in this time
at most: whoever can put garbage into the stream makes nobody ask more often."""
_FIRST_RETRY_S: Final = 0.2
_LONGEST_RETRY_S: Final = 5.0
_LONGEST_INLINE_RETRY_S: Final = 30.0  # whoever verifies waits for it
_TIDY_S: Final = 600.0
_FRAME_BYTES: Final = MAX_EVENT_BYTES + 1024

Mode = Literal["none", "starting", "stream", "poll", "inline", "silent"]
OnSilence = Literal["accept", "refuse"]
OnRevoked = Callable[[Revocation], None]


class FeedStatus(Struct, frozen=True):
    """How a verifier hears of revocations."""

    mode: Mode
    """`none` (the issuer has no feed, or has not been reached), `starting`, `stream`, `poll`, `inline`; `silent` when
    nothing was heard for `max_staleness_s`."""
    on_silence: OnSilence
    entries: int
    """How many revocations are known that still matter."""
    log_id: str | None
    head: int
    """The issuer's log is known up to this number."""
    lag_s: float | None
    """Seconds since the verifier last heard that nothing was missing; None before the first time."""
    last_error: str | None
    """Why it last could not follow; None while it follows."""
    keys_error: str | None = None
    """Why the feed's own keys could not be fetched again by the schedule; those that are known stay meanwhile."""
    token_refused: bool = False
    """The issuer does not know the verifier token: its limits count for this verifier as for anybody."""


class Owner(Protocol):
    """Who has the snapshot that verifications read."""

    def renew(self) -> None:
        """Put the feed's new state in place."""

    def refresh_soon(self) -> None:
        """Fetch the keys, the feed's too, because the issuer has revoked one."""


class RemoteFeed:
    """What is revoked, as the issuer's feed tells it.

    Args:
        issuer: whose messages are believed.
        max_key_age_offline_s: how long the feed's keys are used after the last successful fetch of them.
        max_staleness_s: after so long without hearing anything the verifier does what `on_silence` says.
        inline: no thread: whoever verifies asks by `poll_if_due`.
        verifier_token: by which the issuer knows this verifier; told to the issuer's own host and to nobody else.
        jitter: a random number from 0 up to 1.
    """

    def __init__(
        self,
        *,
        issuer: str,
        transport: Transport,
        timeout_s: float,
        max_key_age_offline_s: float,
        max_staleness_s: float,
        on_silence: OnSilence,
        inline: bool,
        verifier_token: str | None,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._issuer = issuer
        self._verifier_token = verifier_token
        self._transport = transport
        self._timeout_s = timeout_s
        self._max_key_age_offline_s = max_key_age_offline_s
        self._max_staleness_s = max_staleness_s
        self._on_silence = on_silence
        self._inline = inline
        self._clock = clock
        self._monotonic = monotonic
        self._jitter = jitter
        self.owner: Owner | None = None
        self._following = Following()
        self._keys: KeySet | None = None
        self._keys_at = float("-inf")  # monotonic, when the fetch that brought them began
        self._keys_number = 0
        self._numbers = itertools.count(1)  # of the fetches of keys, in the order in which they begin
        self._keys_asked_at = float("-inf")
        self._keys_error: str | None = None
        self._addresses: FeedAddresses | None = None
        self._anonymous_until = float("-inf")
        self._token_refused = False
        self._heard_at: float | None = None
        self._mode: Mode = "none"
        self.last_error: str | None = None
        self._listeners: list[OnRevoked] = []
        self._gap_after: str | None = None  # the position that something was last missing after
        self._due_at = float("-inf")  # inline
        self._inline_failures = 0
        self._tidied_at = monotonic()
        self._begin()

    def _begin(self) -> None:
        self._thread: threading.Thread | None = None
        self._stream: EventStream | None = None
        self._stopped = threading.Condition()
        self._asking = threading.Lock()
        # A thread that was told to end may still be at work when its successor is.
        self._taking = threading.Lock()
        self.first = Attempt()
        """The first try to fetch the snapshot."""
        self._asked = self._following.position is not None
        """Whether it is over."""

    # What verifications are judged by

    @property
    def revocations(self) -> Revocations:
        """What is revoked."""
        return self._following.known.revocations

    @property
    def revoked_keys(self) -> frozenset[str]:
        """The `kid`s that are not believed any more, whatever the key set says."""
        return self._following.known.revoked_keys

    @property
    def pending(self) -> bool:
        """Whether what is revoked is just being asked for the first time: worth waiting for."""
        return not self._inline and self._addresses is not None and not self._asked

    @property
    def silent_at(self) -> float:
        """The monotonic time from which on nothing may be decided; infinite where silence is accepted."""
        if self._on_silence == "accept":
            return float("inf")
        return float("-inf") if self._heard_at is None else self._heard_at + self._max_staleness_s

    def subscribe(self, listener: OnRevoked) -> Callable[[], None]:
        """Call `listener` with each new revocation once it counts; returns what ends that."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    def status(self) -> FeedStatus:
        """Tell how things stand."""
        lag_s = None if self._heard_at is None else self._monotonic() - self._heard_at
        silent = self.last_error is not None if lag_s is None else lag_s > self._max_staleness_s
        return FeedStatus(
            mode="silent" if silent else self._mode,
            on_silence=self._on_silence,
            entries=len(self._following.known),
            log_id=self._following.log_id,
            head=self._following.seq,
            lag_s=lag_s,
            last_error=self.last_error,
            keys_error=self._keys_error,
            token_refused=self._token_refused,
        )

    # Beginning and ending

    def find(self, addresses: FeedAddresses | None) -> None:
        """Take the addresses that the metadata names. Metadata that have lost them for once do not end anything."""
        if self._addresses is None and addresses is not None:
            self._mode = "inline" if self._inline else "starting"
        self._addresses = addresses or self._addresses

    def start(self) -> None:
        """Begin to follow, if there is something to follow and nobody does. Called by one thread."""
        if self._inline or self._addresses is None or self._thread is not None:
            return
        thread = threading.Thread(target=self._run, name="jotgate-revocations", daemon=True)
        self._thread = thread
        try:
            thread.start()
        except RuntimeError as fault:  # no more threads to be had, or the interpreter is ending
            self._thread = None
            self.last_error = f"no thread could be started ({fault})"
            self._end_first()

    def stop(self) -> None:
        """Let the thread end, and whatever it waits for. The next `start` goes on from where it was."""
        with self._stopped:
            self._thread = None
            stream = self._stream
            self._stopped.notify_all()
        first, self.first = self.first, Attempt()
        first.end()
        if stream is not None:
            stream.cut()

    def after_fork(self) -> None:
        """Forget, in a forked child, the thread and the connection that stayed with the parent."""
        stream = self._stream
        self._begin()
        if stream is not None:
            stream.abandon()

    # Following

    def _run(self) -> None:
        me = threading.current_thread()
        failures = 0
        refusals = 0  # of the stream, in a row
        poll_until = float("-inf")
        while self._thread is me:
            heard_before = self._heard_at
            try:
                if self._monotonic() < poll_until or not self._streams:
                    self._poll()
                    failures = 0
                    self._pause(me, POLL_S * (1 - 0.2 * self._jitter()))
                    continue
                self._follow(me)
            except NoStream as fault:
                refusals += 1
                if refusals >= 2:  # streams do not pass, it seems; when that is tried again, once is enough
                    refusals = 1
                    poll_until = self._monotonic() + (STREAM_SOON_S if fault.for_now else STREAM_AGAIN_S)
                    self._failed(fault, f"no stream of revocations ({fault}), so they are asked for again and again")
                    continue
                self._failed(fault)
                # A stream that begins well and leads nowhere is still one that is refused.
                heard_before = self._heard_at
            except (FetchError, FeedRefused, FeedFull) as fault:
                if self._thread is not me:
                    return
                self._failed(fault)
            except Exception as fault:  # noqa: BLE001 # whatever it was, without this thread nothing would be heard
                _log.exception("%s: unexpected fault while following revocations", self._issuer)
                self.last_error = f"unexpected {type(fault).__name__}"
            self._end_first()
            if self._heard_at != heard_before:
                failures = refusals = 0
            delay_s = min(_FIRST_RETRY_S * 2.0 ** min(failures, 16), _LONGEST_RETRY_S)
            failures += 1
            self._pause(me, delay_s * (1 - 0.5 * self._jitter()))

    @property
    def _streams(self) -> bool:
        """Whether there is a stream at all, for this transport."""
        named = self._addresses is not None and self._addresses.stream_uri is not None
        return named and isinstance(self._transport, HttpsTransport)

    def _end_first(self) -> None:
        """Nobody has to wait any more: for better or worse."""
        if not self._asked:
            self._asked = True
            if self.owner is not None:
                self.owner.renew()
            self.first.end()

    def _pause(self, me: threading.Thread, seconds: float) -> None:
        with self._stopped:
            self._stopped.wait_for(lambda: self._thread is not me, seconds)

    def _follow(self, me: threading.Thread) -> None:
        """Read the stream for as long as it lives. Raises FetchError, FeedRefused or FeedFull when it does not."""
        addresses = self._addresses
        transport = self._transport
        if addresses is None or addresses.stream_uri is None or not isinstance(transport, HttpsTransport):
            raise NoStream("there is none")
        self._have_keys()
        if self._following.position is None:
            self._fetch_snapshot()
        stream_uri = addresses.stream_uri
        headers = {"Last-Event-ID": self._following.position or "", **self._credentials(stream_uri)}
        try:
            stream = transport.open(stream_uri, self._timeout_s, headers=headers, max_frame_bytes=_FRAME_BYTES)
        except NoStream as fault:
            if fault.status == _UNAUTHORIZED and "Authorization" in headers:
                self._is_stranger()
                fault.for_now = True
            raise
        except FetchError as fault:
            raise self._held_back(fault) from None
        if "Authorization" in headers:
            self._token_refused = False
        try:
            with self._stopped:
                if self._thread is not me:
                    return
                self._stream = stream
            try:
                kind, data = stream.next(FIRST_FRAME_S)
            except FetchError as fault:
                raise self._held_back(fault) from None
            began = heard = self._monotonic()
            while self._thread is me:
                self._mode = "stream"
                self._take_frame(kind, data)
                try:
                    kind, data = stream.next(DEAD_S)
                except Silence as fault:
                    if heard - began >= LASTS_S:
                        raise
                    raise self._held_back(fault) from None
                heard = self._monotonic()
        finally:
            with self._stopped:
                if self._stream is stream:  # else it is a successor's
                    self._stream = None
            stream.close()

    def _held_back(self, fault: FetchError) -> NoStream:
        """Tell a stream that does not pass from an issuer that is away. A stream may be held back with its head.

        Raises FetchError: the issuer answers nothing else, either; when it is back, so may be its stream.
        """
        self._fetch_keys()
        return NoStream(str(fault))

    def poll_if_due(self) -> None:
        """Ask once for what is new, unless that was done a moment ago. Blocks for the time-out at most."""
        with self._asking:
            if not self.is_due:
                return
            try:
                self._poll()
            except (FetchError, FeedRefused, FeedFull) as fault:
                self._failed(fault)
                self._wait_longer()
            else:
                self._inline_failures = 0
                self._due_at = self._monotonic() + POLL_S

    def _wait_longer(self) -> None:
        """Put off the next question, or each verification would wait for an issuer that is away."""
        delay_s = min(POLL_S * 2.0 ** min(self._inline_failures, 16), _LONGEST_INLINE_RETRY_S)
        self._inline_failures += 1
        self._due_at = self._monotonic() + delay_s

    @property
    def is_due(self) -> bool:
        """Whether `poll_if_due` would ask."""
        return self._addresses is not None and self._monotonic() >= self._due_at

    def _poll(self) -> None:
        addresses = self._addresses
        if addresses is None:
            raise FetchError("there is no feed of revocations")
        if self._keys is None or self.last_error is not None:
            self._have_keys()
        position = self._following.position
        if position is None:
            self._fetch_snapshot()
        else:
            joint = "&" if "?" in addresses.snapshot_uri else "?"
            body = self._get(f"{addresses.snapshot_uri}{joint}after={position}", MAX_SNAPSHOT_BYTES)
            for kind, data in parse_frames(body):
                self._take_frame(kind, data)
        self._mode = "inline" if self._inline else "poll"

    def _take_frame(self, kind: str, data: str) -> None:
        if kind == "resync":
            self._fetch_snapshot()
            return
        message = self._believe(parse_event, data)
        with self._taking:
            taken = self._following.take_event(message, monotonic=self._monotonic(), wall=self._clock())
        self._took(taken)
        position = self._following.position
        in_this_log = message.log_id == self._following.log_id and message.seq > self._following.seq
        if taken.resync and in_this_log and position != self._gap_after:
            self._gap_after = position
            raise FetchError("something is missing before what came")  # asked for once again from where we are
        if taken.resync:
            self._fetch_snapshot()

    def _fetch_snapshot(self) -> None:
        addresses = self._addresses
        if addresses is None:
            raise FetchError("there is no feed of revocations")
        message = self._believe(parse_snapshot, self._get(addresses.snapshot_uri, MAX_SNAPSHOT_BYTES))
        with self._taking:
            taken = self._following.take_snapshot(message, monotonic=self._monotonic(), wall=self._clock())
        self._took(taken)

    # The feed's own keys

    def _believe(self, parse: Callable[[str | bytes, KeySet, str], Message], raw: str | bytes) -> Message:
        """Read a message; where it names an unknown key, judge it again by the keys of now, once in KEYS_AGAIN_S."""
        try:
            return parse(raw, self._known_keys(), self._issuer)
        except FeedKeyUnknown:
            now = self._monotonic()
            if now - self._keys_asked_at < KEYS_AGAIN_S:
                raise
        self._fetch_keys()
        self._keys_asked_at = now  # only now: a fetch that failed is tried again with the next connection
        return parse(raw, self._known_keys(), self._issuer)

    def _known_keys(self) -> KeySet:
        """Give the keys that may sign messages: none that is revoked, wherever it is still published."""
        keys = self._keys
        if keys is None or self._monotonic() >= self._keys_at + self._max_key_age_offline_s:
            raise FetchError("the keys of the feed were last fetched too long ago")
        return keys.without(self.revoked_keys)

    def _have_keys(self) -> None:
        """Fetch the keys unless that was done a moment ago: after a failure, it may have been for want of them."""
        if self._keys is None or self._monotonic() - self._keys_at >= KEYS_AGAIN_S:
            self._fetch_keys()

    def _fetch_keys(self) -> None:
        addresses = self._addresses
        if addresses is None:
            raise FetchError("there is no feed of revocations")
        began, number = self._monotonic(), next(self._numbers)
        fetched = parse_key_set(self._get(addresses.jwks_uri, None), ASYMMETRIC)
        with self._taking:
            if number > self._keys_number:  # else another thread's, which began later, has brought newer ones already
                self._keys, self._keys_at, self._keys_number = fetched, began, number
        self._keys_error = None

    def refresh_keys(self, since: float) -> None:
        """Fetch the feed's keys, unless that was done since the monotonic time `since`; failing, keep the known ones.

        Called beside whoever follows, and with each fetch of the issuer's keys: a key that is published ahead is known
        before it signs, and one that is published no more is not believed for longer than a token's key would be.
        """
        if self._keys is None or self._keys_at >= since:
            return
        try:
            self._fetch_keys()
        except FetchError as fault:
            said = str(fault)
            if said != self._keys_error:  # once, not with each retry
                _log.warning("%s: the feed's keys could not be fetched, the known ones stay: %s", self._issuer, said)
            self._keys_error = said
        except Exception as fault:  # noqa: BLE001 # whatever it was, nobody else would fetch the issuer's keys
            _log.exception("%s: unexpected fault while fetching the feed's keys", self._issuer)
            self._keys_error = f"unexpected {type(fault).__name__}"

    def _get(self, uri: str, max_bytes: int | None) -> bytes:
        transport = self._transport
        try:
            if max_bytes is not None and isinstance(transport, HttpsTransport):
                headers = self._credentials(uri)
                answer = transport.get(uri, self._timeout_s, max_bytes=max_bytes, headers=headers)
                if answer.status == _UNAUTHORIZED and headers:
                    self._is_stranger()
                    answer = transport.get(uri, self._timeout_s, max_bytes=max_bytes)
                elif headers and answer.status == _OK:
                    self._token_refused = False
            else:
                answer = transport(uri, self._timeout_s)
        except FetchError as fault:
            raise FetchError(f"{uri}: {fault}") from None
        if answer.status != 200:
            raise FetchError(f"{uri}: status {answer.status}")
        return answer.body

    def _credentials(self, uri: str) -> dict[str, str]:
        """Give the header by which the issuer knows this verifier. The metadata may name other hosts: not for them."""
        if self._verifier_token is None or _host(uri) != _host(self._issuer):
            return {}
        if self._monotonic() < self._anonymous_until:
            return {}
        return {"Authorization": f"Bearer {self._verifier_token}"}

    def _is_stranger(self) -> None:
        """Go on without the token, which the issuer does not know: to hear of revocations matters more."""
        self._anonymous_until = self._monotonic() + TOKEN_AGAIN_S
        self._token_refused = True
        _log.error("%s: the issuer does not know the verifier token; its limits count for this verifier", self._issuer)

    def _took(self, taken: Taken) -> None:
        """Let what came count, and then tell whoever wants to know."""
        now = self._monotonic()
        if taken.heard:
            self._heard_at = now
            if self.last_error is not None:
                _log.info("%s: revocations are heard of again", self._issuer)
            self.last_error = None
        if now - self._tidied_at > _TIDY_S:
            self._tidied_at = now
            with self._taking:
                self._following.drop(now)
        self._asked = True
        if self.owner is not None:
            self.owner.renew()
            if any(each.kind == "key" for each in taken.new):
                self.owner.refresh_soon()
        self.first.end()
        self._tell(taken.new)

    def _tell(self, revocations: Sequence[Revocation]) -> None:
        for revocation in revocations:
            for listener in tuple(self._listeners):
                try:
                    listener(revocation)
                except Exception:  # noqa: BLE001 # the app's own code: it must not keep others from hearing
                    _log.exception("%s: what on_revoked was given failed", self._issuer)

    def _failed(self, fault: Exception, what: str | None = None) -> None:
        said = what or str(fault)
        if said != self.last_error:  # said once, not with each retry
            policy = f"after {self._max_staleness_s:g} s of silence: {self._on_silence}"
            what = what or f"revocations cannot be followed, those that are known stay; {policy} ({said})"
            _log.warning("%s: %s", self._issuer, what)
        self.last_error = said


def parse_frames(body: bytes) -> Iterator[tuple[str, str]]:
    """Read the server-sent events of a whole body: type and data of each. Raises FetchError: it is none."""
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError:
        raise FetchError("the answer is not a list of events") from None
    blocks = text.split("\n\n")
    if blocks.pop().strip():
        raise FetchError("the answer was cut off")
    for block in blocks:
        said = dict(line.partition(": ")[::2] for line in block.split("\n"))
        if "data" not in said:
            raise FetchError("the answer is not a list of events")
        yield said.get("event", ""), said["data"]


def _host(url: str) -> tuple[str | None, int]:
    parts = urlsplit(url)
    return parts.hostname, parts.port or 443
