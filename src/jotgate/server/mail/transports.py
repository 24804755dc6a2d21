"""The ways on which a mail leaves: a mail server, a folder, the terminal. Each takes one message and is done.

What goes wrong is one of three: the mail will never get there (`MailRefused`), not now (`MailFailed`), or no mail will,
for now (`MailServerDown`). A message of theirs names no address, no server and no password.
"""

import asyncio
import contextlib
import hashlib
import os
import ssl
import sys
from collections.abc import Callable
from email.headerregistry import AddressHeader
from email.message import EmailMessage
from email.policy import EmailPolicy
from pathlib import Path
from typing import Final, Protocol

import aiosmtplib

from jotgate.core.errors import JotgateError, SettingsError
from jotgate.server.places import mail_faults, mail_folder, smtp_place
from jotgate.server.secret import Secret

CONNECT_WITHIN_S: Final = 10.0
"""For connecting, TLS and login together, and for each command after them."""
SEND_WITHIN_S: Final = 30.0
"""For one mail, all in all."""
_QUIT_WITHIN_S: Final = 2.0
KEPT_FILES: Final = 1_000
# RFC 4954 section 6: the server wants a login, or TLS before it. Every mail would fare so until the URL is mended.
_LOGIN_WANTED: Final = frozenset({530, 534, 535, 538})


