"""The commands, their options and their help; what they do lies in the modules beside this one.

Those are imported by the command that needs them: ``inspect`` does not wait for a web server to load.
"""

# ruff: noqa: PLC0415 - see above

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from jotgate.cli.text import printable, version
from jotgate.core.errors import JotgateError, SettingsError

_EXIT_CODES = (
    "Exit status: 0 done; 1 refused or failed, with a sentence on standard error; 2 wrong usage or wrong settings."
)
# The kid of a key from elsewhere may begin with a hyphen, and with "-h".
_KID_FIRST = {"ignore_unknown_options": True, "help_option_names": ["--help"]}
_SETTINGS = "Every setting can also come from the environment (JOTGATE_ISSUER, JOTGATE_AUDIENCE, …); an option wins."

app = typer.Typer(
    name="jotgate",
    help="JWT authentication for APIs with a web front end: an auth server, and tools around its tokens.",
    epilog=_EXIT_CODES,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
accounts = typer.Typer(
    help="Make accounts, list and change them, bring them in and take them along.", no_args_is_help=True
)
sessions = typer.Typer(help="Show who is logged in, and end sessions: everywhere, at once.", no_args_is_help=True)
keys = typer.Typer(help="The keys that the server signs with.", no_args_is_help=True)
audit = typer.Typer(help="Who did what, and when: the audit trail.", no_args_is_help=True)
database = typer.Typer(help="The database, where it is not the server that looks after it.", no_args_is_help=True)
certificates = typer.Typer(help="The local authority that vouches for the server on localhost.", no_args_is_help=True)
app.add_typer(accounts, name="accounts")
app.add_typer(sessions, name="sessions")
app.add_typer(keys, name="keys")
app.add_typer(audit, name="audit")
app.add_typer(database, name="db")
app.add_typer(certificates, name="tls")


class LogLevel(StrEnum):
    """How much the server tells on standard error."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"
    critical = "critical"


class LineFormat(StrEnum):
    """How accounts and the audit trail are written out."""

    jsonl = "jsonl"
    csv = "csv"


class Purpose(StrEnum):
    """What a key is for."""

    access = "access"
    feed = "feed"
    refresh = "refresh"
    device = "device"


class FailOn(StrEnum):
    """From which status on the doctor's exit status tells of it."""

    warn = "warn"
    fail = "fail"


Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Folder of the database, keys and certificates.", show_default=False),
]
Host = Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=1, max=65535, metavar="PORT", help="Port to listen on.")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]
Level = Annotated[
    LogLevel,
    typer.Option(metavar="LEVEL", help="On standard error: debug, info, warning, error, critical. Never tokens."),
]
KeyIssuer = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Whose keys, where the database has those of several.", show_default=False),
]
FileForm = Annotated[
    LineFormat | None,
    typer.Option("--format", metavar="FORMAT", help="jsonl or csv; else as the file is named.", show_default=False),
]
Email = Annotated[str, typer.Argument(metavar="EMAIL", help="The account's e-mail address.", show_default=False)]
Scope = Annotated[str, typer.Argument(metavar="SCOPE", help="For example orders:read.", show_default=False)]


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status; whatever jotgate refuses becomes one sentence on stderr."""
    try:
        app(args=list(arguments), prog_name="jotgate")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except SettingsError as error:
        _complain(error.faults)
        return 2
    except JotgateError as error:
        _complain([str(error)])
        return 1
    return 0


def _complain(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        sys.stderr.write(f"error: {printable(sentence)}\n")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jotgate {version()}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Take the options that stand before the command."""


