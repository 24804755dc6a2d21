"""A text that must not be shown: its repr, its str and its format hide it."""

from typing import Final

_HIDDEN: Final = "Secret(…)"


class Secret:
    """A password or key as text. Only ``reveal()`` gives it away, so that each place that does can be found."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text

    def __repr__(self) -> str:
        return _HIDDEN

    def __str__(self) -> str:
        return _HIDDEN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))
