"""Mails on their way: against a real mail server that is well, ill or false, into a folder, and to the terminal."""

import asyncio
import socket
import ssl
import stat
import time
from email.message import EmailMessage
from pathlib import Path

import pytest

from jotgate.core.errors import SettingsError
from jotgate.server.mail import transports
from jotgate.server.mail.messages import Branding, Mail, render
from jotgate.server.mail.transports import (
    ConsoleTransport,
    FolderTransport,
    MailFailed,
    MailRefused,
    MailServerDown,
    SmtpTransport,
    make_transport,
)
from jotgate.server.places import mail_faults, smtp_place
from jotgate.server.secret import Secret
from jotgate.server.tls import LocalCertificate, ensure_local_certificate
from tests.conftest import free_port
from tests.smtp import SmtpServer

NOW = 1_795_000_000
LINK = "https://auth.example.com/verify?code=0123456789"
LOGIN = ("mailer", "canary-of-the-mail")


def message_to(to: str = "ada@example.org", mail_id: str = "m1") -> EmailMessage:
    mail = Mail(mail_id, "verify", to, {"link": LINK, "expires_at": str(NOW + 3600)})
    return render(mail, Branding("The Shop"), "no-reply@example.com", "https://auth.example.com", NOW)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> LocalCertificate:
    return ensure_local_certificate(tmp_path_factory.mktemp("mail") / "tls", int(time.time()))


@pytest.fixture(scope="module")
def other_ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_local_certificate(tmp_path_factory.mktemp("other") / "tls", int(time.time())).ca


