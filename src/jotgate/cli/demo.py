"""``jotgate demo``: the example shop on a local address, with a session to paste into a terminal."""

import importlib
import json
import os
import secrets
import shlex
import sys
import time
import types
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import jotgate
from jotgate.cli.process import App, Listening, check_can_listen, resolve_host, run
from jotgate.cli.serving import begin_tls, introduce, origin, say
from jotgate.core.errors import SettingsError
from jotgate.server.app import create_app
from jotgate.server.settings import Settings

_DATA_DIR: Final = "jotgate-demo"
# The shop is imported under a name of its own, wherever its folder lies, so that it can import its own modules.
_PACKAGE: Final = "jotgate_example_shop"


def demo(data: Path | None, host: str, port: int, log_level: str) -> int:
    """Serve the shop until a signal ends it; returns the exit status.

    Raises:
        SettingsError: the shop is not there, or cannot listen.
    """
    # The shop reads its settings where any server does, in the worker too: options win over what is there already.
    issuer = os.environ.setdefault("JOTGATE_ISSUER", origin("https", "localhost", port) + "/auth")
    os.environ.setdefault("JOTGATE_HOME_URL", issuer.removesuffix("/auth"))
    os.environ.setdefault("JOTGATE_SIGNUP", "open")  # a shop to try out in a minute, without a mail server
    if data is not None or "JOTGATE_DATA_DIR" not in os.environ:
        os.environ["JOTGATE_DATA_DIR"] = str(data or _DATA_DIR)
    faults: list[str] = []
    address, settings = host, None
    try:
        address = resolve_host(host)
        check_can_listen(address, port)
    except SettingsError as error:
        faults += error.faults
    try:
        settings = _import("shop").load_settings(os.environ)
    except SettingsError as error:
        faults += error.faults
    if settings is not None and (settings.issuer_path != "/auth" or (urlsplit(issuer).port or 443) != port):
        faults.append(f"JOTGATE_ISSUER: the demo is at {origin('https', 'localhost', port)}/auth; leave it unset")
    if settings is not None and settings.http:
        faults.append("JOTGATE_HTTP: the demo shows HTTPS; leave it unset")
    if faults or settings is None:
        raise SettingsError(faults)
    with ExitStack() as beside:
        tls, renewal = begin_tls(settings, None, int(time.time()), beside)
        accounts = _import("demo_account").seed(create_app(settings), _import("shop").STAFF_SCOPE)
        listening = Listening(address, port, tls, 1, log_level)
        introduce(listening, settings, own_certificate=False)
        say(_invitation(settings, accounts.customer, accounts.staff))
        on_ready = partial(say, f"ready: {settings.origin}  (Ctrl-C stops it)")
        return run(_load_shop, listening, f"{settings.issuer_path}/readyz", on_ready, renewal)


def _load_shop() -> App:
    app: App = _import("shop").create_app()
    return app


def _import(name: str) -> Any:  # noqa: ANN401 - modules that lie beside this package or in the repository
    package = Path(jotgate.__file__).parent
    places = [package / "examples" / "shop", package.parent.parent / "examples" / "shop"]
    folder = next((place for place in places if (place / "shop.py").exists()), None)
    if folder is None:
        raise SettingsError((f"the example shop is missing: it should be in {places[0]}",))
    if _PACKAGE not in sys.modules:
        module = types.ModuleType(_PACKAGE)
        module.__path__ = [str(folder)]
        sys.modules[_PACKAGE] = module
    return importlib.import_module(f"{_PACKAGE}.{name}")


class _Person(Protocol):
    """One of the shop's demo accounts."""

    @property
    def email(self) -> str: ...
    @property
    def password(self) -> str: ...


def _invitation(settings: Settings, customer: _Person, staff: _Person) -> str:
    mails = f"\nThe mails that it sends: {settings.origin}/mails\n" if settings.mail_url is None else ""
    return f"""
Four things to try at {settings.origin}:

1  Log in, or sign up, and order something. "Token" shows what the page holds.
     e-mail    {customer.email}
     password  {customer.password}
2  Open a second tab; log out in one of them.
3  Log in again, then end the session from another browser (Token, Sessions), or by
   these lines in another terminal. The API refuses the page's next request:

{_end_sessions(settings, customer)}

4  Log in as staff, and change how many are left of a product.
     e-mail    {staff.email}
     password  {staff.password}
{mails}
A session to paste into another terminal, line by line or as a whole:

{_session(settings)}
"""


def _end_sessions(settings: Settings, person: _Person) -> str:
    """Return shell lines that need curl, python3 and the running shop: a login, and a logout everywhere."""
    ca_file = shlex.quote(str(settings.data_dir.resolve() / "tls" / "ca.pem"))
    send = f"curl -sS --cacert {ca_file} -H 'Content-Type: application/json' {shlex.quote(settings.issuer)}/v1"
    log_in = shlex.quote(json.dumps({"email": person.email, "password": person.password, "delivery": "body"}))
    pick = (
        "import json, sys; print(json.dumps({k: v for k, v in json.load(sys.stdin).items() if k == 'refresh_token'}))"
    )
    return f"""{send}/login -d {log_in} |
  python3 -c "{pick}" |
  {send}/logout/everywhere -d @-"""


def _session(settings: Settings) -> str:
    """Return shell lines that need curl, python3 and the running shop; each prints one answer or sets variables."""
    ca_file = settings.data_dir.resolve() / "tls" / "ca.pem"
    newcomer = {
        "email": f"you-{secrets.token_hex(3)}@jotgate.test",
        "password": secrets.token_urlsafe(settings.password_min_length),
    }
    sign_up = shlex.quote(json.dumps(newcomer))
    log_in = shlex.quote(json.dumps(newcomer | {"delivery": "body"}))
    send = """curl -sS --cacert "$CA" -w '\\n' -H "$JSON\""""
    bearer = '-H "Authorization: Bearer $ACCESS" "$SHOP/api/orders"'
    refresh = '"{\\"refresh_token\\": \\"$REFRESH\\"}"'
    keep = 'ACCESS="$(member access_token)"; REFRESH="$(member refresh_token)"'
    return f"""# Where it is, and whom to trust.
SHOP={shlex.quote(settings.origin)}; AUTH={shlex.quote(settings.issuer)}; CA={shlex.quote(str(ca_file))}
JSON='Content-Type: application/json'
member() {{ printf %s "$ANSWER" | python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }}
# Sign up.
{send} "$AUTH/v1/signup" -d {sign_up}
# Log in; the tokens go into shell variables.
ANSWER="$({send} "$AUTH/v1/login" -d {log_in})"; {keep}
# The own orders, a new one, and the orders again.
{send} {bearer}
{send} {bearer} -d '{{"product": "notebook", "quantity": 2}}'
{send} {bearer}
# Refresh: both tokens are new.
ANSWER="$({send} "$AUTH/v1/refresh" -d {refresh})"; {keep}
{send} {bearer}
# Log out. From now on the shop refuses the same access token.
{send} "$AUTH/v1/logout" -d {refresh}
{send} -i {bearer}"""
