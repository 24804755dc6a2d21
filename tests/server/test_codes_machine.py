"""Any history of one-time codes and addresses: no code works twice, after its end, for another purpose or account."""

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pyotp
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from jotgate.core.encoding import encode_segment
from jotgate.server import Settings, create_app
from jotgate.server.flows.address import confirm_email_change, request_email_change
from jotgate.server.flows.auditing import NOWHERE
from jotgate.server.flows.factors import begin_totp, confirm_totp
from jotgate.server.flows.mailing import LIFE_S, code_hash
from jotgate.server.flows.password import change_password
from jotgate.server.flows.recovery import forgot_password, reset_password
from jotgate.server.flows.signup import confirm_signup, request_signup
from jotgate.server.flows.undoing import undo
from jotgate.server.records import UNDOING, Account, CodePurpose, Family
from jotgate.server.refusals import CodeRefused
from jotgate.server.secret import Secret
from jotgate.server.store import EmailTaken
from tests.server.http.support import Clock

ADDRESSES: Final = tuple(f"{name}@example.com" for name in ("ada", "eve", "bob"))
PURPOSES: Final[tuple[CodePurpose, ...]] = ("signup", "reset", "change_email", *UNDOING)
NO_LIMIT: Final = "1000000/second"


@dataclass
class Owner:
    """An account, as the model knows it."""

    email: str
    password: str | None
    id: str = ""
    app_since: int | None = None


@dataclass
class Known:
    """A code, as the model knows it."""

    text: str
    purpose: CodePurpose
    email: str
    owner: Owner | None
    expires_at: int
    password: str = ""
    created_at: int = 0
    works: bool = True
    number: int = 0


@dataclass
class Model:
    owners: list[Owner] = field(default_factory=list)
    codes: list[Known] = field(default_factory=list)

    def of(self, email: str) -> Owner | None:
        return next((each for each in self.owners if each.email == email), None)

    def add(self, code: Known) -> None:
        code.number = len(self.codes)
        siblings = [
            each
            for each in self.codes
            if each.works
            and each.purpose == code.purpose
            and (each.owner is code.owner if code.owner else each.owner is None and each.email == code.email)
        ]
        self.codes.append(code)
        if code.purpose not in UNDOING:
            for crowded in siblings[:-2]:
                crowded.works = False

    def void(self, owner: Owner, *purposes: CodePurpose) -> None:
        for each in self.codes:
            if each.owner is owner and each.purpose in purposes:
                each.works = False


async def anybody() -> None:
    """Sign-ups have no limit here."""


