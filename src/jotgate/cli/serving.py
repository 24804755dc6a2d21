"""``jotgate serve``: from options and environment to a listening server, or to all that is wrong with them at once."""

import ipaddress
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct

from jotgate.cli.process import App, Listening, bind, check_can_listen, resolve_host, run
from jotgate.cli.redirecting import redirecting
from jotgate.cli.renewing import Renewal, TlsFiles
from jotgate.cli.text import version
from jotgate.cli.trusting import load_authority, places
from jotgate.core.algorithms import ALGORITHMS
from jotgate.core.errors import SettingsError
from jotgate.server.metrics import FOLDER_VARIABLE
from jotgate.server.settings import Settings
from jotgate.server.tls import Snapshots, check_certificate, ensure_local_certificate


class ServeOptions(Struct, frozen=True, kw_only=True):
    """What the command line says; None where it says nothing."""

    data: Path | None
    host: str
    port: int
    issuer: str | None
    tls_cert: Path | None
    tls_key: Path | None
    http: bool
    workers: int
    log_level: str
    redirect_port: int | None = None


def serve(options: ServeOptions) -> int:
    """Serve until a signal ends it; returns the exit status.

    Raises:
        SettingsError: before anything was opened.
    """
    overrides: dict[str, Any] = {}
    if options.data is not None:
        overrides["data_dir"] = options.data
    if options.http:
        overrides["http"] = True
    if options.issuer is not None:
        overrides["issuer"] = options.issuer
    elif "JOTGATE_ISSUER" not in os.environ:
        overrides["issuer"] = origin("https", "localhost", options.port)
    faults: list[str] = []
    settings = None
    try:
        settings = Settings.from_env(os.environ, **overrides)
    except SettingsError as error:
        faults += error.faults
    faults += replica_faults(options)
    host = options.host
    try:
        host = resolve_host(options.host)
        check_can_listen(host, options.port)
    except SettingsError as error:
        faults += error.faults
    faults += tls_faults(options, settings, host)
    faults += redirect_faults(options, settings, host)
    if settings is not None and options.workers > 1 and ALGORITHMS[settings.signing_algorithm].symmetric:
        faults.append(
            f"JOTGATE_SIGNING_ALGORITHM={settings.signing_algorithm} is for one process alone, so not for --workers "
            f"{options.workers}: use a key pair, for example ES256"
        )
    if faults or settings is None:
        raise SettingsError(faults)
    brought = None
    if options.tls_cert is not None and options.tls_key is not None:
        brought = TlsFiles(options.tls_cert, options.tls_key)
    with ExitStack() as beside:
        tls, renewal = begin_tls(settings, brought, int(time.time()), beside)
        listening = Listening(host, options.port, tls, options.workers, options.log_level)
        introduce(listening, settings, own_certificate=brought is not None, redirect_port=options.redirect_port)
        on_ready = partial(say, f"\nready: {settings.issuer}  (Ctrl-C stops it)")
        beside.enter_context(_counted_together(options.workers, settings))
        if options.redirect_port is not None:
            listener = bind(host, options.redirect_port, "--redirect-port")
            beside.enter_context(redirecting(listener, settings.origin))
        return run(partial(_load, settings), listening, f"{settings.issuer_path}/readyz", on_ready, renewal)


@contextmanager
def _counted_together(workers: int, settings: Settings) -> Iterator[None]:
    """Give the metrics of several workers a folder to add up in, for as long as they run."""
    if workers == 1 or settings.metrics_token is None:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="jotgate-metrics-") as folder:
        os.environ[FOLDER_VARIABLE] = folder
        yield


def begin_tls(
    settings: Settings, brought: TlsFiles | None, now: int, beside: ExitStack
) -> tuple[TlsFiles | None, Renewal]:
    """Return what to serve with, and what renews it while the server runs on; without TLS None and what never does.

    Without a certificate that somebody brought, the data folder's own for localhost is served, made when it is missing.

    Args:
        settings: of the server.
        brought: an operator's certificate and key.
        now: Unix seconds.
        beside: removes the copies that are served when the server ends.

    Raises:
        SettingsError: the certificate cannot be served, or the data folder cannot be used.
    """
    if settings.http:
        return None, Renewal((), partial(_prepare, settings, None), now)
    tls_dir = settings.data_dir / "tls"
    files, upkeep = brought, None
    if files is None:
        upkeep = partial(ensure_local_certificate, tls_dir)
        local = ensure_local_certificate(tls_dir, now)
        files = TlsFiles(local.cert, local.key)
    snapshots = beside.enter_context(Snapshots(tls_dir))
    take = partial(_snapshot, snapshots, files)
    # It looks at the files before they are read here: what is written in between is a change to it.
    renewal = Renewal((files.cert, files.key), partial(_prepare, settings, take), now, upkeep, snapshots.keep_only)
    return take(now), renewal


def _snapshot(snapshots: Snapshots, files: TlsFiles, now: int) -> TlsFiles:
    return TlsFiles(*snapshots.add(check_certificate(files.cert, files.key, now)))


