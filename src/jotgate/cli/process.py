"""The serving process: Granian around an ASGI app, the signals that end it, and the moment from which it answers.

It knows listening, TLS files and processes; it knows no setting, no route and no command.
"""

import asyncio
import contextlib
import errno
import functools
import http.client
import logging
import multiprocessing
import os
import queue
import resource
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from granian.constants import HTTPModes, Interfaces, Loops, SSLProtocols
from granian.http import HTTP1Settings, HTTP2Settings
from granian.log import LogLevels
from granian.server import MPServer
from msgspec import Struct

from jotgate.cli.renewing import Renewal, TlsFiles
from jotgate.core.errors import JotgateError, SettingsError

LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
App = Callable[[_Message, _Receive, _Send], Awaitable[None]]

# Connections that are open at once, idle ones included, and those that wait behind them to be accepted.
_MAX_CONNECTIONS: Final = 4096
_BACKLOG: Final = 1024
# Files that a worker opens besides its connections: the database, its own libraries.
_OTHER_FILES: Final = 128
# The longest head of a request. Granian's own defaults (400 KiB, and 16 MiB in HTTP/2) would be a stranger's to spend.
_MAX_HEAD_BYTES: Final = 65_536
_MAX_STREAMS: Final = 100
_HEAD_WITHIN_MS: Final = 10_000
_PING_EVERY_MS: Final = 20_000
_PING_ANSWERED_WITHIN_S: Final = 20
# What requests under way get to finish after a stop; then their connections are cut.
_STOP_WITHIN_S: Final = 10
_POLL_S: Final = 0.02
# The event loop turns again when Granian serves; what it did before the application was started takes much less.
_SERVES_AFTER_S: Final = 0.01
_TELL_AFTER_S: Final = 10
_SPLIT_OFF_WITHIN_S: Final = 5
_OLDEST_TLS: Final = SSLProtocols.tls12
_STOPS: Final = (signal.SIGINT, signal.SIGTERM)


class Listening(Struct, frozen=True):
    """Where and how the server listens: an address of this machine, a port, TLS or (None) clear text."""

    host: str
    port: int
    tls: TlsFiles | None
    workers: int
    log_level: str


def resolve_host(host: str) -> str:
    """Return the address that a host name means here; an address is returned as it is.

    Raises:
        SettingsError: the name means nothing.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise SettingsError((f"--host {host}: this is neither an address nor a name that is known here",)) from None
    addresses = [str(each[4][0]) for each in found]
    # Granian listens on one address, and where a name has both kinds, everybody can reach the older.
    return next((address for address in addresses if ":" not in address), addresses[0])


def check_can_listen(host: str, port: int) -> None:
    """Refuse a place where somebody listens already, or where we may not.

    Granian's workers share their port with SO_REUSEPORT, so that it would not notice a second server.

    Raises:
        SettingsError: with the reason.
    """
    bind(host, port, "--port").close()


def bind(host: str, port: int, option: str) -> socket.socket:
    """Return a socket that is bound to the place, which an option of that name gave, and does not listen yet.

    Raises:
        SettingsError: with the reason, where somebody listens already, or where we may not.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that has just ended is no obstacle
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise SettingsError((_why_not(error, host, port, option),)) from None
    return bound


def _why_not(error: OSError, host: str, port: int, option: str) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} on {host} is in use: stop the program that listens there, or choose another {option}"
        case errno.EACCES:
            return f"port {port} needs the rights of an administrator: choose a {option} above 1023"
        case errno.EADDRNOTAVAIL:
            return f"--host {host} is not an address of this machine"
        case _:
            return f"cannot listen on {host}, port {port}: {error.strerror}"