@app.command(epilog=f"{_SETTINGS} {_EXIT_CODES}")
def serve(
    data: Data = None,
    host: Host = "127.0.0.1",
    port: Port = 8443,
    issuer: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The server's public https URL.", show_default="https://localhost:PORT"),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificate chain (PEM).", show_default="one for localhost")
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its private key (PEM, not encrypted).", show_default=False),
    ] = None,
    http: Annotated[
        bool,
        typer.Option("--http", help="No TLS: on loopback only, or behind a proxy named in JOTGATE_TRUSTED_PROXIES."),
    ] = False,
    redirect_port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, metavar="PORT", help="Redirect plain HTTP from here, e.g. 80.", show_default=False
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, metavar="N", help="Processes that answer requests.")] = 1,
    log_level: Level = LogLevel.warning,
) -> None:
    """Run the auth server, with HTTPS, until Ctrl-C.

    The first start makes what is missing in the data folder: a database, keys, and a certificate for localhost from
    an authority of its own, in DIR/tls/ca.pem.

    SIGTERM and Ctrl-C let requests under way finish, for 10 seconds at most. When the certificate and its key have
    changed, or on SIGHUP, new workers replace the old ones, one after the other.
    """
    from jotgate.cli.serving import ServeOptions, serve

    options = ServeOptions(
        data=data,
        host=host,
        port=port,
        issuer=issuer,
        tls_cert=tls_cert,
        tls_key=tls_key,
        http=http,
        redirect_port=redirect_port,
        workers=workers,
        log_level=log_level.value,
    )
    raise typer.Exit(serve(options))


@app.command(epilog=_EXIT_CODES)
def demo(
    data: Data = None,
    host: Host = "127.0.0.1",
    port: Port = 8443,
    log_level: Level = LogLevel.warning,
) -> None:
    """Run the example shop with jotgate inside, and print a session to paste into a terminal.

    One process: the shop's API and page at /, jotgate under /auth. It makes a demo account and prints its password.
    """
    from jotgate.cli.demo import demo

    raise typer.Exit(demo(data, host, port, log_level.value))


