"""The tables, in SQLAlchemy Core: what the statements are written against and what the migrations must arrive at.

All names begin with `jotgate_`, so that the tables can live in the application's own database. Times are Unix seconds.
Lists of scopes are space-separated (RFC 6749 §3.3); a family's retired generations are JSON.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

# Oldest first. The last one is what this code needs; the names are those of the files in migrations/versions, and
# stand here so that starting on an up-to-date database need not load Alembic.
REVISIONS = ("0001", "0002")
HEAD = REVISIONS[-1]
VERSION_TABLE = "jotgate_schema"

_Sequence = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER is SQLite's own row number

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pk",
        "uq": "%(table_name)s_%(column_0_name)s_uq",
        "ix": "%(table_name)s_%(column_0_name)s_ix",
        "fk": "%(table_name)s_%(column_0_name)s_fk",
        "ck": "%(table_name)s_%(constraint_name)s_ck",
    }
)

accounts = Table(
    "jotgate_accounts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("email", Text, nullable=False),
    Column("email_identity", Text, nullable=False),  # what must be unique: see rules.accounts.email_identity
    Column("password_hash", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("jotgate_accounts_email_identity_uq", "email_identity", unique=True),
    sqlite_with_rowid=False,
)

families = Table(
    "jotgate_families",
    metadata,
    Column("id", LargeBinary, primary_key=True),
    Column("sid", Text, nullable=False),
    Column("account_id", Text, ForeignKey(accounts.c.id), nullable=False),
    Column("client_id", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("mac_kid", Text, nullable=False),
    Column("retired", Text, nullable=False),
    Column("confirmed", Boolean, nullable=False),
    Column("auth_time", BigInteger, nullable=False),
    Column("methods", Text, nullable=False, server_default="pwd"),
    Column("address", Text, nullable=False, server_default=text("''")),
    Column("device", Text, nullable=False, server_default=text("''")),
    Column("created_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Column("idle_ends_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger, nullable=True),
    Column("born_seq", BigInteger, nullable=False, server_default="0"),
    Index("jotgate_families_sid_uq", "sid", unique=True),
    Index("jotgate_families_account_id_ix", "account_id"),
    sqlite_with_rowid=False,
)

keys = Table(
    "jotgate_keys",
    metadata,
    Column("kid", Text, primary_key=True),
    Column("purpose", Text, nullable=False),
    Column("algorithm", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

revocations = Table(
    "jotgate_revocations",
    metadata,
    Column("seq", _Sequence, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),
)

# One row. Sequence numbers come from here and not from the database's own sequences: the row is locked until the
# transaction ends, so that the order of numbers is the order of commits, and a reader's cursor misses nothing.
revocation_head = Table(
    "jotgate_revocation_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("log_id", Text, nullable=False, server_default=text("''")),
    CheckConstraint("id = 1", name="one_row"),
)

# Ends of a client's sessions, or of everybody's: one row ends them all, however many millions, without touching them.
# Sessions whose `born_seq` is before `seq` are over since `at`.
cuts = Table(
    "jotgate_cuts",
    metadata,
    Column("kind", Text, primary_key=True),  # "client" or "all"
    Column("id", Text, primary_key=True),  # the client's id; "" for "all"
    Column("seq", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