def run(
    load_app: Callable[[], App],
    listening: Listening,
    ready_path: str,
    on_ready: Callable[[], None],
    renewal: Renewal,
    look_every_s: float = 1.0,
) -> int:
    """Serve until SIGINT or SIGTERM, and return the exit status: 0 after these, else 1 or 2 with a sentence on stderr.

    SIGHUP and a changed certificate replace the workers: new ones first, and the old ones finish their requests.

    Args:
        load_app: makes the application; called in each worker process.
        ready_path: the path that answers 200 once requests are welcome.
        on_ready: called once, in a thread, when it has.
        renewal: says when the certificate has changed, and what new workers serve with.
        look_every_s: how often it is asked, in seconds.
    """
    refusals, tell = multiprocessing.Pipe(duplex=False)
    server, forked, stopping = _granian(listening), threading.Event(), threading.Event()
    watch = threading.Thread(
        target=_announce, args=(listening, ready_path, on_ready, forked, stopping), name="jotgate-ready", daemon=True
    )
    replacing = _Replacing(server, renewal, functools.partial(_answers, listening, ready_path), look_every_s, stopping)

    def started() -> None:
        # A closed terminal ends what was started in it; without one, SIGHUP makes Granian replace its workers.
        in_terminal = sys.stdin is not None and sys.stdin.isatty()
        signal.signal(signal.SIGHUP, server.signal_handler_interrupt if in_terminal else replacing.ask)
        watch.start()
        replacing.start()

    left = listening.workers

    def split_off() -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            forked.set()

    server.on_startup(started)
    os.register_at_fork(after_in_parent=split_off, after_in_child=_obey_main_process)
    replacing.keep_off_forks()
    try:
        server.serve(target_loader=functools.partial(_load_in_worker, load_app, tell), wrap_loader=False)
    except SystemExit:
        if server.interrupt_signal:  # a worker may have heard it first, if the signal was for the whole group
            return 0
        if refusals.poll():
            status, sentence = refusals.recv()
            sys.stderr.write(f"error: {sentence}\n")
            return int(status)
        sys.stderr.write("error: a worker process ended unexpectedly, so the server stopped\n")
        return 1
    finally:
        stopping.set()
        for number in _STOPS:  # what arrives from now on has nothing left to stop
            signal.signal(number, signal.SIG_IGN)
    return 0


class _Replacing:
    """The thread that lets Granian replace its workers: when SIGHUP asks for it, or the certificate has changed."""

    def __init__(
        self,
        server: "_Server",
        renewal: Renewal,
        answers: Callable[[], int | None],
        look_every_s: float,
        stopping: threading.Event,
    ) -> None:
        self._server = server
        self._renewal = renewal
        self._answers = answers
        self._look_every_s = look_every_s
        self._stopping = stopping
        self._waits = False
        self._told = ""
        self._asked: queue.SimpleQueue[None] = queue.SimpleQueue()  # of all queues the one that signal handlers may use
        self._busy = threading.Lock()

    def ask(self, *_: object) -> None:
        """Handle SIGHUP."""
        self._asked.put(None)

    def start(self) -> None:
        threading.Thread(target=self._run, name="jotgate-renewal", daemon=True).start()

    def keep_off_forks(self) -> None:
        """No worker is split off while this thread is in the middle of something, and holds locks of OpenSSL, say."""
        os.register_at_fork(
            before=self._busy.acquire, after_in_parent=self._busy.release, after_in_child=self._busy.release
        )

    def _run(self) -> None:
        while not self._stopping.is_set():
            asked = True
            try:
                self._asked.get(timeout=self._look_every_s)
            except queue.Empty:
                asked = False
            with self._busy:
                self._look(asked)

    def _look(self, asked: bool) -> None:
        now = int(time.time())
        try:
            self._tidy()
            if asked or (self._renewal.due(now) and self._is_time()):
                self._renewal.take(now, self._use)
                if not asked:
                    sys.stderr.write("the certificate has changed: new workers take over\n")
                self._server.signal_handler_reload()  # type: ignore[no-untyped-call]
        except SettingsError as error:
            # A certificate that is half renewed, say: what serves now serves on.
            faults = "".join(f"\n  {fault}" for fault in error.faults)
            sys.stderr.write(f"error: the workers are not replaced:{faults}\n")
        except Exception as error:  # noqa: BLE001 - whatever it was: without this thread the certificate would run out
            told = f"error: the workers are not replaced: {type(error).__name__}: {error}\n"
            if asked or told != self._told:  # it may well be the same at each look
                sys.stderr.write(told)
            self._told = told
        if self._server.reload_signal:  # which Granian may have missed, had it just begun with the one before
            self._server.main_loop_interrupt.set()

    def _is_time(self) -> bool:
        """Whether new workers would start: without its database, say, none would, and the old ones can still wait."""
        answer = self._answers()
        ready = answer == http.client.OK
        if not ready and not self._waits:
            told = answer or "nothing"
            sys.stderr.write(f"the certificate has changed; new workers wait until the server is ready ({told} now)\n")
        self._waits = not ready
        return ready

    def _use(self, files: TlsFiles) -> None:
        self._server.build_ssl_context(files.cert, files.key, None, _OLDEST_TLS, None, [], client_verify=False)

    def _tidy(self) -> None:
        """Let go of files that no worker will read any more."""
        found, self._server.settled = self._server.settled, None
        if found is not None and found[1] is not None and found is self._server.ssl_ctx:
            self._renewal.settled(Path(found[1]))


