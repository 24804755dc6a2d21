"""What a mail says: the kinds there are, the values that each needs, and the message made of them.

Pure but for reading its own templates, once. Whatever comes from people is escaped in HTML and is one line in text;
links are taken from the values alone, never made up here.
"""

import datetime as dt
import hashlib
import re
import tomllib
import unicodedata
from collections.abc import Mapping
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal, NamedTuple, get_args
from urllib.parse import urlsplit

from email_validator import EmailNotValidError, validate_email
from jinja2 import DictLoader, Environment, StrictUndefined, select_autoescape
from msgspec import Struct

from jotgate.core.errors import JotgateError, SettingsError
from jotgate.server.rules.colours import readable_on

MailKind = Literal[
    "verify",
    "account_exists",
    "reset",
    "password_changed",
    "change_email",
    "email_changed",
    "email_change_undone",
    "email_taken",
    "new_device",
    "session_reused",
    "account_deleted",
    "second_factor_changed",
    "recovery_code_used",
    "recovery_codes_made",
    "second_factor_guessed",
    "password_reset",
    "address_reserved",
]

MAIL_VALUES: Final[Mapping[MailKind, frozenset[str]]] = {
    "verify": frozenset({"link", "expires_at"}),
    "account_exists": frozenset({"link"}),
    "reset": frozenset({"link", "expires_at"}),
    "password_changed": frozenset({"at", "link"}),
    "change_email": frozenset({"link", "expires_at"}),
    "email_changed": frozenset({"new_email", "link", "expires_at"}),
    "email_change_undone": frozenset({"at"}),
    "email_taken": frozenset(),
    "new_device": frozenset({"device", "address", "at", "link"}),
    "session_reused": frozenset({"device", "address", "at", "link"}),
    "account_deleted": frozenset({"at"}),
    "second_factor_changed": frozenset({"change", "factor", "at", "link"}),
    "recovery_code_used": frozenset({"at", "left", "link"}),
    "recovery_codes_made": frozenset({"at", "link"}),
    "second_factor_guessed": frozenset({"device", "address", "at", "link"}),
    "password_reset": frozenset({"at", "link"}),
    "address_reserved": frozenset(),
}
"""The names of the values that each kind has, all of them and no other.

``link`` is what the button opens; ``at`` and ``expires_at`` are Unix time in digits; ``change`` is ``added`` or
``removed``; the rest is shown as it is.
"""
_KINDS: Final = frozenset(get_args(MailKind))
_TIMES: Final = ("at", "expires_at")
_CHANGES: Final = ("added", "removed")
_LONGEST_SHOWN: Final = 320  # an address of 254 characters fits; of a device's name, that is more than enough
_UNIX_TIME: Final = re.compile(r"[0-9]{1,11}", re.ASCII)
_LINK: Final = re.compile(r"https?://[!#-;=?-\[\]_a-z~]{1,2000}", re.ASCII)  # printable, and nothing that ends an href
_COLOUR: Final = re.compile(r"#[0-9A-Fa-f]{6}", re.ASCII)
_FOLDER: Final = "templates"


DECOY: Final = "decoy"
"""The kind under which the outbox keeps a mail that is written as any other and sent to nobody: neither the answer to a
request nor the work that follows it tells whether an address is known."""


class MailMalformed(JotgateError):
    """A mail that cannot be written: an unknown kind, a wrong set of values, or an address that is none."""

    code = "mail_malformed"


class Mail(Struct, frozen=True, forbid_unknown_fields=True):
    """One mail to one person, in clear. Its repr shows neither the address nor the values.

    Raises:
        MailMalformed: the kind is unknown, or the values are not those of `MAIL_VALUES`.
    """

    id: str
    kind: MailKind
    to: str
    values: Mapping[str, str]

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise MailMalformed("There is no such kind of mail.")
        if self.values.keys() != MAIL_VALUES[self.kind]:
            raise MailMalformed(f"A mail of the kind {self.kind} has other values.")
        for name, value in self.values.items():
            if name == "link" and not _LINK.fullmatch(value):
                raise MailMalformed("The link of a mail must be an http or https address in printable ASCII.")
            if name in _TIMES and not _UNIX_TIME.fullmatch(value):
                raise MailMalformed("The times of a mail must be Unix time.")
            if name == "change" and value not in _CHANGES:
                raise MailMalformed("A second step is added or removed.")

    def __repr__(self) -> str:
        return f"Mail(id={self.id!r}, kind={self.kind!r})"

    @property
    def expires_at(self) -> int | None:
        """When the mail is of no use any more, as Unix time; None if it always is."""
        value = self.values.get("expires_at")
        return None if value is None else int(value)


class Branding(Struct, frozen=True):
    """How the operator's site shows itself.

    Args:
        name: the site's; also the sender's.
        colour: the button's, ``#rrggbb``. What is written on it is black or white, whichever can be read.
        logo_url: an image that readers' programs fetch, https; none by default.
        support: where people ask, an address or a link.

    Raises:
        SettingsError: for a name that is empty or not one line, and for a colour or logo of another form.
    """

    name: str = "jotgate"
    colour: str = "#1f5fbf"
    logo_url: str | None = None
    support: str | None = None

    def __post_init__(self) -> None:
        faults = []
        if not self.name or self.name != _one_line(self.name):
            faults.append("the brand's name must be one line of text")
        if not _COLOUR.fullmatch(self.colour):
            faults.append("the brand's colour must be #rrggbb")
        if self.logo_url is not None and not (_LINK.fullmatch(self.logo_url) and self.logo_url.startswith("https:")):
            faults.append("the brand's logo must be an https address")
        if self.support is not None and (not self.support or self.support != _one_line(self.support)):
            faults.append("the brand's support must be one line of text")
        if faults:
            raise SettingsError(faults)