class Codes(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.clock = Clock()
        self.drawn: list[bytes] = []
        self.app = create_app(
            Settings(
                data_dir=Path(self.folder.name) / "data",
                hash_workers=1,
                argon2="7168/5",
                limit_mails_to=NO_LIMIT,
                limit_sessions=NO_LIMIT,
            ),
            clock=self.clock,
            random=self.draw,
        )
        self.runner = asyncio.Runner()
        self.deps = self.app.start()
        self.model = Model()
        self.passwords = 0

    def teardown(self) -> None:
        self.app.close()
        self.runner.close()
        self.folder.cleanup()

    def draw(self, count: int) -> bytes:
        drawn = secrets.token_bytes(count)
        if count == 32:
            self.drawn.append(drawn)
        return drawn

    def run(self, flow: Coroutine[Any, Any, Any]) -> None:
        """Let a flow run in a second of its own, so that it is known which code is the newer one."""
        self.clock.now += 1
        self.drawn.clear()
        self.runner.run(flow)

    def new_password(self) -> str:
        self.passwords += 1
        return f"{self.passwords} long enough for anybody here"

    def texts(self) -> list[str]:
        return [encode_segment(raw) for raw in self.drawn]

    def new_code(self, purpose: CodePurpose, email: str, owner: Owner | None, *, password: str = "") -> None:
        """Take the code into the model that the flow has just made, if it is anybody's."""
        kept = [(text, self.runner.run(self.deps.store.code_by_hash(code_hash(text)))) for text in self.texts()]
        (text,) = (text for text, row in kept if row is not None)
        expires_at = self.clock.now + LIFE_S[purpose]
        self.model.add(Known(text, purpose, email, owner, expires_at, password, self.clock.now))

    @initialize()
    def begin(self) -> None:
        self.sign_up(ADDRESSES[0])
        self.use(self.model.codes[0], "signup")

    @rule(seconds=st.sampled_from([60, 1_790, 3_590, 86_390, 6 * 86_400]))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule(email=st.sampled_from(ADDRESSES))
    def sign_up(self, email: str) -> None:
        password = self.new_password()
        self.run(request_signup(self.deps, email, Secret(password), self.clock.now + 1, NOWHERE, before_hash=anybody))
        if self.model.of(email) is None:
            self.new_code("signup", email, None, password=password)

    @rule(email=st.sampled_from(ADDRESSES))
    def forget(self, email: str) -> None:
        self.run(forgot_password(self.deps, email, self.clock.now + 1, NOWHERE))
        owner = self.model.of(email)
        if owner is not None:
            self.new_code("reset", email, owner)

    @precondition(lambda self: any(each.password for each in self.model.owners))
    @rule(data=st.data(), email=st.sampled_from(ADDRESSES))
    def ask_for_address(self, data: st.DataObject, email: str) -> None:
        owner = data.draw(st.sampled_from([each for each in self.model.owners if each.password]))
        account = self.account(owner)
        family = self.family(owner)
        current, now = Secret(owner.password or ""), self.clock.now + 1
        self.run(
            request_email_change(self.deps, account, family, new_email=email, current=current, now=now, origin=NOWHERE)
        )
        if self.model.of(email) in (None, owner):
            self.new_code("change_email", email, owner)

    @precondition(lambda self: any(each.password for each in self.model.owners))
    @rule(data=st.data())
    def change_password(self, data: st.DataObject) -> None:
        owner = data.draw(st.sampled_from([each for each in self.model.owners if each.password]))
        account = self.account(owner)
        new = self.new_password()
        current = Secret(owner.password or "")
        family = self.family(owner)
        now = self.clock.now + 1
        self.run(change_password(self.deps, account, family, current=current, new=Secret(new), now=now, origin=NOWHERE))
        self.model.void(owner, "reset", "change_email")
        self.new_code("undo_password", owner.email, owner, password=owner.password or "")
        owner.password = new

    @precondition(lambda self: any(each.password for each in self.model.owners))
    @rule(data=st.data())
    def add_app(self, data: st.DataObject) -> None:
        owner = data.draw(st.sampled_from([each for each in self.model.owners if each.password]))
        account, family = self.account(owner), self.family(owner)
        current, now = Secret(owner.password or ""), self.clock.now + 1
        begun = self.runner.run(
            begin_totp(self.deps, account, family, current=current, now=now, origin=NOWHERE),
        )
        code = Secret(pyotp.TOTP(begun.secret).at(now))
        self.run(confirm_totp(self.deps, self.account(owner), family, code=code, now=now, origin=NOWHERE))
        owner.app_since = now
        self.model.void(owner, "reset", "change_email")
        self.new_code("undo_factor", owner.email, owner, password=owner.password or "")
        self.check_accounts()

    @precondition(lambda self: self.model.codes)
    @rule(data=st.data(), purpose=st.sampled_from([None, None, None, *PURPOSES]))
    def use_any(self, data: st.DataObject, purpose: CodePurpose | None) -> None:
        code = data.draw(st.sampled_from(self.model.codes[-12:]))
        self.use(code, purpose or code.purpose)

    def use(self, code: Known, purpose: CodePurpose) -> None:
        now, new = self.clock.now + 1, self.new_password()
        flows: dict[CodePurpose, Callable[[], Coroutine[Any, Any, Any]]] = {
            "signup": lambda: confirm_signup(self.deps, code.text, Secret(code.password or new), now, NOWHERE),
            "reset": lambda: reset_password(self.deps, code.text, Secret(new), now, NOWHERE),
            "change_email": lambda: confirm_email_change(self.deps, code.text, now, NOWHERE),
            **{each: partial(self.undo, each, code, now) for each in UNDOING},
        }
        good = code.works and code.purpose == purpose and now < code.expires_at
        holder = self.model.of(code.email)
        if not good:
            with pytest.raises(CodeRefused):
                self.run(flows[purpose]())
        elif purpose != "reset" and holder is not None and holder is not code.owner:
            with pytest.raises(EmailTaken):
                self.run(flows[purpose]())
        else:
            self.run(flows[purpose]())
            code.works = False
            self.happened(code, new)
        self.check_accounts()

    def happened(self, code: Known, new: str) -> None:
        owner = code.owner
        if code.purpose == "signup":
            owner = Owner(code.email, code.password)
            self.model.owners.append(owner)
            account = self.runner.run(self.deps.store.account_by_email(code.email))
            assert account is not None
            owner.id = account.id
            for each in self.model.codes:
                if each.purpose == "signup" and each.email == code.email:
                    each.works = False
            return
        assert owner is not None
        if code.purpose == "reset":
            owner.password = new
            self.model.void(owner, "reset", "change_email")
        elif code.purpose == "change_email":
            before, owner.email = owner.email, code.email
            self.model.void(owner, "reset", "change_email")
            self.new_code("undo_email", before, owner, password=owner.password or "")
        else:
            owner.email, owner.password = code.email, None
            self.model.void(owner, "reset", "change_email")
            for each in self.model.codes[code.number + 1 :]:
                if each.owner is owner and each.purpose in UNDOING:
                    each.works = False
            if owner.app_since is not None and owner.app_since >= code.created_at:
                owner.app_since = None  # each flow has a second of its own
            self.new_code("reset", code.email, owner)

    def check_accounts(self) -> None:
        accounts = self.runner.run(self.deps.store.list_accounts(limit=100))
        assert {(each.id, each.email) for each in accounts} == {(each.id, each.email) for each in self.model.owners}
        hashes = {each.id: each.password_hash for each in accounts}
        apps = {each.id: each.factors.totp and each.factors.totp.created_at for each in accounts}
        assert apps == {each.id: each.app_since for each in self.model.owners}
        for owner in self.model.owners:
            if owner.password is None:
                assert hashes[owner.id] == "!"
            else:
                assert self.runner.run(self.deps.passwords.verify(hashes[owner.id], owner.password))

    async def undo(self, purpose: CodePurpose, code: Known, now: int) -> None:
        """Give the password of then; where there was none, it is a change of address, which may need none."""
        password = Secret(code.password) if code.password else None
        await undo(self.deps, purpose, code.text, now, NOWHERE, password=password)

    def account(self, owner: Owner) -> Account:
        account = self.runner.run(self.deps.store.account_by_id(owner.id))
        assert account is not None
        return account

    def family(self, owner: Owner) -> Family:
        """A session that counts guesses for itself."""
        now = self.clock.now
        family = Family(
            id=secrets.token_bytes(16),
            sid=encode_segment(secrets.token_bytes(16)),
            account_id=owner.id,
            client_id="web",
            scopes=(),
            mac_kid="",
            methods=("pwd", "mfa"),
            auth_time=now,
            created_at=now,
            seen_at=now,
            idle_ends_at=now + 60,
            ends_at=now + 60,
        )
        account = self.account(owner)
        assert self.runner.run(self.deps.store.add_family(family, expected_hash=account.password_hash))
        return family


def play(histories: int, steps: int) -> None:
    run_state_machine_as_test(
        Codes,
        settings=settings(
            max_examples=histories,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_any_history_of_codes_is_as_the_model_tells_it() -> None:
    play(histories=5, steps=30)


@pytest.mark.soak
def test_many_histories_of_codes_are_as_the_model_tells_them() -> None:
    play(histories=400, steps=60)