def _obey_main_process() -> None:
    """Until a worker's event loop listens to signals, SIGTERM just ends it.

    Ctrl-C is for the main process alone: a worker that ended by itself would look as if it had crashed.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _connections_per_worker(workers: int) -> int:
    """Return how many connections a worker may hold, and let the system grant it as many files."""
    wanted = max(1, _MAX_CONNECTIONS // workers)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted + _OTHER_FILES:
        soft = wanted + _OTHER_FILES if hard == resource.RLIM_INFINITY else min(wanted + _OTHER_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - _OTHER_FILES))


class _Server(MPServer):
    """Granian, which stops between two workers that it replaces, and not only when it has replaced them all.

    Attributes:
        settled: after all workers have been replaced, the TLS context (flag, certificate, key, ...) that each of them
            was begun with; None when it changed in between, and before.
    """

    settled: tuple[Any, ...] | None = None

    def _respawn_workers(self, workers: list[int], *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - Granian's
        begun_with = self.ssl_ctx
        for index in workers:
            if self.interrupt_signal or self.interrupt_children:
                return
            super()._respawn_workers([index], *arguments, **options)
        if begun_with is self.ssl_ctx:
            self.settled = begun_with


def _granian(listening: Listening) -> _Server:
    tls = listening.tls
    return _Server(
        "jotgate",
        address=listening.host,
        port=listening.port,
        interface=Interfaces.ASGI,
        workers=listening.workers,
        loop=Loops.auto,
        http=HTTPModes.auto,
        websockets=True,
        backlog=_BACKLOG,
        backpressure=_connections_per_worker(listening.workers),
        http1_settings=HTTP1Settings(header_read_timeout=_HEAD_WITHIN_MS, max_buffer_size=_MAX_HEAD_BYTES),
        http2_settings=HTTP2Settings(
            max_headers_size=_MAX_HEAD_BYTES,
            max_concurrent_streams=_MAX_STREAMS,
            keep_alive_interval=_PING_EVERY_MS,
            keep_alive_timeout=_PING_ANSWERED_WITHIN_S,
        ),
        log_level=LogLevels(listening.log_level),
        log_dictconfig=_logging(listening.log_level.upper()),
        log_access=False,
        ssl_cert=tls.cert if tls else None,
        ssl_key=tls.key if tls else None,
        ssl_protocol_min=_OLDEST_TLS,
        workers_kill_timeout=_STOP_WITHIN_S,
    )


class _Once(logging.Filter):
    """Leaves out what the main process says better: with the reason, and once.

    Also left out is that a worker is killed for not stopping in time: two threads of Granian wait for a worker's end,
    and the one that comes second may take it for alive.
    """

    NOT_TOLD: Final = (
        "Unexpected exit from worker",
        "ASGI lifespan startup failed",
        "Killing worker",
        "Killing old worker",
    )

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self.NOT_TOLD)


def _logging(level: str) -> dict[str, Any]:
    """Everything goes to stderr; what jotgate logs is one line of JSON already."""
    handler = {"class": "logging.StreamHandler", "stream": "ext://sys.stderr"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"server": {"format": "[%(levelname)s] %(message)s"}, "bare": {"format": "%(message)s"}},
        "filters": {"once": {"()": _Once}},
        "handlers": {"server": handler | {"formatter": "server"}, "bare": handler | {"formatter": "bare"}},
        "loggers": {
            "_granian": {"handlers": ["server"], "filters": ["once"], "level": level, "propagate": False},
            "jotgate": {"handlers": ["bare"], "level": level, "propagate": False},
        },
    }


def _load_in_worker(load_app: Callable[[], App], tell: Connection) -> App:
    """Runs in the worker, before it serves."""
    _obey_main_process()  # again, for systems where processes are not forked
    threading.Thread(target=_end_with_parent, name="jotgate-parent", daemon=True).start()
    try:
        return _in_worker(load_app(), tell)
    except JotgateError as error:
        _refuse(tell, error)
        sys.exit(1)


def _refuse(tell: Connection, error: JotgateError) -> None:
    """Hand the main process what it shall say."""
    with contextlib.suppress(OSError):
        tell.send((2 if isinstance(error, SettingsError) else 1, str(error)))


def _end_with_parent() -> None:
    """A main process that was killed can stop nobody: its workers would keep the port, and serve on unseen."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_STOP_WITHIN_S)
        os._exit(1)


