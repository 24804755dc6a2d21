"""The server as an ASGI app: the only wiring of its rooms. Run alone or mounted in another app.

``create_app`` opens nothing. The parts start with the host's lifespan, or else with the first request, once per
process: an app that was made before a fork starts anew in each child.
"""

import asyncio
import importlib
import os
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from starlette.routing import Route as StarletteRoute
from structlog.contextvars import bound_contextvars

from jotgate.core.encoding import encode_segment
from jotgate.core.errors import JotgateError, KeySourceError, SettingsError
from jotgate.server.audit_queue import AuditQueue, settings_picture
from jotgate.server.common_passwords import load_common_passwords
from jotgate.server.errands import Errands
from jotgate.server.feed import Feed
from jotgate.server.flows.deps import ClaimsFor, Deps
from jotgate.server.flows.readiness import Readiness
from jotgate.server.http.dispatch import Api
from jotgate.server.http.documents import METADATA_PATH
from jotgate.server.http.exchange import (
    REQUEST_ID_HEADER,
    Receive,
    Request,
    Response,
    Scope,
    Send,
    StreamResponse,
    read_head,
    send_response,
    send_stream,
)
from jotgate.server.http.problems import problem
from jotgate.server.keys import REVOCATION_LIFE_S, KeyRing
from jotgate.server.limits import Limits, Slowdown
from jotgate.server.live import Follower, Listener, LiveState
from jotgate.server.log import get_log
from jotgate.server.mail.courier import Courier
from jotgate.server.mail.messages import Branding
from jotgate.server.mail.transports import FolderTransport, make_transport
from jotgate.server.metrics import Counted, Levels, Uncounted
from jotgate.server.outbox import StoreOutbox
from jotgate.server.passwords import Passwords
from jotgate.server.rules.hashing import parse_argon2
from jotgate.server.settings import Settings
from jotgate.server.store import Store, StoreError
from jotgate.server.store.opening import make_store
from jotgate.verifier import Snapshot, Verifier

_CAUGHT_UP_WITHIN_S: Final = 10.0
_REQUEST_ID_BYTES: Final = 12

Clock = Callable[[], int]


def unix_time() -> int:
    """Return the wall clock in whole seconds."""
    return int(time.time())


@dataclass(frozen=True, slots=True)
class _Running:
    """The parts of the app in one process."""

    pid: int
    deps: Deps
    api: Api
    follower: Follower