class MailFailed(JotgateError):
    """It did not go out, or nobody said that it did; another time it may. `status` is the mail server's, if it said."""

    def __init__(self, code: str, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class MailServerDown(MailFailed):
    """The mail server cannot be used at all, for this mail and any other."""


class MailRefused(JotgateError):
    """The mail server will not take this mail, today or later (5xx). `status` is the mail server's, if it said."""

    def __init__(self, code: str, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class Transport(Protocol):
    """Takes mails. Each implementation ends within a time of its own, at most `SEND_WITHIN_S`."""

    async def send(self, message: EmailMessage) -> None:
        """Hand the message over; it has one recipient.

        Raises:
            MailFailed: it may go out later; with `MailServerDown` no other would go out now, either.
            MailRefused: it never will.
        """


def make_transport(url: Secret) -> Transport:
    """Return the transport that the URL names: ``smtps://``, ``smtp://``, ``file:`` or ``console:``.

    Raises:
        SettingsError: the URL is wrong, or its ``ca_file`` cannot be read.
    """
    faults = tuple(mail_faults(url))
    if faults:
        raise SettingsError(faults)
    if url.reveal() == "console:":
        return ConsoleTransport(sys.stderr.write)
    if url.reveal().startswith("file:"):
        return FolderTransport(mail_folder(url))
    return SmtpTransport(url)


class SmtpTransport:
    """A mail server (RFC 5321), one connection a mail.

    TLS is required and the server's certificate verified, save for ``?tls=none`` on this machine. When the connection
    breaks after the message and before its answer, nobody knows whether the server took it: that counts as failed, and
    the second try carries the same Message-ID.

    Args:
        url: one that `mail_faults` finds good.
        connect_s: for connecting, TLS and login together, and for each command after them.
        total_s: for the whole mail.

    Raises:
        SettingsError: the ``ca_file`` cannot be read.
    """

    def __init__(self, url: Secret, *, connect_s: float = CONNECT_WITHIN_S, total_s: float = SEND_WITHIN_S) -> None:
        self._place = smtp_place(url)
        self._tls = None
        if self._place.implicit_tls or self._place.starttls:
            self._tls = _trusting(self._place.ca_file)
        self._connect_s = connect_s
        self._total_s = total_s

    async def send(self, message: EmailMessage) -> None:
        """See `Transport.send`."""
        sender, recipient = _address_in(message, "From"), _address_in(message, "To")
        client = self._client(sender)
        try:
            async with asyncio.timeout(self._total_s):
                await self._connect(client)
                await self._hand_over(client, message, sender, recipient)
        except TimeoutError:
            raise MailFailed("mail_timeout", "The mail server took too long.") from None
        else:
            # It is delivered, whatever becomes of the farewell.
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):
                await client.quit(timeout=_QUIT_WITHIN_S)
        finally:
            client.close()

    def _client(self, sender: str) -> aiosmtplib.SMTP:
        place = self._place
        domain = sender.rpartition("@")[2]
        return aiosmtplib.SMTP(
            hostname=place.host,
            port=place.port,
            username=_revealed(place.user),
            password=_revealed(place.password),
            # Named here, or it would ask the name server what this machine is called.
            local_hostname=domain if domain.isascii() else "localhost",
            timeout=self._connect_s,
            use_tls=place.implicit_tls,
            start_tls=place.starttls,
            tls_context=self._tls,
        )

    async def _connect(self, client: aiosmtplib.SMTP) -> None:
        try:
            async with asyncio.timeout(self._connect_s):
                await client.connect()
        except aiosmtplib.SMTPAuthenticationError as error:
            raise MailServerDown("mail_login_failed", "The mail server refuses the login.", status=error.code) from None
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise _not_connected(error, encrypted=self._tls is not None) from None

    async def _hand_over(self, client: aiosmtplib.SMTP, message: EmailMessage, sender: str, recipient: str) -> None:
        # Command by command: the library's own way ends a refusal with RSET, and a server that is silent then would
        # turn the refusal into a timeout.
        try:
            if client.is_ehlo_or_helo_needed:
                await client.ehlo()
            utf8 = isinstance(message.policy, EmailPolicy) and message.policy.utf8
            if utf8 and not client.supports_extension("smtputf8"):
                raise MailRefused("mail_address_unsupported", "The mail server takes no address outside ASCII.")
            encoding, options = ("utf-8", ["SMTPUTF8"]) if utf8 else ("ascii", [])
            await client.mail(sender, options=options, encoding=encoding)
            await client.rcpt(recipient, encoding=encoding)
            await client.data(message.as_bytes(), timeout=self._total_s)
        except aiosmtplib.SMTPResponseException as error:
            raise _refusal(error) from None
        except TimeoutError:
            raise MailFailed("mail_timeout", "The mail server took too long.") from None
        except (aiosmtplib.SMTPException, OSError):
            raise MailFailed("mail_disconnected", "The mail server broke the connection.") from None


class FolderTransport:
    """A folder of ``.eml`` files, mode 0600, named by their Message-ID: for development, and for tests.

    A mail that comes twice is one file. The newest `KEPT_FILES` are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def send(self, message: EmailMessage) -> None:
        """See `Transport.send`."""
        name = hashlib.sha256(str(message["Message-ID"]).encode()).hexdigest()[:32]
        try:
            await asyncio.to_thread(self._write, name, message.as_bytes())
        except OSError:
            raise MailServerDown("mail_folder_failed", "The folder for mail cannot be used.") from None

    def _write(self, name: str, content: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._folder / f".{name}.tmp"
        try:
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with open(handle, "wb") as file:
                file.write(content)
            draft.replace(self._folder / f"{name}.eml")
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        written = []
        for path in self._folder.glob("*.eml"):
            with contextlib.suppress(FileNotFoundError):  # another worker has removed it
                written.append((path.stat().st_mtime_ns, path))
        for _, path in sorted(written)[:-KEPT_FILES]:
            path.unlink(missing_ok=True)


class ConsoleTransport:
    """The text of each mail, links and all, to read where the server runs: for development alone."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write

    async def send(self, message: EmailMessage) -> None:
        """See `Transport.send`."""
        part = message.get_body(("plain",))
        text = "" if part is None else part.get_content()
        self._write(f"--- mail to {message['To']}: {message['Subject']}\n{text}---\n")


def _revealed(secret: Secret | None) -> str | None:
    return None if secret is None else secret.reveal()


def _trusting(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise SettingsError(("mail_url: the ca_file holds no certificate in PEM form",)) from None
    except OSError as error:
        raise SettingsError((f"mail_url: the ca_file cannot be read: {error.strerror}",)) from None


def _address_in(message: EmailMessage, name: str) -> str:
    header = message[name]
    if not isinstance(header, AddressHeader) or len(header.addresses) != 1:
        raise MailRefused("mail_address_invalid", "The mail has not one sender and one recipient.")
    address: str = header.addresses[0].addr_spec
    return address


def _not_connected(error: Exception, *, encrypted: bool) -> MailServerDown:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return MailServerDown("mail_tls_failed", "The mail server's certificate or encryption is not accepted.")
        cause = cause.__cause__
    status = error.code if isinstance(error, aiosmtplib.SMTPResponseException) else None
    if isinstance(error, OSError) or status is not None:
        return MailServerDown("mail_connect_failed", "The mail server cannot be reached.", status=status)
    if encrypted:
        return MailServerDown("mail_not_offered", "The mail server offers no TLS, or no login that is known here.")
    return MailServerDown("mail_not_offered", "The mail server offers no login that is known here.")


def _refusal(error: aiosmtplib.SMTPResponseException) -> MailFailed | MailRefused:
    if error.code in _LOGIN_WANTED:
        return MailServerDown("mail_login_failed", "The mail server wants another login.", status=error.code)
    if not 500 <= error.code < 600:
        return MailFailed("mail_deferred", "The mail server does not take the mail now.", status=error.code)
    match error:
        case aiosmtplib.SMTPRecipientRefused():
            return MailRefused("mail_recipient_refused", "The mail server refuses the recipient.", status=error.code)
        case aiosmtplib.SMTPSenderRefused():
            return MailRefused("mail_sender_refused", "The mail server refuses the sender.", status=error.code)
        case aiosmtplib.SMTPDataError():
            return MailRefused("mail_content_refused", "The mail server refuses the mail.", status=error.code)
        case _:
            return MailServerDown("mail_connect_failed", "The mail server refuses to talk.", status=error.code)
