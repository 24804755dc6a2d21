"""A page with the mails that jotgate has written into a folder, in place of a mail server: for trying out alone.

Whoever can open it can follow every link in it. So only the machine itself may.
"""

import ipaddress
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email import policy
from email.parser import BytesParser
from html import escape
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse

MOST_SHOWN = 50
PROXIES = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
LINK = re.compile(r"https?://[^\s<>\"']+")
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Mails of this demo</title>
<link rel="stylesheet" href="/static/mails.css">
</head>
<body>
<main>
<h1>Mails of this demo</h1>
<p>jotgate would send these. Without a mail server they lie in a folder, and here. <a href="/mails">Look again</a></p>
{mails}
</main>
</body>
</html>
"""
MAIL = """<article>
<h2>{subject}</h2>
<p>To {to}, {at} UTC</p>
<pre>{text}</pre>
</article>
"""


@dataclass(frozen=True)
class Mail:
    subject: str
    to: str
    at: datetime
    text: str


def mails_page(folder: Path) -> APIRouter:
    """The route of the page."""
    router = APIRouter(include_in_schema=False)

    @router.get("/mails")
    def show(request: Request) -> HTMLResponse:
        if not is_this_machine(request):
            raise HTTPException(404)
        told = "".join(map(render, newest(folder))) or "<p>There are none yet. Ask for a new password, for example.</p>"
        return HTMLResponse(PAGE.format(mails=told), headers={"Cache-Control": "no-store"})

    return router


def newest(folder: Path) -> list[Mail]:
    """The mails in the folder, the newest first."""
    mails = []
    for path in folder.glob("*.eml"):
        try:
            raw, at = path.read_bytes(), path.stat().st_mtime
        except FileNotFoundError:  # it had to make room for a newer one
            continue
        message = BytesParser(policy=policy.default).parsebytes(raw)
        part = message.get_body(("plain",))
        text = "" if part is None else str(part.get_content())
        mails.append(Mail(str(message["subject"]), str(message["to"]), datetime.fromtimestamp(at, UTC), text))
    return sorted(mails, key=lambda mail: mail.at, reverse=True)[:MOST_SHOWN]


def render(mail: Mail) -> str:
    """A mail as HTML, with links to follow."""
    text, parts, end = mail.text, [], 0
    for found in LINK.finditer(text):
        link = escape(found[0])
        parts += [escape(text[end : found.start()]), f'<a href="{link}">{link}</a>']
        end = found.end()
    parts.append(escape(text[end:]))
    at = mail.at.strftime("%Y-%m-%d %H:%M:%S")
    return MAIL.format(subject=escape(mail.subject), to=escape(mail.to), at=at, text="".join(parts).strip())


def is_this_machine(request: Request) -> bool:
    """Whether nobody else asks: no proxy in front, either."""
    if request.client is None or any(name in request.headers for name in PROXIES):
        return False
    try:
        asked = request.url.hostname or ""
        here = asked == "localhost" or ipaddress.ip_address(asked).is_loopback
        return here and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