@app.command(
    epilog="Exit status: 0 nothing wrong was found; 1 something is wrong; 2 wrong usage.",
)
def inspect(
    token: Annotated[
        str, typer.Argument(metavar="TOKEN", help="The token; - or nothing: read standard input.", show_default=False)
    ] = "-",  # noqa: S107 - no password: "read standard input"
    jwks: Annotated[
        str | None,
        typer.Option(metavar="FILE|URL", help="Check the signature with this key set.", show_default=False),
    ] = None,
    issuer: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Check the signature with this issuer's keys.", show_default=False),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Trust this authority when fetching keys.", show_default="the system's"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take a token apart: header, payload, signature, its times, and what is wrong with it.

    Prefer standard input (jotgate inspect < file): a token on the command line lands in the shell's history and in
    the list of processes. Nothing is stored, logged or sent anywhere; the signature is checked only when --jwks or
    --issuer says with which keys.
    """
    from jotgate.cli.showing import show

    raise typer.Exit(show(token, jwks=jwks, issuer=issuer, ca_file=ca_file, as_json=as_json))


@app.command(
    epilog="Exit status: 0 nothing failed; 1 something did (--fail-on warn: or warned); 2 wrong usage or settings.",
)
def doctor(
    data: Data = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Ask the server of this issuer instead.", show_default=False)
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Trust this authority there.", show_default="the system's")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="As for `serve`.", show_default="one for localhost")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="As for `serve`.", show_default=False)] = None,
    fail_on: Annotated[FailOn, typer.Option(metavar="warn|fail", help="What makes the exit status 1.")] = FailOn.fail,
    as_json: AsJson = False,
) -> None:
    """Check the settings and the data folder, or a running server, against the eight practices.

    It changes nothing. What is wrong comes with what to do about it; no secret is ever shown.
    """
    from jotgate.cli.doctor import doctor

    status = doctor(
        data,
        url=url,
        ca_file=ca_file,
        tls_cert=tls_cert,
        tls_key=tls_key,
        as_json=as_json,
        fail_on=fail_on.value,
    )
    raise typer.Exit(status)


@accounts.command("add", epilog=_EXIT_CODES)
def add_account(email: Email, data: Data = None, as_json: AsJson = False) -> None:
    """Make an account with the default scopes.

    The password is asked for, or read as the first line of standard input; never from the command line, which other
    users of the machine can see.
    """
    from jotgate.cli.administration import add_account

    add_account(data, email, as_json=as_json)


@accounts.command("list", epilog=_EXIT_CODES)
def list_accounts(
    data: Data = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, metavar="N", help="Show so many at most.")] = 100,
    after: Annotated[
        str | None, typer.Option(metavar="EMAIL", help="Begin behind this address.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List accounts in the order of their addresses."""
    from jotgate.cli.administration import list_accounts

    list_accounts(data, limit=limit, after=after, as_json=as_json)


@accounts.command("grant", epilog=_EXIT_CODES)
def grant(email: Email, scope: Scope, data: Data = None, as_json: AsJson = False) -> None:
    """Give an account a scope; its tokens have it from the next login or refresh on."""
    from jotgate.cli.administration import change_scope

    change_scope(data, email, scope, granted=True, as_json=as_json)


@accounts.command("revoke", epilog=_EXIT_CODES)
def revoke(email: Email, scope: Scope, data: Data = None, as_json: AsJson = False) -> None:
    """Take a scope from an account; access tokens that have it keep it until they expire."""
    from jotgate.cli.administration import change_scope

    change_scope(data, email, scope, granted=False, as_json=as_json)


@accounts.command("disable", epilog=_EXIT_CODES)
def disable(email: Email, data: Data = None, as_json: AsJson = False) -> None:
    """Let nobody log in to an account any more; its sessions end, and its tokens are refused everywhere at once."""
    from jotgate.cli.administration import change_standing

    change_standing(data, email, "disable", confirmed=True, as_json=as_json)


@accounts.command("enable", epilog=_EXIT_CODES)
def enable(email: Email, data: Data = None, as_json: AsJson = False) -> None:
    """Let people log in to a disabled account again."""
    from jotgate.cli.administration import change_standing

    change_standing(data, email, "enable", confirmed=True, as_json=as_json)


@accounts.command("reset-factors", epilog=_EXIT_CODES)
def reset_factors(email: Email, data: Data = None, as_json: AsJson = False) -> None:
    """Ask an account for no second factor any more, where its owner has lost all of them; its sessions end."""
    from jotgate.cli.administration import change_standing

    change_standing(data, email, "reset-factors", confirmed=True, as_json=as_json)


@accounts.command("delete", epilog=_EXIT_CODES)
def delete(
    email: Email,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Delete an account with all its sessions, for good; the audit trail keeps its id."""
    from jotgate.cli.administration import change_standing

    change_standing(data, email, "delete", confirmed=yes, as_json=as_json)


@accounts.command("import", epilog=_EXIT_CODES)
def import_accounts(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSON lines, or CSV with a heading; UTF-8.", show_default=False)
    ],
    form: FileForm = None,
    default_scopes: Annotated[
        str | None,
        typer.Option(metavar="SCOPES", help='For lines that name none, e.g. "account:read a b".', show_default=False),
    ] = None,
    ignore_columns: Annotated[
        bool, typer.Option("--ignore-columns", help="Leave columns out that are not known here.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, and write nothing.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Write nothing if any line cannot be taken.")] = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="New file for all lines that are not taken, in JSON.", show_default=False),
    ] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Bring in accounts with the password hashes of another program; logins replace these by Argon2id.

    A line has email and password_hash, and may have id, scopes, created_at (Unix seconds or RFC 3339) and disabled.
    Hashes may be Argon2, bcrypt, scrypt or PBKDF2, as Django, Werkzeug or better-auth write them; an empty one means
    that the password is to be set by "forgotten password". In CSV scopes are separated by spaces, and an empty cell of
    theirs means none. Addresses that are there are left as they are, so that an import may be run again. What cannot
    be taken is told with its line, the rest goes on, and the exit status is 1.
    """
    from jotgate.cli.moving import import_accounts

    status = import_accounts(
        data,
        file,
        form=form,
        default_scopes=default_scopes,
        ignore_columns=ignore_columns,
        dry_run=dry_run,
        strict=strict,
        report=report,
        as_json=as_json,
    )
    raise typer.Exit(status)


@accounts.command("export", epilog=_EXIT_CODES)
def export_accounts(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="Made with mode 0600; not there yet. - is standard output.", show_default=False
        ),
    ],
    form: FileForm = None,
    data: Data = None,
) -> None:
    """Write all accounts as `accounts import` takes them.

    Password hashes are included: keep the file as you would a password.
    """
    from jotgate.cli.moving import export_accounts

    export_accounts(data, file, form=form)


