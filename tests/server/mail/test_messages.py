"""What mails say: the same in text and in HTML, and nothing that a stranger put into it."""

import re
import tomllib
from email import message_from_bytes, policy
from email.message import EmailMessage
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotgate.core.errors import SettingsError
from jotgate.server.mail.messages import MAIL_VALUES, Branding, Mail, MailKind, MailMalformed, render

NOW = 1_795_000_000
ISSUER = "https://auth.example.com"
SENDER = "no-reply@example.com"
LINK = f"{ISSUER}/account/reset?code=abc-DEF_123456789012345678901234567890123456789012345678901234567890&next=/shop"
GOOD = {
    "link": LINK,
    "at": str(NOW),
    "expires_at": str(NOW + 1800),
    "device": "Firefox on Linux",
    "address": "192.0.2.7",
    "new_email": "new@example.net",
    "change": "added",
    "factor": "Passkey",
    "left": "9",
}
KINDS: tuple[MailKind, ...] = get_args(MailKind)


def mail_of(kind: MailKind, to: str = "ada@example.org", **values: str) -> Mail:
    return Mail("m1", kind, to, {name: GOOD[name] for name in MAIL_VALUES[kind]} | values)


def rendered(mail: Mail, branding: Branding | None = None, *, sender: str = SENDER, now: int = NOW) -> EmailMessage:
    """As whoever receives it parses it."""
    message = render(mail, branding or Branding("The Shop", support="help@example.com"), sender, ISSUER, now)
    parsed = message_from_bytes(message.as_bytes(), policy=policy.SMTP)
    assert isinstance(parsed, EmailMessage)
    return parsed


def body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert isinstance(part, EmailMessage)
    content: str = part.get_content()
    return content


