"""The pages that links in mails lead to: templates, their text in one catalogue, a style sheet and a script.

They work without JavaScript. Nothing here knows a request, an account or the database: a page is made of its name and
of what it is told. All text comes from the catalogue; whatever comes from people is escaped.
"""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal, get_args

from jinja2 import DictLoader, Environment, StrictUndefined
from msgspec import Struct

from jotgate.server.rules.colours import readable_on

PageName = Literal["confirm_signup", "forgot", "reset", "confirm_email", "undo_email", "undo_factor"]
_FOLDER: Final = "templates"


class Brand(Struct, frozen=True):
    """How the operator's site shows itself here.

    Args:
        name: the site's.
        home_url: where people go on from here.
        root: path of the issuer, without a slash at its end.
    """

    name: str
    home_url: str | None
    root: str


def render_form(page: PageName, brand: Brand, *, code: str = "", refused: str = "", min_length: int = 0) -> str:
    """Return the page that asks.

    Args:
        code: the one-time code of the link, which the form sends along.
        refused: the sentence that says why it is asked again.
        min_length: least length of a new password in characters.
    """
    asked = _catalogue()[page]
    return _show(
        "form.html",
        brand,
        page=page,
        said=asked,
        code=code,
        refused=refused,
        min_length=min_length,
        title=asked["title"],
    )


def render_done(page: PageName, brand: Brand) -> str:
    """Return the page that says that it is done."""
    asked = _catalogue()[page]
    return _show("done.html", brand, said=asked, title=asked["done_title"])


def render_refusal(brand: Brand, refused: str) -> str:
    """Return the page that says why something cannot be done."""
    return _show("refused.html", brand, refused=refused, title=_catalogue()["words"]["refused"])


@cache
def stylesheet(colour: str) -> str:
    """Return the style sheet, with the operator's colour for buttons, and black or white on it."""
    return (
        _read("style.css")
        .replace("#1f5fbf", colour)
        .replace("--on-accent: #fff", f"--on-accent: {readable_on(colour)}")
    )


@cache
def script() -> str:
    """Return the module that tells how strong a new password looks while it is typed."""
    return _read("strength.js")


def _show(template: str, brand: Brand, **told: object) -> str:
    return _templates().get_template(template).render(brand=brand, words=_catalogue()["words"], **told)


@cache
def _catalogue() -> dict[str, Any]:
    catalogue = tomllib.loads(_read("catalogue.toml"))
    missing = set(get_args(PageName)) - catalogue.keys()
    if missing:
        raise KeyError(*missing)
    return catalogue


@cache
def _templates() -> Environment:
    sources = {name: _read(name) for name in ("layout.html", "form.html", "done.html", "refused.html")}
    return Environment(loader=DictLoader(sources), autoescape=True, undefined=StrictUndefined, auto_reload=False)


def _read(name: str) -> str:
    return files(__package__).joinpath(_FOLDER, name).read_text(encoding="utf-8")