@sessions.command("list", epilog=_EXIT_CODES)
def list_sessions(
    account: Annotated[str, typer.Option(metavar="EMAIL", help="Whose sessions.", show_default=False)],
    limit: Annotated[int, typer.Option(min=1, max=100_000, metavar="N", help="Show so many at most.")] = 1000,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """List the live sessions of an account, the one that was used last first."""
    from jotgate.cli.administration import list_sessions

    list_sessions(data, account, limit=limit, as_json=as_json)


@sessions.command("revoke", epilog=_EXIT_CODES)
def revoke_sessions(
    session: Annotated[
        str | None, typer.Option(metavar="ID", help="This session, as `sessions list` names it.", show_default=False)
    ] = None,
    account: Annotated[
        str | None, typer.Option(metavar="EMAIL", help="Every session of this account.", show_default=False)
    ] = None,
    client: Annotated[
        str | None, typer.Option(metavar="ID", help="Every session of this client, e.g. web.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every session there is.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before everybody is logged out.")] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """End sessions: name exactly one of --session, --account, --client and --all.

    Running servers and verifiers refuse their access tokens within a second.
    """
    from jotgate.cli.administration import revoke_sessions
    from jotgate.server.records import Target

    wanted = (
        Target("session", session) if session is not None else None,
        Target("account", account) if account is not None else None,
        Target("client", client) if client is not None else None,
        Target("all") if everything else None,
    )
    named = [target for target in wanted if target is not None]
    if len(named) != 1:
        raise typer.BadParameter("name exactly one of --session, --account, --client and --all")
    revoke_sessions(data, named[0], confirmed=yes, as_json=as_json)


@keys.command("list", epilog=_EXIT_CODES)
def list_keys(
    data: Data = None,
    everything: Annotated[bool, typer.Option("--all", help="Those that were revoked or removed, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the server's keys: id, purpose, algorithm, state. Private halves stay sealed."""
    from jotgate.cli.administration import list_keys

    list_keys(data, everything=everything, as_json=as_json)


@keys.command("rotate", epilog=_EXIT_CODES)
def rotate_key(
    purpose: Annotated[
        Purpose, typer.Option(metavar="PURPOSE", help="access, feed, refresh or device: what the key is for.")
    ] = Purpose.access,
    issuer: KeyIssuer = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Let the next key sign from now on, ahead of the schedule. No request fails.

    It is refused while the next key has not been published long enough for every verifier to know it.
    """
    from jotgate.cli.administration import rotate_key

    rotate_key(data, purpose.value, issuer=issuer, as_json=as_json)


@keys.command("revoke", epilog=_EXIT_CODES, context_settings=_KID_FIRST)
def revoke_keys(
    kids: Annotated[list[str], typer.Argument(metavar="KID…", help="As `keys list` names it.", show_default=False)],
    end_sessions: Annotated[
        bool, typer.Option("--end-sessions", help="Log out everybody, too; else people get new tokens by themselves.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before everybody is logged out.")] = False,
    issuer: KeyIssuer = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Revoke a key that may be in other hands: everything it signed is refused everywhere within a second.

    The next key signs at once. People keep their sessions: their next refresh brings a token under that key. Several
    keys that cannot be opened any more have to be named together.
    """
    from jotgate.cli.administration import revoke_keys

    revoke_keys(data, kids, end_sessions=end_sessions, issuer=issuer, confirmed=yes, as_json=as_json)


@keys.command("import", epilog=_EXIT_CODES)
def import_key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A private key: PEM or JWK.", show_default=False)],
    algorithm: Annotated[
        str | None, typer.Option(metavar="ALG", help="What it signs with; a PEM file does not say.", show_default=False)
    ] = None,
    issuer: KeyIssuer = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Take a key pair that was made elsewhere as the next one for access tokens."""
    from jotgate.cli.administration import import_key

    import_key(data, file, algorithm=algorithm, issuer=issuer, as_json=as_json)


@keys.command("export", epilog=_EXIT_CODES, context_settings=_KID_FIRST)
def export_keys(
    kid: Annotated[str | None, typer.Argument(metavar="KID", help="This one alone.", show_default=False)] = None,
    public: Annotated[bool, typer.Option("--public", help="The public halves: private ones never leave.")] = False,
    pem: Annotated[bool, typer.Option("--pem", help="As PEM instead of a JWK set.")] = False,
    issuer: KeyIssuer = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Print the public halves of the keys for access tokens, as the server publishes them."""
    from jotgate.cli.administration import export_keys

    if not public:
        raise typer.BadParameter("say --public: private halves are not given out")
    if pem and as_json:
        raise typer.BadParameter("a JWK set is JSON, PEM is not: choose one of --json and --pem")
    export_keys(data, kid, as_pem=pem, issuer=issuer)


@keys.command("rewrap", epilog=_EXIT_CODES)
def rewrap_keys(
    forget_previous: Annotated[
        bool, typer.Option("--forget-previous", help="Only delete the old master key that an earlier rewrap kept.")
    ] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Change the master key while servers run: seal every private key anew.

    A master key in the data folder is replaced by a new one; the old one stays beside it until --forget-previous. One
    from JOTGATE_MASTER_KEY, _FILE or _COMMAND is changed by you: give the old one as JOTGATE_MASTER_KEY_PREVIOUS,
    restart the servers, run this, and drop the old one.
    """
    from jotgate.cli.administration import rewrap_keys

    rewrap_keys(data, forget_previous=forget_previous, as_json=as_json)


OfAccount = Annotated[
    str | None, typer.Option("--account", metavar="EMAIL", help="What concerns this account.", show_default=False)
]
OfEvent = Annotated[
    str | None,
    typer.Option("--event", metavar="NAME", help="Of this name alone, e.g. login_failed.", show_default=False),
]


@audit.command("tail", epilog=_EXIT_CODES)
def tail_audit(
    limit: Annotated[int, typer.Option(min=1, max=100_000, metavar="N", help="So many lines, the newest.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    account: OfAccount = None,
    event: OfEvent = None,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")] = False,
) -> None:
    """Show the newest lines of the audit trail, the newest last."""
    from jotgate.cli.auditing import tail

    tail(data, limit=limit, follow=follow, email=account, event=event, as_json=as_json)


@audit.command("export", epilog=_EXIT_CODES)
def export_audit(
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="From then on: 2026-11-24, 2026-11-24T18:00Z, Unix s.", show_default=False),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Before then; without a zone it is UTC.", show_default=False)
    ] = None,
    account: OfAccount = None,
    event: OfEvent = None,
    form: Annotated[LineFormat, typer.Option("--format", metavar="FORMAT", help="jsonl or csv.")] = LineFormat.jsonl,
    data: Data = None,
) -> None:
    """Write the audit trail to standard output, oldest line first, however long it is."""
    from jotgate.cli.auditing import export

    export(data, since=since, until=until, email=account, event=event, form=form.value)


@database.command("upgrade", epilog=_EXIT_CODES)
def upgrade_database(data: Data = None) -> None:
    """Bring the tables up to date, as `jotgate serve` does at every start: whole, once, or not at all."""
    from jotgate.cli.administration import upgrade_database

    upgrade_database(data)


@certificates.command("show", epilog=_EXIT_CODES)
def show_authority(data: Data = None, as_json: AsJson = False) -> None:
    """Print the authority's file, its name, its SHA-256 fingerprint and when it ends."""
    from jotgate.cli.trusting import show

    show(data, as_json=as_json)


@certificates.command("trust", epilog=_EXIT_CODES)
def trust_authority(
    data: Data = None,
    everything: Annotated[bool, typer.Option("--all", help="For every system, this one first.")] = False,
) -> None:
    """Print the commands by which this system trusts the local authority, and those that take it back.

    Nothing is changed: what a system trusts is its owner's to decide.
    """
    from jotgate.cli.trusting import trust

    trust(data, everything=everything)