@pytest.fixture
def server_tls(certificate: LocalCertificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    return context


async def failure(url: str, message: EmailMessage | None = None, **times: float) -> MailFailed | MailRefused:
    """How sending fails; what is told of it names nothing that a log must not hold."""
    with pytest.raises((MailFailed, MailRefused)) as failed:
        await SmtpTransport(Secret(url), **times).send(message or message_to())
    for secret in ("ada", "example", "127.0.0.1", "localhost", *LOGIN):
        assert secret not in f"{failed.value} {failed.value!r}"
    assert failed.value.__cause__ is None
    assert isinstance(failed.value, MailFailed | MailRefused)
    return failed.value


async def test_a_mail_arrives_as_it_was_made() -> None:
    with SmtpServer() as server:
        await make_transport(Secret(server.url)).send(message_to())
        (mail,) = server.wait_for(1)
    assert (mail.sender, mail.recipient) == ("no-reply@example.com", "ada@example.org")
    assert mail.message["Message-ID"] == message_to()["Message-ID"]
    assert LINK in mail.text
    assert LINK in mail.html
    assert not mail.encrypted


async def test_starttls_and_login(server_tls: ssl.SSLContext, certificate: LocalCertificate) -> None:
    with SmtpServer(tls=server_tls, login=LOGIN) as server:
        await make_transport(Secret(f"{server.url}?ca_file={certificate.ca}")).send(message_to())
        (mail,) = server.wait_for(1)
    assert mail.encrypted
    assert mail.user == LOGIN[0]


async def test_tls_from_the_first_byte(server_tls: ssl.SSLContext, certificate: LocalCertificate) -> None:
    with SmtpServer(tls=server_tls, implicit_tls=True, login=LOGIN) as server:
        await make_transport(Secret(f"{server.url}?ca_file={certificate.ca}")).send(message_to())
        (mail,) = server.wait_for(1)
    assert mail.encrypted
    assert mail.user == LOGIN[0]


@pytest.mark.parametrize("implicit_tls", [False, True])
async def test_a_certificate_that_nobody_vouches_for_is_refused(
    server_tls: ssl.SSLContext, other_ca: Path, *, implicit_tls: bool
) -> None:
    with SmtpServer(tls=server_tls, implicit_tls=implicit_tls, login=LOGIN) as server:
        for url in (f"{server.url}?ca_file={other_ca}", server.url):
            error = await failure(url)
            assert isinstance(error, MailServerDown)
            assert error.code == "mail_tls_failed"
        assert not server.messages


async def test_a_certificate_for_another_name_is_refused(
    server_tls: ssl.SSLContext, certificate: LocalCertificate
) -> None:
    with SmtpServer(tls=server_tls, implicit_tls=True, bind="127.0.0.2") as server:
        url = f"smtps://127.0.0.2:{server.port}?ca_file={certificate.ca}"
        assert (await failure(url)).code == "mail_tls_failed"
        assert not server.messages


async def test_without_starttls_nothing_is_said() -> None:
    with SmtpServer(login=LOGIN) as server:
        error = await failure(server.url.removesuffix("?tls=none"))
        assert isinstance(error, MailServerDown)
        assert error.code == "mail_not_offered"
        assert not server.messages


async def test_a_wrong_password_is_the_setups_fault_and_no_mails(
    server_tls: ssl.SSLContext, certificate: LocalCertificate
) -> None:
    with SmtpServer(tls=server_tls, login=LOGIN) as server:
        for user in ("mailer:wrong@", ""):
            error = await failure(f"smtp://{user}localhost:{server.port}?ca_file={certificate.ca}")
            assert isinstance(error, MailServerDown)
            assert error.code == "mail_login_failed"
            assert error.status in {530, 535}


@pytest.mark.parametrize(
    ("at", "code"),
    [("MAIL", "mail_sender_refused"), ("RCPT", "mail_recipient_refused"), ("DATA", "mail_content_refused")],
)
async def test_a_refusal_for_good(at: str, code: str) -> None:
    with SmtpServer() as server:
        server.mode, server.at, server.answer = "refuse", at, "550 5.7.1 <ada@example.org> is not welcome"
        error = await failure(server.url)
    assert isinstance(error, MailRefused)
    assert (error.code, error.status) == (code, 550)


@pytest.mark.parametrize("at", ["MAIL", "RCPT", "DATA"])
async def test_a_refusal_for_now(at: str) -> None:
    with SmtpServer() as server:
        server.mode, server.at, server.answer = "refuse", at, "451 4.7.1 greylisted"
        error = await failure(server.url)
    assert isinstance(error, MailFailed)
    assert not isinstance(error, MailServerDown)
    assert (error.code, error.status) == ("mail_deferred", 451)


@pytest.mark.parametrize("at", ["MAIL", "DATA"])
async def test_a_slow_server_costs_the_time_that_it_may(at: str) -> None:
    with SmtpServer() as server:
        server.mode, server.at = "slow", at
        began = time.monotonic()
        error = await failure(server.url, connect_s=5, total_s=0.3)
        assert time.monotonic() - began < 3
    assert error.code == "mail_timeout"
    assert isinstance(error, MailFailed)


async def test_a_server_that_says_nothing_is_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = await failure(f"smtp://127.0.0.1:{silent.getsockname()[1]}?tls=none", connect_s=0.2)
    assert isinstance(error, MailServerDown)
    assert error.code == "mail_connect_failed"


async def test_a_server_that_dawdles_over_every_step_is_down() -> None:
    async def dawdle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in ("220 hello", "250-hello\r\n250 AUTH PLAIN", "235 welcome", "550 no"):
            await asyncio.sleep(0.2)
            writer.write(f"{answer}\r\n".encode())
        writer.close()

    async with await asyncio.start_server(dawdle, "127.0.0.1", 0) as slow:
        url = f"smtp://mailer:{LOGIN[1]}@127.0.0.1:{slow.sockets[0].getsockname()[1]}?tls=none"
        error = await failure(url, connect_s=0.35)  # more than any step takes, and less than all of them
        assert isinstance(error, MailServerDown)
        assert error.code == "mail_connect_failed"
        assert isinstance(await failure(url, connect_s=20), MailRefused)


async def test_nobody_there() -> None:
    error = await failure(f"smtp://127.0.0.1:{free_port()}?tls=none")
    assert isinstance(error, MailServerDown)
    assert error.code == "mail_connect_failed"


async def test_a_greeting_that_turns_everybody_away_is_no_mails_fault() -> None:
    async def turn_away(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"554 5.3.2 not today\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(turn_away, "127.0.0.1", 0) as rude:
        error = await failure(f"smtp://127.0.0.1:{rude.sockets[0].getsockname()[1]}?tls=none")
    assert isinstance(error, MailServerDown)
    assert error.status == 554


async def test_a_connection_that_breaks_before_the_answer_has_failed() -> None:
    with SmtpServer() as server:
        server.mode = "die_before_answer"
        error = await failure(server.url)
    assert isinstance(error, MailFailed)
    assert error.code == "mail_disconnected"


async def test_a_connection_that_breaks_after_the_answer_has_delivered() -> None:
    with SmtpServer() as server:
        server.mode = "die_after_answer"
        await make_transport(Secret(server.url)).send(message_to())
        assert len(server.wait_for(1)) == 1


async def test_an_address_outside_ascii_needs_a_server_that_takes_it() -> None:
    with SmtpServer() as server:
        await make_transport(Secret(server.url)).send(message_to("jürgen@bücher.example"))
        await make_transport(Secret(server.url)).send(message_to("ada@bücher.example"))
        first, second = server.wait_for(2)
        assert first.recipient == "jürgen@bücher.example"
        assert second.recipient == "ada@xn--bcher-kva.example"
        server.smtputf8 = False
        with pytest.raises(MailRefused) as refused:
            await make_transport(Secret(server.url)).send(message_to("jürgen@bücher.example"))
    assert refused.value.code == "mail_address_unsupported"


async def test_a_message_that_is_not_one_mail_to_one_person_is_refused() -> None:
    message = message_to()
    del message["To"]
    message["To"] = "ada@example.org, eve@example.org"
    with pytest.raises(MailRefused):
        await SmtpTransport(Secret("smtp://127.0.0.1:1?tls=none")).send(message)


async def test_a_folder_holds_each_mail_once(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "mail"
    transport = make_transport(Secret(f"file://{folder}"))
    await transport.send(message_to())
    await transport.send(message_to())
    await transport.send(message_to(mail_id="m2"))
    files = list(folder.iterdir())
    assert len(files) == 2
    assert {path.suffix for path in files} == {".eml"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert LINK.split("=")[1].encode() in files[0].read_bytes()


def test_a_folder_keeps_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transports, "KEPT_FILES", 3)
    for number in range(5):
        asyncio.run(FolderTransport(tmp_path).send(message_to(f"ada{number}@example.org", f"m{number}")))
    kept = "".join(path.read_text() for path in tmp_path.iterdir())
    assert [f"ada{number}@" in kept for number in range(5)] == [False, False, True, True, True]


async def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MailServerDown) as failed:
        await FolderTransport(tmp_path / "file").send(message_to())
    assert failed.value.code == "mail_folder_failed"
    assert str(tmp_path) not in str(failed.value)


async def test_the_terminal_shows_the_text() -> None:
    said: list[str] = []
    await ConsoleTransport(said.append).send(message_to())
    assert "ada@example.org" in said[0]
    assert LINK in said[0]
    assert "<html" not in said[0]


async def test_the_console_is_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    await make_transport(Secret("console:")).send(message_to())
    said = capsys.readouterr()
    assert LINK in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    "url",
    [
        "console:",
        "file:mail",
        "file:../var/mail",
        "file:///var/mail",
        "smtps://mail.example.com",
        "smtps://user:p%40ss@mail.example.com:465?ca_file=ca.pem",
        "smtp://user:pass@mail.example.com:587",
        "smtp://localhost:2525?tls=none",
        "smtp://127.8.8.8:2525?tls=none",
        "smtp://[::1]:2525?tls=none",
        "smtp://[2001:db8::1]",
    ],
)
def test_where_mail_may_go(url: str) -> None:
    assert list(mail_faults(Secret(url))) == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "console:x",
        "file:",
        "file://host/mail",
        "file:///",
        "file:mail?x=1",
        "http://canary.example",
        "smtp://",
        "smtp://user:canary@",
        "smtp://user:can/ary@mail.example.com",
        "smtp://user:can#ary@mail.example.com",
        "smtp://user@mail.example.com",
        "smtp://:canary@mail.example.com",
        "smtp://canary:99999",
        "smtp://canary:0",
        "smtp://a.example,b.example",
        "smtp://mail.example.com/canary",
        "smtp://mail.example.com?canary=1",
        "smtp://mail.example.com?canary",
        "smtp://mail.example.com?tls=none",
        "smtp://localhost.canary.example?tls=none",
        "smtp://127.0.0.1@canary.example?tls=none",
        "smtp://localhost?tls=starttls",
        "smtp://localhost?tls=none&tls=none",
        "smtp://localhost?tls=none&ca_file=canary",
        "smtps://localhost?tls=none",
        "smtps://localhost?ca_file=",
        "smtps://localhost?ca_file=a&ca_file=canary",
        "smtps://localhost#canary",
        "smtps://[canary",
    ],
)
def test_where_mail_may_not_go(url: str) -> None:
    faults = list(mail_faults(Secret(url)))
    assert faults
    assert "canary" not in " ".join(faults)
    with pytest.raises(SettingsError):
        make_transport(Secret(url))


def test_what_an_smtp_url_says() -> None:
    place = smtp_place(Secret("smtp://us%40er:p%3Aw@Mail.Example.com?ca_file=a%20b.pem"))
    assert (place.host, place.port, place.starttls, place.implicit_tls) == ("mail.example.com", 587, True, False)
    assert (place.user, place.password, place.ca_file) == (Secret("us@er"), Secret("p:w"), Path("a b.pem"))
    assert "us@er" not in repr(place)
    implicit = smtp_place(Secret("smtps://mail.example.com"))
    assert (implicit.port, implicit.starttls, implicit.implicit_tls) == (465, False, True)


def test_a_ca_file_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for name in ("empty.pem", "missing.pem"):
        with pytest.raises(SettingsError) as refused:
            make_transport(Secret(f"smtps://mail.example.com?ca_file={tmp_path / name}"))
        assert str(refused.value).startswith("mail_url: the ca_file ")