class AuthApp:
    """The auth server as an ASGI app. Make it with ``create_app``."""

    def __init__(
        self,
        settings: Settings,
        *,
        claims_for: ClaimsFor | None,
        clock: Clock,
        monotonic: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        self.settings = settings
        self._claims_for = claims_for
        self._clock = clock
        self._monotonic = monotonic
        self._random = random
        self._proxies = settings.proxies
        self._issuer_path = settings.issuer_path
        self._starting = threading.Lock()
        self._running: _Running | None = None
        self._failure: tuple[float, JotgateError | None] = (0.0, None)
        """When it last could not start, on the monotonic clock, and why."""
        self._log = get_log(settings.log_format)

    def start(self) -> Deps:
        """Open the database and the keys in this process, if that has not been done. Blocks for some milliseconds.

        Whoever waits while it fails is told the same: each trying once more would take as long again.

        Raises:
            SettingsError: the data folder, the database or the master key cannot be used.
            StoreError: the database does not answer.
        """
        running = self._running
        if running is not None and running.pid == os.getpid():
            return running.deps
        return self._start(time.monotonic()).deps

    def _start(self, asked_at: float) -> _Running:
        with self._starting:
            if self._running is not None and self._running.pid == os.getpid():
                return self._running
            failed_at, failure = self._failure
            if failure is not None and failed_at >= asked_at:
                raise failure.with_traceback(None)
            try:
                self._running = self._wire()
            except JotgateError as error:
                self._failure = time.monotonic(), error
                raise
            return self._running

    def close(self) -> None:
        """Finish what is under way and close the database. The next request would start it again."""
        with self._starting:
            running, self._running = self._running, None
        if running is not None and running.pid == os.getpid():
            running.follower.stop()
            running.deps.passwords.close()
            running.deps.store.close_now()

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Start and close with the host app: ``FastAPI(lifespan=auth.lifespan)``."""
        await asyncio.to_thread(self.start)
        try:
            yield
        finally:
            await self._close_off_loop()

    def well_known_routes(self) -> list[StarletteRoute]:
        """Return the routes that belong at the root of a host app that mounts this one under a prefix.

        RFC 8414 section 3.1 puts the metadata of ``https://host/auth`` at
        ``https://host/.well-known/oauth-authorization-server/auth``.
        """
        return [StarletteRoute(METADATA_PATH + self._issuer_path, _WellKnown(self), methods=["GET"])]

    def verifier(self, audience: str | None = None) -> Verifier:
        """Return a verifier for APIs in this process: no network, and a logout here counts at once."""
        return Verifier(
            issuer=self.settings.issuer,
            audience=audience or self.settings.audience,
            source=_LiveSource(self),
            algorithms=self.settings.verified_algorithms,
            clock=self._clock,
        )

    def live_snapshot(self) -> Snapshot:
        """Return the keys and revocations that hold now."""
        return self.start().live.snapshot()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI connection."""
        if scope["type"] == "lifespan":
            await self._serve_lifespan(receive, send)
        elif scope["type"] == "http":
            await self._serve_http(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def serve_metadata(self, scope: Scope, send: Send) -> None:
        """Answer with the metadata, whatever the path."""
        request = self._head(scope)
        with bound_contextvars(request_id=request.request_id):
            try:
                response = (await self._start_off_loop()).api.metadata(request)
            except JotgateError as error:
                response = self._not_started(error)
            await send_response(response.with_headers(_id_header(request)), send, with_body=request.method != "HEAD")

    def _head(self, scope: Scope) -> Request:
        return read_head(scope, issuer_path=self._issuer_path, proxies=self._proxies, new_id=self._new_request_id)

    def _new_request_id(self) -> str:
        return encode_segment(self._random(_REQUEST_ID_BYTES))

    async def _serve_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await asyncio.to_thread(self.start)
        except SettingsError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._close_off_loop()
        await send({"type": "lifespan.shutdown.complete"})

    @property
    def is_started(self) -> bool:
        """Whether the parts are there, in this process."""
        running = self._running
        return running is not None and running.pid == os.getpid()

    async def _close_off_loop(self) -> None:
        running = self._running
        try:
            if running is not None and running.pid == os.getpid():
                await running.deps.errands.aclose()
                await running.deps.limits.aclose()
        finally:
            await asyncio.to_thread(self.close)

    async def start_off_loop(self) -> None:
        """Do what ``start`` does without blocking the event loop."""
        await self._start_off_loop()

    async def _start_off_loop(self) -> _Running:
        running = self._running
        if running is None or running.pid != os.getpid():
            # The time of now: many who ask at once may wait for a thread, too.
            running = await asyncio.to_thread(self._start, time.monotonic())
        return running

    async def _serve_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = self._head(scope)
        with bound_contextvars(request_id=request.request_id):
            response: Response | StreamResponse
            try:
                running = await self._start_off_loop()
                response = await running.api.answer(request, receive)
            except JotgateError as error:  # the app could not start; its log says why, and it tries again
                response = self._not_started(error)
            response = response.with_headers(_id_header(request))
            if isinstance(response, StreamResponse):
                await send_stream(response, receive, send, with_body=request.method != "HEAD")
                return
            await send_response(response, send, with_body=request.method != "HEAD")

    def _not_started(self, error: JotgateError) -> Response:
        """Tell the log why; whoever asks has nothing to mend there."""
        self._log.error("not_started", code=error.code, reason=str(error))
        return problem(_as_outage(error), self._log)

    def _wire(self) -> _Running:
        store = make_store(self.settings)
        try:
            store.open()
            return self._wire_on(store)
        except BaseException:
            store.close_now()  # the next request tries again: nothing may be left of this one
            raise

    def _wire_on(self, store: Store) -> _Running:
        settings = self.settings
        master = settings.master_key_source.load(make=not store.load_keys())
        head = store.attend(encode_segment(self._random(16)))
        keys = KeyRing(
            store,
            master,
            settings,
            clock=self._clock,
            monotonic=self._monotonic,
            random=self._random,
            log=self._log,
        )
        keys.open()
        live = LiveState(keys.now.trusted, log=self._log)
        feed = Feed(
            keys.now.feed,
            issuer=settings.issuer,
            entries=live.entries,
            keep_s=REVOCATION_LIFE_S,
            connections=settings.feed_connections,
            connections_per_address=settings.feed_connections_per_address,
            clock=self._clock,
        )
        keys.on_change(lambda now: live.use_keys(now.trusted))
        keys.on_change(lambda now: feed.use_key(now.feed))
        audit = AuditQueue(
            settings=settings_picture(settings), clock=self._clock, monotonic=self._monotonic, log=self._log
        )
        courier = Courier(
            StoreOutbox(store, self._random),
            lambda queued: keys.mail_seals.open(queued),  # noqa: PLW0108  the keys of then
            FolderTransport(settings.mail_folder) if settings.mail_url is None else make_transport(settings.mail_url),
            Branding(name=settings.brand_name, colour=settings.brand_colour),
            settings.mail_sender,
            settings.issuer,
            self._clock,
            self._log,
        )
        follower = Follower(
            live,
            feed,
            store,
            head,
            keys,
            redis_url=settings.redis_url,
            clock=self._clock,
            random=self._random,
            audit=audit,
            audit_keep_s=settings.audit_keep_s,
            courier=courier,
            log=self._log,
        )
        try:
            follower.wait_caught_up(_CAUGHT_UP_WITHIN_S)
        except StoreError:
            follower.stop()
            raise
        passwords = Passwords(settings.hash_workers, parse_argon2(settings.argon2), salt=self._random)
        limits = Limits(settings, monotonic=self._monotonic, log=self._log)

        def levels() -> Levels:
            return Levels(feed.open_streams, len(live), passwords.busy_with, limits.shared, keys.is_usable)

        deps = Deps(
            settings=settings,
            store=store,
            passwords=passwords,
            common_passwords=load_common_passwords(),
            keys=keys,
            verifier=self.verifier(),
            live=live,
            feed=feed,
            limits=limits,
            slowdown=Slowdown(),
            metrics=Uncounted() if settings.metrics_token is None else Counted(levels),
            readiness=Readiness(store.ping),
            audit=audit,
            tell_courier=follower.tell_courier,
            errands=Errands(log=self._log),
            clock=self._clock,
            random=self._random,
            claims_for=self._claims_for,
            log=self._log,
        )
        return _Running(os.getpid(), deps, Api(deps, monotonic=time.monotonic), follower)


def _id_header(request: Request) -> tuple[bytes, bytes]:
    """Tell the client under which id log and audit trail know its request."""
    return REQUEST_ID_HEADER, request.request_id.encode("ascii")


def _as_outage(error: JotgateError) -> KeySourceError:
    """Say as verifiers do (HTTP 503) that there is nothing to judge by."""
    return KeySourceError(f"The auth server of this process could not start: {error}")


class _LiveSource:
    """The key source of in-process verifiers: what the app knows in the process that asks."""

    def __init__(self, app: AuthApp) -> None:
        self._app = app

    def snapshot(self) -> Snapshot:
        try:
            return self._app.live_snapshot()
        except JotgateError as error:
            raise _as_outage(error) from error

    @property
    def is_started(self) -> bool:
        return self._app.is_started

    async def when_started(self) -> None:
        try:
            await self._app.start_off_loop()
        except JotgateError as error:
            raise _as_outage(error) from error

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        return self._app.start().live.subscribe(listener)


class _WellKnown:
    """The metadata at the root of a host app, as an ASGI app of its own."""

    def __init__(self, app: AuthApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app.serve_metadata(scope, send)


def create_app(
    settings: Settings,
    *,
    claims_for: ClaimsFor | None = None,
    clock: Clock = unix_time,
    monotonic: Callable[[], float] | None = None,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> AuthApp:
    """Make the auth server as an ASGI app.

    Args:
        claims_for: returns an account's own claims for its access tokens; wins over the setting of that name.
        clock: returns Unix time in seconds.
        monotonic: returns seconds that nobody sets, to tell when ``clock`` jumps; a ``clock`` of your own never does,
            unless you give both.
        random: returns as many random bytes as it is asked for.

    Raises:
        SettingsError: ``settings.claims_for`` names nothing that can be called.
    """
    hook = claims_for or (import_hook(settings.claims_for) if settings.claims_for else None)
    if monotonic is None:
        monotonic = time.monotonic if clock is unix_time else clock
    return AuthApp(settings, claims_for=hook, clock=clock, monotonic=monotonic, random=random)


def app_from_environment() -> AuthApp:
    """Make the app from ``JOTGATE_*`` variables; the factory that ``jotgate serve`` hands to its server."""
    return create_app(Settings.from_env(os.environ))


def import_hook(name: str) -> ClaimsFor:
    """Return the function that the setting `claims_for` names.

    Raises:
        SettingsError: it names nothing that can be called.
    """
    module, _, attribute = name.partition(":")
    try:
        hook: ClaimsFor = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        # Whatever the operator's module does while it is imported, it ends in a sentence.
        raise SettingsError([f"claims_for: {name} cannot be imported ({type(error).__name__})"]) from error
    if not callable(hook):
        raise SettingsError([f"claims_for: {name} is not a function"])
    return hook
