"""``jotgate inspect``: reads a token, shows what ``inspecting`` found, and checks its signature only when asked to."""

import sys
import time
from pathlib import Path
from typing import Any, Final

from msgspec import Struct
from rich.console import Console
from rich.text import Text

from jotgate.cli.inspecting import TIMES, Finding, Inspection, Part, inspect, is_time
from jotgate.cli.text import json_line, print_json, printable, relative, utc
from jotgate.core.algorithms import ALGORITHMS
from jotgate.core.errors import JotgateError, KeyRefused, KeySourceError, SettingsError
from jotgate.core.jwk import KeySet
from jotgate.core.jws import verify_jws

_LONGEST_INPUT: Final = 1_048_576
_LONGEST_SHOWN: Final = 2000
_FETCH_WITHIN_S: Final = 5.0


class Signature(Struct, frozen=True):
    """What is known about the signature: ``good`` is None where it was not checked."""

    size: int | None
    good: bool | None


def show(token: str, *, jwks: str | None, issuer: str | None, ca_file: Path | None, as_json: bool) -> int:
    """Show a token; returns 0 when nothing is wrong with it, else 1.

    Raises:
        SettingsError: the options do not fit together, or the key set cannot be read.
        KeySourceError: the keys could not be fetched.
    """
    if jwks is not None and issuer is not None:
        raise SettingsError(("--jwks and --issuer both name keys: give one of them",))
    text = _read_input() if token == "-" else token  # noqa: S105 - no password: "read standard input"
    now = int(time.time())
    found = inspect(text, now)
    signature = Signature(None if found.signature is None else len(found.signature), None)
    problems = list(found.problems)
    if jwks is not None or issuer is not None:
        keys = _keys(jwks, issuer, ca_file)
        fault = _signature_fault(found.token, keys)
        signature = Signature(signature.size, fault is None)
        if fault is not None and fault.code not in {each.code for each in problems}:
            problems.append(fault)
        if issuer is not None and found.payload.members and found.payload.members.get("iss") != issuer:
            problems.append(Finding("claim_refused", "iss is not exactly the issuer that was asked for"))
    if as_json:
        print_json(_report(found, signature, problems, now))
    else:
        _print(found, signature, problems, now)
    return 1 if problems else 0


def _read_input() -> str:
    if sys.stdin.isatty():
        sys.stderr.write("Paste the token and press Enter: ")
        sys.stderr.flush()
        return sys.stdin.readline()
    raw = sys.stdin.buffer.read(_LONGEST_INPUT + 1)
    if len(raw) > _LONGEST_INPUT:
        raise SettingsError((f"standard input holds more than {_LONGEST_INPUT} bytes, which is no token",))
    return raw.decode("utf-8", "replace")


def _keys(jwks: str | None, issuer: str | None, ca_file: Path | None) -> KeySet:
    if jwks is not None and not jwks.startswith(("https:", "http:")):
        try:
            return KeySet.from_jwks(Path(jwks).read_bytes())
        except OSError as error:
            raise SettingsError((f"--jwks {jwks} cannot be read: {error.strerror}",)) from None
        except KeyRefused as error:
            raise SettingsError((f"--jwks {jwks}: {error}",)) from None
    # Loaded for the network only: most tokens are looked at without it.
    from jotgate.verifier.addresses import check_https_url  # noqa: PLC0415
    from jotgate.verifier.discovery import KeyFetcher  # noqa: PLC0415
    from jotgate.verifier.transport import FetchError, HttpsTransport  # noqa: PLC0415

    url = jwks or issuer or ""
    try:
        check_https_url(url)
    except ValueError as error:
        raise SettingsError((f"{url} {error}",)) from None
    fetch = KeyFetcher(
        issuer=url,
        jwks_uri=jwks,
        algorithms=tuple(name for name, each in ALGORITHMS.items() if not each.symmetric),
        transport=HttpsTransport(ca_file),
        timeout_s=_FETCH_WITHIN_S,
        monotonic=time.monotonic,
    )
    try:
        return fetch().keys
    except FetchError as error:
        raise KeySourceError(f"the keys cannot be fetched: {error}") from None


def _signature_fault(token: str, keys: KeySet) -> Finding | None:
    try:
        verify_jws(token, keys)
    except JotgateError as error:
        return Finding(error.code, str(error))
    return None


def _report(found: Inspection, signature: Signature, problems: list[Finding], now: int) -> dict[str, Any]:
    claims = found.payload.members or {}
    return {
        "header": found.header.members,
        "payload": found.payload.members,
        "signature": {"bytes": signature.size, "checked": signature.good is not None, "good": signature.good},
        "times": {
            name: {"utc": utc(int(claims[name])), "seconds_from_now": int(claims[name]) - now}
            for name in TIMES
            if name in claims and is_time(claims[name])
        },
        "problems": [{"code": each.code, "detail": each.detail} for each in problems],
        "notes": [each.detail for each in found.notes],
    }


def _print(found: Inspection, signature: Signature, problems: list[Finding], now: int) -> None:
    console = Console(highlight=False, soft_wrap=True)
    _print_part(console, "header", found.header, now)
    _print_part(console, "payload", found.payload, now)
    console.print(Text("signature", "bold"))
    console.print(Text(f"  {_about(signature)}"))
    if problems:
        console.print(Text("what is wrong", "bold red"))
        for each in problems:
            console.print(Text(f"  {printable(each.detail)}  ({each.code})"))
    else:
        console.print(Text("nothing wrong found" + ("" if signature.good else ", as far as can be seen without a key")))
    if found.notes:
        console.print(Text("notes", "bold"))
        for each in found.notes:
            console.print(Text(f"  {printable(each.detail)}"))


def _print_part(console: Console, title: str, part: Part, now: int) -> None:
    console.print(Text(title, "bold"))
    if part.members is None:
        console.print(Text(f"  {_raw(part)}"))
        return
    width = max((len(printable(name)) for name in part.members), default=0)
    for name, value in part.members.items():
        line = Text(f"  {printable(name):<{width}}  ").append(json_line(value), "cyan")
        if title == "payload" and name in TIMES and is_time(value):
            line.append(f"  {utc(int(value))}, {relative(int(value), now)}")
        console.print(line)


def _raw(part: Part) -> str:
    if part.raw is None:
        return "cannot be read"
    text = printable(part.raw[:_LONGEST_SHOWN].decode("utf-8", "backslashreplace"))
    return text + (" …" if len(part.raw) > _LONGEST_SHOWN else "") if text else "empty"


def _about(signature: Signature) -> str:
    size = "none" if signature.size is None else f"{signature.size} bytes"
    match signature.good:
        case True:
            return f"{size}, good: it was made with a key of the set"
        case False:
            return f"{size}, not good"
        case None:
            return f"{size}, not checked (--jwks or --issuer says with which keys)"
