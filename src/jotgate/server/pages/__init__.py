"""The pages for people: templates, their text in one catalogue, a style sheet, and scripts that make things easier.

They work without JavaScript, save what a passkey needs. Nothing here knows a request, an account or the database: a
page is made of its name and of what it is told. All text comes from the catalogue, save why something was refused;
whatever comes from people is escaped.
"""

import datetime as dt
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal, get_args

from jinja2 import DictLoader, Environment, StrictUndefined
from msgspec import Struct

from jotgate.server.rules.colours import readable_on

PageName = Literal["confirm_signup", "forgot", "reset", "confirm_email", "undo_email", "undo_factor", "undo_password"]
HostedPage = Literal[
    "arrival",
    "login",
    "second_factor",
    "signup",
    "signup_sent",
    "logged_out",
    "account",
    "address",
    "password",
    "app",
    "app_confirm",
    "app_remove",
    "recovery_codes",
    "codes",
    "passkeys",
    "passkey_make",
    "passkey_remove",
    "delete",
]
Script = Literal["strength.js", "passkeys.js"]
_FOLDER: Final = "templates"
_TEMPLATES: Final = (
    "account.html",
    "app_confirm.html",
    "arrival.html",
    "ask.html",
    "codes.html",
    "done.html",
    "form.html",
    "layout.html",
    "login.html",
    "parts.html",
    "passkey_make.html",
    "refused.html",
    "second_factor.html",
    "signup.html",
    "told.html",
)
_ASKING: Final = ("address", "password", "app", "app_remove", "recovery_codes", "passkeys", "passkey_remove", "delete")
_TELLING: Final = ("signup_sent", "logged_out")
_FIELDS: Final[dict[PageName, tuple[str, ...]]] = {
    "confirm_signup": ("password",),
    "forgot": ("email",),
    "reset": ("new_password",),
    "undo_factor": ("password",),
    "undo_password": ("password",),
}
_ONCE_REFUSED: Final[dict[PageName, tuple[str, ...]]] = {"undo_email": ("password",)}
"""What some have to give who did not have to at first."""


class Brand(Struct, frozen=True):
    """How the operator's site shows itself here.

    Args:
        name: the site's.
        home_url: where people go on from here.
        root: path of the issuer, without a slash at its end.
        logo_url: a picture in place of the name.
    """

    name: str
    home_url: str | None
    root: str
    logo_url: str | None = None


class Shown(Struct, frozen=True, kw_only=True):
    """What a page says and carries besides its own text."""

    token: str = ""
    """Of its forms."""
    refused: str = ""
    """The sentence that says why it is asked again."""
    field: str = ""
    """The name of the field that this is about."""
    notice: str = ""
    """The name of a sentence about what was done just before."""


def render(page: HostedPage, brand: Brand, shown: Shown = Shown(), **told: object) -> str:  # noqa: B008  it is frozen
    """Return a page.

    Args:
        told: what its template shows besides.
    """
    template = "ask" if page in _ASKING else "told" if page in _TELLING else page
    said = _catalogue()[page]
    return _show(f"{template}.html", brand, shown=shown, page=page, said=said, title=said["title"], **told)


def render_form(page: PageName, brand: Brand, *, code: str = "", refused: str = "", min_length: int = 0) -> str:
    """Return the page that a link in a mail leads to.

    Args:
        code: the one-time code of the link, which the form sends along.
        refused: the sentence that says why it is asked again.
        min_length: least length of a new password in characters.
    """
    said = _catalogue()[page]
    fields = (_ONCE_REFUSED if refused and page in _ONCE_REFUSED else _FIELDS).get(page, ())
    shown = Shown(refused=refused, field=fields[0] if refused and fields else "")
    return _show(
        "form.html",
        brand,
        shown=shown,
        said=said,
        fields=fields,
        code=code,
        min_length=min_length,
        title=said["title"],
    )


def render_done(page: PageName, brand: Brand) -> str:
    """Return the page that says that it is done."""
    said = _catalogue()[page]
    return _show("done.html", brand, said=said, title=said["done_title"])


def render_refusal(brand: Brand, refused: str, *, again: str = "") -> str:
    """Return the page that says why something cannot be done.

    Args:
        again: the path of a page where somebody may begin anew.
    """
    title = _catalogue()["words"]["refused"]
    return _show("refused.html", brand, shown=Shown(refused=refused), again=again, title=title)


@cache
def stylesheet(colour: str) -> str:
    """Return the style sheet, with the operator's colour for buttons, and black or white on it."""
    return (
        _read("style.css")
        .replace("#1f5fbf", colour)
        .replace("--on-accent: #fff", f"--on-accent: {readable_on(colour)}")
    )


@cache
def script(name: Script) -> str:
    """Return a module: one tells how strong a new password looks while it is typed, the other asks for passkeys."""
    return _read(name)


def _show(template: str, brand: Brand, *, shown: Shown = Shown(), **told: object) -> str:  # noqa: B008  it is frozen
    catalogue = _catalogue()
    notice = catalogue["notices"].get(shown.notice, "")
    whole = {"brand": brand, "words": catalogue["words"], "shown": shown, "notice": notice} | told
    return _templates().get_template(template).render(whole)


@cache
def _catalogue() -> dict[str, Any]:
    catalogue = tomllib.loads(_read("catalogue.toml"))
    missing = {*get_args(PageName), *get_args(HostedPage)} - catalogue.keys()
    if missing:
        raise KeyError(*missing)
    return catalogue


@cache
def _templates() -> Environment:
    loader = DictLoader({name: _read(name) for name in _TEMPLATES})
    templates = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["moment"] = _moment
    return templates


def _moment(at: int) -> str:
    return f"{dt.datetime.fromtimestamp(at, dt.UTC):%Y-%m-%d %H:%M} UTC"


def _read(name: str) -> str:
    return files(__package__).joinpath(_FOLDER, name).read_text(encoding="utf-8")
