"""The page of mails in the demo: real mails, written by the server's own transport."""

import asyncio
import os
from email.message import EmailMessage
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI

from examples.shop.mails import mails_page
from jotgate.server.mail.transports import FolderTransport
from tests.server.http.support import client_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "mail"


async def shown(folder: Path, peer: str = "127.0.0.1", **headers: str) -> httpx2.Response:
    app = FastAPI()
    app.include_router(mails_page(folder))
    async with client_of(app, peer=peer) as client:
        return await client.get("/mails", headers=headers)


async def put(folder: Path, number: int, subject: str, text: str) -> None:
    message = EmailMessage()
    message["Subject"], message["To"], message["Message-ID"] = subject, "ada@example.com", f"<{number}@x>"
    message.set_content(text)
    message.add_alternative("<p>not this</p>", subtype="html")
    await FolderTransport(folder).send(message)


async def test_links_can_be_followed_and_nothing_else_is_markup(folder: Path) -> None:
    await put(folder, 1, "<b>Hello</b>", 'A link: https://localhost:8443/reset?code=a&b="\n<script>alert(1)</script>')
    page = (await shown(folder)).text
    assert '<a href="https://localhost:8443/reset?code=a&amp;b=">https://localhost:8443/reset?code=a&amp;b=</a>' in page
    assert "&lt;b&gt;Hello&lt;/b&gt;" in page
    assert "<script" not in page
    assert "not this" not in page


async def test_the_newest_comes_first_and_there_may_be_none(folder: Path) -> None:
    assert "There are none yet" in (await shown(folder)).text
    for number in range(3):
        await put(folder, number, f"Mail {number}", "x")
        await asyncio.to_thread(_older, folder, 3 - number)
    page = (await shown(folder)).text
    assert page.index("Mail 2") < page.index("Mail 1") < page.index("Mail 0")


def _older(folder: Path, seconds: int) -> None:
    for path in folder.glob("*.eml"):
        at = path.stat().st_mtime - seconds
        os.utime(path, (at, at))


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("192.0.2.1", {}),
        ("127.0.0.1", {"x-forwarded-for": "192.0.2.1"}),
        ("127.0.0.1", {"forwarded": "for=192.0.2.1"}),
        ("127.0.0.1", {"x-real-ip": "192.0.2.1"}),
        ("127.0.0.1", {"host": "shop.example.com"}),
        ("unix", {}),
    ],
)
async def test_it_is_for_this_machine_alone(folder: Path, peer: str, headers: dict[str, str]) -> None:
    await put(folder, 1, "Hello", "x")
    assert (await shown(folder, peer, **headers)).status_code == 404
    assert (await shown(folder, "::1")).headers["cache-control"] == "no-store"
