"""A real mail server on loopback for tests, which takes mails or, as it is told, does not. It knows nothing of jotgate.

with SmtpServer() as server:
    …  # send something to server.url
    (mail,) = server.wait_for(1)
    assert "https://" in mail.text
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import ssl
import threading
import time
from dataclasses import dataclass
from email.message import EmailMessage
from types import TracebackType
from typing import Any, AnyStr, Literal, Self

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

WITHIN_S = 30  # only a failing test waits so long

Mode = Literal["take", "refuse", "slow", "die_before_answer", "die_after_answer"]


@dataclass(frozen=True)
class ReceivedMail:
    sender: str
    recipient: str
    message: EmailMessage
    raw: bytes
    encrypted: bool
    user: str | None

    @property
    def text(self) -> str:
        return self._part("plain")

    @property
    def html(self) -> str:
        return self._part("html")

    def _part(self, kind: str) -> str:
        part = self.message.get_body((kind,))
        assert isinstance(part, EmailMessage)
        content: str = part.get_content()
        return content


class SmtpServer:
    """One mail server in a thread of its own; `messages` holds all mails that were whole, in their order.

    Args:
        tls: its certificate. Without it there is no TLS.
        implicit_tls: TLS from the first byte; otherwise it is offered by STARTTLS, and required.
        login: user and password that it wants; anybody may send without.
        bind: the address that it listens on.

    `mode` may be changed at any time:
        take: take every mail.
        refuse: answer `answer` to the command `at` (MAIL, RCPT or DATA).
        slow: never answer to the command `at` while the server runs.
        die_before_answer: take the mail, and break the connection instead of saying so.
        die_after_answer: take the mail, say so, and break the connection.
    `smtputf8` says whether new connections offer SMTPUTF8.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        login: tuple[str, str] | None = None,
        bind: str = "127.0.0.1",
    ) -> None:
        self.mode: Mode = "take"
        self.at = "RCPT"
        self.answer = "550 5.1.1 nobody of that name"
        self.smtputf8 = True
        self.messages: list[ReceivedMail] = []
        self.connections = 0
        self.host = "localhost" if tls else "127.0.0.1"
        self.port = 0
        self._bind = bind
        self._tls = tls
        self._implicit_tls = implicit_tls
        self._login = login
        self._arrived = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._transports: set[asyncio.BaseTransport] = set()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()

    @property
    def url(self) -> str:
        """Where to send to, without a ca_file."""
        user = f"{self._login[0]}:{self._login[1]}@" if self._login else ""
        scheme = "smtps" if self._implicit_tls else "smtp"
        return f"{scheme}://{user}{self.host}:{self.port}{'' if self._tls else '?tls=none'}"

    def wait_for(self, count: int) -> list[ReceivedMail]:
        """Return all mails once there are so many; AssertionError if they do not come."""
        deadline = time.monotonic() + WITHIN_S
        with self._arrived:
            self._arrived.wait_for(lambda: len(self.messages) >= count, deadline - time.monotonic())
            assert len(self.messages) >= count, f"{len(self.messages)} of {count} mails came"
            return list(self.messages)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(WITHIN_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(WITHIN_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        context = self._tls if self._implicit_tls else None
        server = await self._loop.create_server(self._connected, self._bind, self.port, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._ended.wait()
        # Whoever is connected, or is about to be, would leave a socket to the garbage collector, in the middle of
        # another test: the loop gets some turns, in which connections are made, and are closed.
        await self._turn()
        server.close()
        for transport in self._transports:
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()
        await self._turn()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.wait_for(asyncio.gather(*others, return_exceptions=True), WITHIN_S)

    async def _turn(self) -> None:
        for _ in range(8):
            await asyncio.sleep(0)

    def _connected(self) -> SMTP:
        self.connections += 1
        return _Connection(
            _Handler(self),
            self._transports,
            hostname="mail.test",
            enable_SMTPUTF8=self.smtputf8,
            loop=self._loop,
            tls_context=None if self._implicit_tls else self._tls,
            require_starttls=self._tls is not None and not self._implicit_tls,
            auth_require_tls=self._tls is not None and not self._implicit_tls,
            authenticator=self._authenticate if self._login else None,
        )

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object
    ) -> AuthResult:
        assert self._login is not None
        if not isinstance(data, LoginPassword):
            return AuthResult(success=False, handled=False)
        known = (data.login.decode(), data.password.decode()) == self._login
        return AuthResult(success=known, handled=False, auth_data=self._login[0])

    async def answer_to(self, command: str, session: Session) -> str | None:
        """What to answer instead of taking it, if anything."""
        if self._login is not None and not session.authenticated:
            return "530 5.7.0 Authentication required"
        if self.at == command and self.mode == "slow":
            await self._ended.wait()
        return self.answer if self.at == command and self.mode == "refuse" else None

    def keep(self, session: Session, envelope: Envelope) -> None:
        raw = envelope.original_content or b""
        message = email.message_from_bytes(raw, policy=email.policy.SMTPUTF8)
        assert isinstance(message, EmailMessage)
        encrypted = self._implicit_tls or session.ssl is not None
        (recipient,) = envelope.rcpt_tos
        user = str(session.auth_data) if session.authenticated else None
        mail = ReceivedMail(str(envelope.mail_from), recipient, message, raw, encrypted, user)
        with self._arrived:
            self.messages.append(mail)
            self._arrived.notify_all()


class _Connection(SMTP):
    ends_after_answer = False

    def __init__(self, handler: _Handler, transports: set[asyncio.BaseTransport], **options: Any) -> None:  # noqa: ANN401  aiosmtpd's own
        super().__init__(handler, **options)
        self._all = transports
        self._mine: list[asyncio.BaseTransport] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._all.add(transport)
        self._mine.append(transport)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._all.difference_update(self._mine)

    async def push(self, status: AnyStr) -> None:
        await super().push(status)
        if self.ends_after_answer:
            self.end()

    def end(self) -> None:
        """Break the connection once what was written is out."""
        assert self.transport is not None
        self.transport.close()


class _Handler:
    """aiosmtpd's hooks; their names are its own."""

    def __init__(self, server: SmtpServer) -> None:
        self._server = server

    async def handle_MAIL(  # noqa: N802
        self, connection: _Connection, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = await self._server.answer_to("MAIL", session)
        if answer is not None:
            return answer
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(  # noqa: N802
        self, connection: _Connection, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = await self._server.answer_to("RCPT", session)
        if answer is not None:
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, connection: _Connection, session: Session, envelope: Envelope) -> str:  # noqa: N802
        answer = await self._server.answer_to("DATA", session)
        if answer is not None:
            return answer
        self._server.keep(session, envelope)
        if self._server.mode == "die_before_answer":
            connection.end()
        connection.ends_after_answer = self._server.mode == "die_after_answer"
        return "250 OK"
