"""fastapi-users as its documentation sets it up, for `bench.sessions`: the JWT strategy and the database strategy.

It runs in the peers' own environment, under Granian, and reads what it is to do from the variable BENCH_SERVER. Both
strategies stand in one app: `/jwt/login` and `/jwt/me`, `/db/login` and `/db/me`. Accounts are made as the app starts.
"""

import json
import os
import secrets
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from fastapi import Depends, FastAPI
from fastapi_users import BaseUserManager, FastAPIUsers, UUIDIDMixin
from fastapi_users.authentication import AuthenticationBackend, BearerTransport, JWTStrategy
from fastapi_users.authentication.strategy.db import DatabaseStrategy
from fastapi_users.db import SQLAlchemyBaseUserTableUUID, SQLAlchemyUserDatabase
from fastapi_users_db_sqlalchemy.access_token import SQLAlchemyAccessTokenDatabase, SQLAlchemyBaseAccessTokenTableUUID
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

ORDERS = json.loads(os.environ["BENCH_SERVER"])
LIFE_S = 3600
SECRET = secrets.token_hex(32)

engine = create_async_engine(ORDERS["database"], pool_size=ORDERS["pool"], max_overflow=0)
new_session = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    """The tables."""


class User(SQLAlchemyBaseUserTableUUID, Base):
    """An account."""


class AccessToken(SQLAlchemyBaseAccessTokenTableUUID, Base):
    """A session of the database strategy."""


class StoredParameters:
    """Argon2id by argon2-cffi, as in jotgate: at the cost that the hash itself names, and never hashed anew."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(**ORDERS["argon2"])

    def verify_and_update(self, plain_password: str, hashed_password: str) -> tuple[bool, None]:
        """Check a password."""
        try:
            return self._hasher.verify(hashed_password, plain_password), None
        except VerificationError:
            return False, None

    def hash(self, password: str) -> str:
        """Hash a password."""
        return self._hasher.hash(password)

    def generate(self) -> str:
        """Make a password."""
        return secrets.token_urlsafe()


class UserManager(UUIDIDMixin, BaseUserManager[User, uuid.UUID]):
    """Accounts, by id."""

    reset_password_token_secret = SECRET
    verification_token_secret = SECRET


async def get_session() -> AsyncIterator[AsyncSession]:
    """Give each request a session of the ORM."""
    async with new_session() as session:
        yield session


async def get_user_db(session: AsyncSession = Depends(get_session)) -> AsyncIterator[Any]:
    """Give the accounts."""
    yield SQLAlchemyUserDatabase(session, User)


async def get_token_db(session: AsyncSession = Depends(get_session)) -> AsyncIterator[Any]:
    """Give the sessions."""
    yield SQLAlchemyAccessTokenDatabase(session, AccessToken)


_passwords = StoredParameters()


async def get_user_manager(user_db: Any = Depends(get_user_db)) -> AsyncIterator[UserManager]:  # noqa: ANN401
    """Give the manager."""
    yield UserManager(user_db, _passwords)


def get_jwt_strategy() -> JWTStrategy[User, uuid.UUID]:
    """Tokens that a signature alone vouches for."""
    return JWTStrategy(secret=SECRET, lifetime_seconds=LIFE_S)


def get_database_strategy(tokens: Any = Depends(get_token_db)) -> DatabaseStrategy[User, uuid.UUID, Any]:  # noqa: ANN401
    """Tokens that are rows."""
    return DatabaseStrategy(tokens, lifetime_seconds=LIFE_S)


jwt_backend = AuthenticationBackend("jwt", BearerTransport("jwt/login"), get_jwt_strategy)
database_backend = AuthenticationBackend("db", BearerTransport("db/login"), get_database_strategy)
by_jwt = FastAPIUsers[User, uuid.UUID](get_user_manager, [jwt_backend])
by_database = FastAPIUsers[User, uuid.UUID](get_user_manager, [database_backend])


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Make the tables and the accounts."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with new_session() as session:
        session.add_all(
            User(
                email=f"{kind}{number}@example.com",
                hashed_password=hashed,
                is_active=True,
                is_superuser=False,
                is_verified=True,
            )
            for kind, hashed in ORDERS["hashes"].items()
            for number in range(ORDERS["accounts"])
        )
        await session.commit()
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)
app.include_router(by_jwt.get_auth_router(jwt_backend), prefix="/jwt")
app.include_router(by_database.get_auth_router(database_backend), prefix="/db")


@app.get("/jwt/me")
async def me_by_jwt(user: User = Depends(by_jwt.current_user(active=True))) -> dict[str, str]:
    """Say whose token it is."""
    return {"sub": user.email}


@app.get("/db/me")
async def me_by_database(user: User = Depends(by_database.current_user(active=True))) -> dict[str, str]:
    """Say whose token it is."""
    return {"sub": user.email}


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """Say that it is up."""
    return {"status": "ok"}


if engine.dialect.name == "sqlite":

    @event.listens_for(engine.sync_engine, "connect")
    def _as_durable_as_the_others(connection: Any, _: object) -> None:  # noqa: ANN401 # the driver's own
        for pragma in ORDERS["pragmas"]:
            connection.execute(pragma)