class _UntilStopped:
    """A request's ``receive`` that says "the client has gone" when the server stops, to whoever waits for that.

    Streams that never end by themselves end then, and do not hold the stop up until their connections are cut.
    """

    __slots__ = ("_receive", "_stopping", "_whole")

    def __init__(self, receive: _Receive, stopping: asyncio.Event) -> None:
        self._receive = receive
        self._stopping = stopping
        self._whole = False  # the request has been read

    async def __call__(self) -> _Message:
        if not self._whole:
            message = await self._receive()
            self._whole = not message.get("more_body", False)
            return message
        received = asyncio.ensure_future(self._receive())
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait([received, stopped], return_when=asyncio.FIRST_COMPLETED)
            return received.result() if received.done() else {"type": "http.disconnect"}
        finally:
            # Not waited for: Granian's own `receive` ends with the connection, cancelled or not.
            received.cancel()
            stopped.cancel()


def _in_worker(app: App, tell: Connection) -> App:
    stopping = asyncio.Event()

    async def lifespan(scope: _Message, receive: _Receive, send: _Send) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_signal_handler(signal.SIGINT)  # Granian has just added one
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Granian does not notice a stop that comes before it serves: until then, SIGTERM goes on just ending us.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        started, why_not = False, ""

        def stop(*_: object) -> None:
            loop.call_soon_threadsafe(stopping.set)

        async def observed(message: _Message) -> None:
            nonlocal started, why_not
            if message["type"] == "lifespan.startup.failed":  # told below, and by the main process
                why_not = message.get("message", "")
                return
            if message["type"] == "lifespan.startup.complete":
                started = True
                # The loop hears of every signal that has a handler, whichever, and tells Granian of this one, too.
                loop.call_later(_SERVES_AFTER_S, signal.signal, signal.SIGTERM, stop)
            await send(message)

        try:
            await app(scope, receive, observed)
        except Exception as error:
            if started:
                raise
            if isinstance(error, JotgateError):
                _refuse(tell, error)
            else:
                logging.getLogger("_granian").exception("The application did not start")
        else:
            if why_not:
                _refuse(tell, SettingsError((why_not,)))
        if not started:
            await send({"type": "lifespan.startup.failed"})

    def application(scope: _Message, receive: _Receive, send: _Send) -> Awaitable[None]:
        if scope["type"] == "lifespan":
            return lifespan(scope, receive, send)
        return app(scope, _UntilStopped(receive, stopping) if scope["type"] == "http" else receive, send)

    return application


def _announce(
    listening: Listening, path: str, on_ready: Callable[[], None], forked: threading.Event, stopping: threading.Event
) -> None:
    forked.wait(_SPLIT_OFF_WITHIN_S)  # no lock of ours, or of OpenSSL, may be held while any worker is split off
    ask, begun_at, told = _asker(listening, path), time.monotonic(), False
    while not stopping.is_set():
        answer = ask()
        if answer == http.client.OK:
            on_ready()
            return
        if not told and time.monotonic() - begun_at > _TELL_AFTER_S:
            told = True
            sys.stderr.write(f"still starting after {_TELL_AFTER_S} s: {path} answers {answer or 'nothing'}\n")
        stopping.wait(_POLL_S)


def _asker(listening: Listening, path: str) -> Callable[[], int | None]:
    """Return a function that asks our own server for its readiness: the status, or None without an answer."""
    if listening.tls is None:
        return functools.partial(_get, listening, path, None)
    # Whatever name it is for: the very certificate that we serve is the one to expect, and no other.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(listening.tls.cert)
    return functools.partial(_get, listening, path, context)


def _answers(listening: Listening, path: str) -> int | None:
    """Ask whoever listens in our place, whatever certificate it has: what we serve may have expired, or be renewed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return _get(listening, path, None if listening.tls is None else context)


def _get(listening: Listening, path: str, context: ssl.SSLContext | None) -> int | None:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listening.host, listening.host)  # noqa: S104 - compared, not bound
    connection = (
        http.client.HTTPConnection(host, listening.port, timeout=_STOP_WITHIN_S)
        if context is None
        else http.client.HTTPSConnection(host, listening.port, timeout=_STOP_WITHIN_S, context=context)
    )
    try:
        connection.request("GET", path, headers={"Host": "localhost", "Connection": "close"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
