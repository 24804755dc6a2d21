"""What sessions promise to people, told once more in the plainest way: lists, a clock, and no database.

Written from the promises (a token works once; ten seconds of grace; a minute for a lost answer; what ended stays ended)
and not from the code, so that the two can be held against each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

IDLE_S: Final = 3_600
ABSOLUTE_S: Final = 14_400
ACCESS_S: Final = 300
LEEWAY_S: Final = 5
REMEMBERED: Final = 16

Answer = Literal["successor", "same", "good", "reused", "ended"]


@dataclass
class Session:
    """One login. The nth text in `tokens` is its nth refresh token; the last one is the current one."""

    sid: str
    owner: int
    tokens: list[str]
    begun_at: int
    used_at: int
    retired_at: list[int] = field(default_factory=list)
    current_seen: bool = False
    over: bool = False

    def lives(self, now: int) -> bool:
        end = min(self.used_at + IDLE_S, self.begun_at + ABSOLUTE_S)
        return not self.over and now < end

    def answer(self, back: int, now: int) -> Answer:
        """What presenting the token `back` places before the current one means; it is not used up by asking."""
        if not self.lives(now):
            return "ended"
        if back == 0:
            return "good"
        retired_s_ago = abs(now - self.retired_at[-back])
        answer_may_be_lost = back == 1 and not self.current_seen
        if back <= REMEMBERED and retired_s_ago <= (60 if answer_may_be_lost else 10):
            return "same"
        return "reused"

    def move_on(self, token: str, now: int) -> None:
        self.tokens.append(token)
        self.retired_at.append(now)
        self.current_seen = False
        self.used_at = now

    def see(self, now: int) -> None:
        """The current token was presented; it matters as long as the answer that carried it might have been lost."""
        if self.retired_at and abs(now - self.retired_at[-1]) <= 60:
            self.current_seen = True


@dataclass(frozen=True)
class Access:
    """An access token that was handed out."""

    token: str
    session: Session
    issued_at: int


@dataclass
class Model:
    """Everybody's sessions."""

    passwords: list[str] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    access: list[Access] = field(default_factory=list)
    ended_by_name: set[str] = field(default_factory=set)  # sids that verifiers are told one by one
    cut_at: int = -1  # verifiers refuse whatever was issued until then

    def begin(self, session: Session) -> None:
        self.sessions.append(session)

    def end(self, session: Session) -> None:
        """Log out, or revoke by name."""
        if not session.over:
            self.ended_by_name.add(session.sid)
        session.over = True

    def end_all_of(self, owner: int) -> int:
        """End an account's sessions, and say how many that were."""
        mine = [each for each in self.sessions if each.owner == owner and not each.over]
        for each in mine:
            self.end(each)
        return len(mine)

    def cut(self, now: int) -> None:
        """End everybody's sessions in one step."""
        self.cut_at = max(self.cut_at, now)
        for session in self.sessions:
            session.over = True

    def live_sessions(self, owner: int, now: int) -> list[str]:
        """The sids of an account's sessions, the one that was used last first."""
        mine = [each for each in self.sessions if each.owner == owner and each.lives(now)]
        return [each.sid for each in sorted(mine, key=lambda each: (-each.used_at, each.sid))]

    def judge(self, access: Access, now: int) -> bool | None:
        """Whether an access token is good; None where nobody promises anything.

        That is a token from a future that a clock set back has made: a mass revocation names the second up to which
        tokens are refused, and this one says that it was issued later.
        """
        if now >= access.issued_at + ACCESS_S + LEEWAY_S or access.issued_at > now + LEEWAY_S:
            return False
        if access.session.sid in self.ended_by_name or access.issued_at <= self.cut_at:
            return False
        return None if access.session.over else True