class Shown(HTMLParser):
    """What a person sees of a page, and where its links lead."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.language = ""
        self._words: list[str] = []
        self._inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in {"meta", "br", "img"}:
            self._inside.append(tag)
        if tag == "a":
            self.links.append(dict(attrs)["href"] or "")
        if tag == "html":
            self.language = dict(attrs)["lang"] or ""

    def handle_endtag(self, tag: str) -> None:
        assert self._inside.pop() == tag

    def handle_data(self, data: str) -> None:
        if "body" in self._inside:
            self._words += data.split()

    @property
    def words(self) -> list[str]:
        assert not self._inside, "every tag is closed"
        return self._words


@pytest.mark.parametrize("kind", KINDS)
def test_text_and_html_say_the_same(kind: MailKind) -> None:
    message = rendered(mail_of(kind))
    text, page = body(message, "plain"), Shown(body(message, "html"))
    assert [word for word in text.split() if word != "--"] == page.words
    assert page.language == "en"
    assert "The Shop" in text
    assert "help@example.com" in text


@pytest.mark.parametrize("kind", KINDS)
def test_a_mail_shows_every_value_and_links_only_to_its_link(kind: MailKind) -> None:
    message = rendered(mail_of(kind))
    text, html = body(message, "plain"), body(message, "html")
    for name in MAIL_VALUES[kind] - {"at", "expires_at", "link"}:
        assert GOOD[name] in text
    if "at" in MAIL_VALUES[kind]:
        assert "2026-11-18 11:06 UTC" in text
    if "expires_at" in MAIL_VALUES[kind]:
        assert "2026-11-18 11:36 UTC" in text
    links = [LINK, LINK] if "link" in MAIL_VALUES[kind] else []
    assert Shown(html).links == links
    assert re.findall(r"https?://\S+", text) == links[1:]
    assert set(re.findall(r"https?://[^\"<\s]+", html)) == {link.replace("&", "&amp;") for link in links}


def test_the_catalogue_has_every_kind_and_no_other() -> None:
    text = files("jotgate.server.mail").joinpath("templates", "catalogue.toml").read_text()
    kinds: dict[MailKind, Any] = tomllib.loads(text)["kinds"]
    assert kinds.keys() == set(KINDS) == MAIL_VALUES.keys()
    for kind, said in kinds.items():
        assert ("button" in said) == ("link" in MAIL_VALUES[kind])


def test_what_people_wrote_is_text_in_html() -> None:
    device = '<a href="https://evil.example">click</a> & "more" \' {{ 7*7 }}'
    message = rendered(mail_of("new_device", device=device), Branding("<i>Shop</i> & Co"))
    page = Shown(body(message, "html"))
    assert page.links == [LINK, LINK]
    assert "i" not in page.tags
    assert device in body(message, "plain")
    assert " ".join(device.split()) in " ".join(page.words)


def test_what_people_wrote_is_one_line() -> None:
    device = "Firefox\r\n\r\nYour account is closed: call 555\u2028\u202e\x1b[2J\x00 \ud800" + "x" * 10_000
    text = body(rendered(mail_of("new_device", device=device)), "plain")
    (line,) = [line for line in text.splitlines() if line.startswith("Device: ")]
    assert line.startswith("Device: Firefox Your account is closed: call 555 [2J x")
    assert len(line) < 400
    assert "Device: unknown" in body(rendered(mail_of("new_device", device=" \n")), "plain")


@pytest.mark.parametrize(
    "to", ["ada@example.org\r\nBcc: eve@evil.example", "ada@example.org, eve@evil.example", "Ada <ada@example.org>", ""]
)
def test_a_recipient_is_one_address_and_no_header(to: str) -> None:
    with pytest.raises(MailMalformed) as refused:
        rendered(mail_of("verify", to))
    assert "@" not in str(refused.value)


@given(st.text(max_size=60))
def test_no_value_makes_a_header(value: str) -> None:
    names = set(rendered(mail_of("new_device")).keys())
    message = rendered(mail_of("new_device", device=value, address=value))
    assert set(message.keys()) == names
    assert {each.get_content_type() for each in message.walk()} == {"multipart/alternative", "text/plain", "text/html"}


def test_the_headers_of_a_mail() -> None:
    message = rendered(mail_of("reset"))
    assert message["From"] == "The Shop <no-reply@example.com>"
    assert message["To"] == "ada@example.org"
    assert message["Subject"] == "Choose a new password for The Shop"
    assert message["Date"] == "Wed, 18 Nov 2026 11:06:40 +0000"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Content-Language"] == "en"


def test_the_message_id_is_the_mails_at_every_try() -> None:
    def message_id(mail_id: str, issuer: str, now: int) -> str:
        mail = Mail(mail_id, "email_taken", "ada@example.org", {})
        return str(message_from_bytes(render(mail, Branding(), SENDER, issuer, now).as_bytes())["Message-ID"])

    first = message_id("m1", ISSUER, NOW)
    assert re.fullmatch(r"<[0-9a-f]{32}@auth\.example\.com>", first)
    assert message_id("m1", ISSUER, NOW + 9999) == first
    assert message_id("m2", ISSUER, NOW) != first
    assert message_id("m1", "https://auth.example.net", NOW).split("@")[0] != first.split("@")[0]
    assert message_id("m1", "https://[::1]:8443", NOW).endswith("@[IPv6:::1]>")
    long = f"{'a' * 60}.{'b' * 60}.example"
    assert message_id("m1", f"https://{long}", NOW).endswith(f"@{long}>"), "it is not folded"


def test_a_domain_outside_ascii_goes_in_its_ascii_form() -> None:
    message = render(mail_of("verify", "ada@straße.example"), Branding("Ü"), "post@bücher.example", ISSUER, NOW)
    raw = message.as_bytes()
    assert raw.isascii()
    assert b"\r\nTo: ada@xn--strae-oqa.example\r\n" in raw
    assert b"<post@xn--bcher-kva.example>" in raw
    assert rendered(mail_of("verify"), Branding("Ü"))["From"].addresses[0].display_name == "Ü"


def test_a_name_outside_ascii_asks_for_smtputf8() -> None:
    message = render(mail_of("verify", "jürgen@bücher.example"), Branding(), SENDER, ISSUER, NOW)
    assert message.policy.utf8  # type: ignore[attr-defined]
    raw = message.as_bytes()
    assert "\r\nTo: jürgen@bücher.example\r\n".encode() in raw
    assert raw.partition(b"\r\n\r\n")[2].isascii()


@pytest.mark.parametrize("kind", KINDS)
def test_a_mail_has_its_values_and_no_other(kind: MailKind) -> None:
    values = {name: GOOD[name] for name in MAIL_VALUES[kind]}
    with pytest.raises(MailMalformed) as refused:
        Mail("m1", kind, "ada@example.org", values | {"more": "secret"})
    assert refused.value.code == "mail_malformed"
    assert "secret" not in str(refused.value)
    for name in values:
        with pytest.raises(MailMalformed):
            Mail("m1", kind, "ada@example.org", {each: values[each] for each in values if each != name})


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("reset", {"link": "javascript:alert(1)"}),
        ("reset", {"link": 'https://a.example/" onclick="x'}),
        ("reset", {"link": "https://a.example/\r\nX: y"}),
        ("reset", {"link": "https://a.example/ä"}),
        ("reset", {"link": "https://a.example/" + "x" * 3000}),
        ("reset", {"expires_at": "soon"}),
        ("reset", {"expires_at": "-1"}),
        ("password_changed", {"at": "1" * 12}),
        ("second_factor_changed", {"change": "stolen"}),
    ],
)
def test_values_have_their_form(kind: MailKind, wrong: dict[str, str]) -> None:
    with pytest.raises(MailMalformed):
        mail_of(kind, **wrong)


def test_there_is_no_other_kind() -> None:
    with pytest.raises(MailMalformed):
        Mail("m1", "advertisement", "ada@example.org", {})  # type: ignore[arg-type]


def test_a_mail_does_not_show_its_address_or_link() -> None:
    shown = f"{mail_of('reset')!r} {mail_of('reset')}"
    assert "m1" in shown
    assert "example" not in shown


def test_the_logo_is_fetched_only_if_there_is_one() -> None:
    assert "<img" not in body(rendered(mail_of("verify")), "html")
    html = body(rendered(mail_of("verify"), Branding(logo_url="https://cdn.example/logo.png")), "html")
    assert '<img src="https://cdn.example/logo.png"' in html


@pytest.mark.parametrize(("colour", "on"), [("#000000", "#ffffff"), ("#ffee00", "#000000"), ("#1f5fbf", "#ffffff")])
def test_the_button_can_be_read(colour: str, on: str) -> None:
    assert f"background: {colour}; color: {on};" in body(rendered(mail_of("verify"), Branding(colour=colour)), "html")


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "Shop\r\nBcc: eve@evil.example"},
        {"colour": "red;} body{display:none"},
        {"logo_url": "http://cdn.example/logo.png"},
        {"logo_url": 'https://cdn.example/"'},
        {"support": ""},
        {"support": "a\nb"},
    ],
)
def test_branding_that_would_break_a_mail_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(SettingsError):
        Branding(**wrong)