def render(mail: Mail, branding: Branding, sender: str, issuer: str, now: int) -> EmailMessage:
    """Return the mail as a message with a text and an HTML part that say the same.

    Its Message-ID is made from the mail's id and the issuer, so that it is the same at every try. Only a recipient or
    sender whose part before the @ is not ASCII makes a message that needs SMTPUTF8 (RFC 6531): its policy says so. A
    domain that is not ASCII is written in its ASCII form (RFC 5891) otherwise.

    Args:
        sender: the address alone; the branding's name stands before it.
        issuer: the issuer's URL.
        now: Unix time, for ``Date``.

    Raises:
        MailMalformed: an address is none.
    """
    sending, receiving = _address(sender), _address(mail.to)
    utf8 = not (sending.in_ascii and receiving.in_ascii)
    wording, templates = _catalogue(), _templates()
    kind = wording["kinds"][mail.kind]
    shown = {name: _shown(name, value) for name, value in mail.values.items()}
    shown |= {"name": branding.name, "support": branding.support or "", "link": mail.values.get("link", "")}
    subject = templates.get_template(f"{mail.kind}.subject.txt").render(shown)
    layout = shown | {
        "language": wording["language"],
        "subject": subject,
        "before": [f"{mail.kind}.before.{n}" for n in range(len(kind["before"]))],
        "after": [f"{mail.kind}.after.{n}" for n in range(len(kind["after"]))],
        "button": f"{mail.kind}.button",
        "logo_url": branding.logo_url,
        "colour": branding.colour,
        "on_colour": readable_on(branding.colour),
    }

    # 7 bit, so that any server takes it as it is and nobody on the way has to change it.
    message = EmailMessage(SMTP.clone(utf8=utf8, cte_type="7bit"))
    message["From"] = sending.header(utf8=utf8, name=branding.name)
    message["To"] = receiving.header(utf8=utf8)
    message["Subject"] = subject
    message["Date"] = format_datetime(dt.datetime.fromtimestamp(now, dt.UTC))
    message["Message-ID"] = _message_id(mail.id, issuer)
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no robot answers it
    message.set_content(templates.get_template("layout.txt").render(layout), cte="quoted-printable")
    message.add_alternative(
        templates.get_template("layout.html").render(layout), subtype="html", cte="quoted-printable"
    )
    message["Content-Language"] = wording["language"]  # now: what was there before went to the first part
    return message


def check_address(text: str) -> None:
    """Refuse what is no address, of a sender for one.

    Raises:
        MailMalformed: it is none.
    """
    _address(text)


def _message_id(mail_id: str, issuer: str) -> str:
    host = urlsplit(issuer).hostname or "localhost"
    domain = f"[IPv6:{host}]" if ":" in host else host
    return f"<{hashlib.sha256(f'{issuer} {mail_id}'.encode()).hexdigest()[:32]}@{domain}>"


class _MailAddress(NamedTuple):
    local: str
    domain: str
    ascii_domain: str

    @property
    def in_ascii(self) -> bool:
        return self.local.isascii()

    def header(self, *, utf8: bool, name: str = "") -> Address:
        return Address(name, self.local, self.domain if utf8 else self.ascii_domain)


def _address(text: str) -> _MailAddress:
    try:
        # Whether mail can get there is the mail server's to say: `jotgate@localhost` is good enough for a sender.
        parsed = validate_email(text, check_deliverability=False, test_environment=True, globally_deliverable=False)
    except EmailNotValidError:
        raise MailMalformed("An address of the mail is not valid.") from None
    return _MailAddress(parsed.local_part, parsed.domain, parsed.ascii_domain)


def _shown(name: str, value: str) -> str:
    if name in _TIMES:
        return f"{dt.datetime.fromtimestamp(int(value), dt.UTC):%Y-%m-%d %H:%M} UTC"
    return _one_line(value) or "unknown"


def _one_line(text: str) -> str:
    """The text without line ends, other controls, direction marks and surrogates, and not too long."""
    plain = "".join(" " if unicodedata.category(each)[0] in "CZ" else each for each in text[:_LONGEST_SHOWN])
    return " ".join(plain.split())


@cache
def _catalogue() -> dict[str, Any]:
    return tomllib.loads(_read("catalogue.toml"))


@cache
def _templates() -> Environment:
    """All sentences, each once for text and once for HTML, and the two layouts; they are compiled when first used."""
    wording = _catalogue()
    sentences: dict[str, str] = {name: wording[name] for name in ("greeting", "footer", "support")}
    for kind, said in wording["kinds"].items():
        sentences[f"{kind}.subject"] = said["subject"]
        sentences[f"{kind}.button"] = said.get("button", "")
        for place in ("before", "after"):
            sentences |= {f"{kind}.{place}.{n}": each for n, each in enumerate(said[place])}
    sources = {f"{name}.{form}": text for name, text in sentences.items() for form in ("txt", "html")}
    sources |= {name: _read(name) for name in ("layout.txt", "layout.html")}
    return Environment(
        loader=DictLoader(sources),
        autoescape=select_autoescape(enabled_extensions=("html",), default=False, default_for_string=True),
        undefined=StrictUndefined,
        cache_size=-1,
        auto_reload=False,
    )


def _read(name: str) -> str:
    return files(__package__).joinpath(_FOLDER, name).read_text(encoding="utf-8")