def _prepare(settings: Settings, take: Callable[[int], TlsFiles] | None, now: int) -> TlsFiles | None:
    """Return what new workers serve with, and refuse what they could not start with."""
    faults: list[str] = []
    prepared = None
    try:
        prepared = None if take is None else take(now)
    except SettingsError as error:
        faults += error.faults
    try:
        settings.master_key_source.load(make=False)
    except SettingsError as error:
        faults += error.faults
    if faults:
        raise SettingsError(faults)
    return prepared


def _load(settings: Settings) -> App:
    from jotgate.server.app import create_app  # noqa: PLC0415 - the main process needs none of it

    if settings.claims_for is not None:
        # As with `python -m`: the operator's own module lies where the server is started.
        sys.path.append(str(Path.cwd()))
    return create_app(settings)


def origin(scheme: str, host: str, port: int) -> str:
    """Return the URL of a server's root, without the scheme's own port."""
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}" if port == {"https": 443, "http": 80}[scheme] else f"{scheme}://{host}:{port}"


def replica_faults(options: ServeOptions) -> list[str]:
    """Return what a server on a shared database lacks, which every one of its replicas must be given alike."""
    database = os.environ.get("JOTGATE_DATABASE_URL", "").strip()
    if not database or database.startswith("sqlite:"):
        return []
    faults = []
    if not any(f"JOTGATE_MASTER_KEY{kind}" in os.environ for kind in ("", "_FILE", "_COMMAND")):
        faults.append(
            "a PostgreSQL database needs JOTGATE_MASTER_KEY, the same for every server that uses it "
            "(or JOTGATE_MASTER_KEY_FILE or _COMMAND)"
        )
    if options.issuer is None and "JOTGATE_ISSUER" not in os.environ:
        faults.append("a PostgreSQL database needs JOTGATE_ISSUER, the URL that all its servers are reached by")
    return faults


def tls_faults(options: ServeOptions, settings: Settings | None, host: str) -> list[str]:
    """Return what is wrong with how the server shall be reached; without settings, as far as that can be said."""
    http = options.http or (settings is not None and settings.http)
    if (options.tls_cert is None) != (options.tls_key is None):
        return ["--tls-cert and --tls-key belong together: give both or neither"]
    if http and options.tls_cert is not None:
        return ["--http means no TLS, so that --tls-cert has no use: give one or the other"]
    if http and settings is not None and not settings.proxies and not is_loopback(host):
        fault = (
            f"--http on {host} would send passwords and tokens over the network unencrypted: leave it out, listen on "
            "127.0.0.1, or name the proxies that speak TLS in front (JOTGATE_TRUSTED_PROXIES)"
        )
        return [fault]
    if options.tls_cert is not None and options.tls_key is not None:
        try:
            check_certificate(options.tls_cert, options.tls_key, int(time.time()))
        except SettingsError as error:
            return list(error.faults)
    return []


def redirect_faults(options: ServeOptions, settings: Settings | None, host: str) -> list[str]:
    """Return what is wrong with the port that redirects; without settings, as far as that can be said."""
    if options.redirect_port is None:
        return []
    if options.http or (settings is not None and settings.http):
        return ["--redirect-port has no use with --http: the proxy that speaks TLS in front redirects, too"]
    if options.redirect_port == options.port:
        return [f"--redirect-port {options.redirect_port} is the --port itself: give another one"]
    try:
        bind(host, options.redirect_port, "--redirect-port").close()
    except SettingsError as error:
        return list(error.faults)
    return []


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def introduce(
    listening: Listening, settings: Settings, *, own_certificate: bool, redirect_port: int | None = None
) -> None:
    """Print where the server listens, where its data lies, and how to trust it."""
    tls = "HTTP/1.1 and HTTP/2, TLS 1.2 and up" if listening.tls else "clear text: HTTP without TLS"
    say(f"jotgate {version()}")
    say(f"  listens on  {listening.host} port {listening.port} ({tls})")
    if redirect_port is not None:
        say(f"  redirects   {listening.host} port {redirect_port} (plain HTTP) to {settings.origin}")
    say(f"  issuer      {settings.issuer}")
    say(f"  data        {settings.data_dir.resolve()}")
    if settings.database_url is not None:
        say(f"  database    {settings.database_name}")
    if settings.mail_url is None:
        say(f"  mail        into files in {settings.mail_folder.resolve()}; JOTGATE_MAIL_URL=smtp://… sends them")
    if listening.tls is None or own_certificate:
        return
    ca = load_authority(settings.data_dir)
    say(f"  local CA    {ca.file}")
    if not is_loopback(listening.host):
        say("  note        the local certificate names localhost only; others need --tls-cert and --tls-key")
    say("\nTo trust the local CA, which can vouch for localhost and nothing else (to remove it: jotgate tls trust):")
    for place in places(ca, settings.issuer):
        say(f"  {place.name:<15} {place.add}")


def say(line: str) -> None:
    """Print one line now, even into a pipe; a reader that has gone is no reason to stop serving."""
    if sys.stdout is None:  # started with it closed
        return
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the rest of the process
