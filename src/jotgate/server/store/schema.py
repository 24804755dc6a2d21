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
from sqlalchemy.dialects import postgresql

# Oldest first. The last one is what this code needs; the names are those of the files in migrations/versions, and
# stand here so that starting on an up-to-date database need not load Alembic.
REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009")
HEAD = REVISIONS[-1]
VERSION_TABLE = "jotgate_schema"

# PostgreSQL would compare texts as people of a country sort them, and by rules that change with its operating system:
# an index that decides whether an address is taken must not. So they are compared as SQLite does: byte by byte.
TEXT = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
_SEQUENCE = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER is SQLite's own row number

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
    Column("id", TEXT, primary_key=True),
    Column("email", TEXT, nullable=False),
    Column("email_identity", TEXT, nullable=False),  # what must be unique: see rules.accounts.email_identity
    Column("password_hash", TEXT, nullable=False),
    Column("scopes", TEXT, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("disabled_at", BigInteger, nullable=True),
    Column("credential_version", BigInteger, nullable=False, server_default=text("0")),
    Column("factors", TEXT, nullable=False, server_default=text("''")),  # JSON, of nobody's concern but the owner's
    Column("second_factor", Boolean, nullable=False, server_default=text("false")),  # whether they are asked for
    Index("jotgate_accounts_email_identity_uq", "email_identity", unique=True),
    sqlite_with_rowid=False,
)

families = Table(
    "jotgate_families",
    metadata,
    Column("id", LargeBinary, primary_key=True),
    Column("sid", TEXT, nullable=False),
    Column("account_id", TEXT, ForeignKey(accounts.c.id), nullable=False),
    Column("client_id", TEXT, nullable=False),
    Column("scopes", TEXT, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("mac_kid", TEXT, nullable=False),
    Column("retired", TEXT, nullable=False),
    Column("confirmed", Boolean, nullable=False),
    Column("auth_time", BigInteger, nullable=False),
    Column("methods", TEXT, nullable=False, server_default="pwd"),
    Column("address", TEXT, nullable=False, server_default=text("''")),
    Column("device", TEXT, nullable=False, server_default=text("''")),
    Column("created_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Column("idle_ends_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger, nullable=True),
    Column("born_seq", BigInteger, nullable=False, server_default="0"),
    Index("jotgate_families_sid_uq", "sid", unique=True),
    # Not on anything that a refresh writes: PostgreSQL would write every index anew then.
    Index("jotgate_families_account_id_created_at_ix", "account_id", "created_at"),
    sqlite_with_rowid=False,
)

keys = Table(
    "jotgate_keys",
    metadata,
    Column("kid", TEXT, primary_key=True),
    Column("issuer", TEXT, nullable=False, server_default=text("''")),
    Column("purpose", TEXT, nullable=False),
    Column("algorithm", TEXT, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("thumbprint", TEXT, nullable=False, server_default=text("''")),
    Column("created_at", BigInteger, nullable=False),
    Column("ahead_s", BigInteger, nullable=False, server_default=text("0")),
    Column("activated_at", BigInteger, nullable=True),
    Column("retired_at", BigInteger, nullable=True),
    Column("revoked_at", BigInteger, nullable=True),
    Column("removed_at", BigInteger, nullable=True),
    Index("jotgate_keys_thumbprint_uq", "thumbprint", unique=True),
    sqlite_with_rowid=False,
)

revocations = Table(
    "jotgate_revocations",
    metadata,
    Column("seq", _SEQUENCE, primary_key=True, autoincrement=False),
    Column("kind", TEXT, nullable=False),
    Column("id", TEXT, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),
    Index("jotgate_revocations_until_ix", "until"),
)

# One row. Sequence numbers come from here and not from the database's own sequences: the row is locked until the
# transaction ends, so that the order of numbers is the order of commits, and a reader's cursor misses nothing.
revocation_head = Table(
    "jotgate_revocation_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("log_id", TEXT, nullable=False, server_default=text("''")),
    Column("keys_version", BigInteger, nullable=False, server_default="0"),  # grows with each change of the keys
    CheckConstraint("id = 1", name="one_row"),
)

# Ends of a client's sessions, or of everybody's: one row ends them all, however many millions, without touching them.
# Sessions whose `born_seq` is before `seq` are over since `at`.
cuts = Table(
    "jotgate_cuts",
    metadata,
    Column("kind", TEXT, primary_key=True),  # "client" or "all"
    Column("id", TEXT, primary_key=True),  # the client's id; "" for "all"
    Column("seq", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# Rows are added, and deleted when their time is over; nothing changes one. Ids are never given twice.
audit = Table(
    "jotgate_audit",
    metadata,
    Column("id", _SEQUENCE, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("event", TEXT, nullable=False),
    Column("actor", TEXT, nullable=False),
    Column("account_id", TEXT, nullable=False),  # no foreign key: it stays when the account goes
    Column("sid", TEXT, nullable=False),
    Column("address", TEXT, nullable=False),
    Column("device", TEXT, nullable=False),
    Column("request_id", TEXT, nullable=False),
    Column("detail", TEXT, nullable=False),
    Index("jotgate_audit_at_ix", "at"),
    Index("jotgate_audit_account_id_id_ix", "account_id", "id"),
    # What every start asks for; it costs a login nothing.
    Index(
        "jotgate_audit_settings_ix",
        "id",
        sqlite_where=text("event = 'settings_changed'"),
        postgresql_where=text("event = 'settings_changed'"),
    ),
    sqlite_autoincrement=True,
)

# One-time codes that mails carry. A code that is used is deleted.
codes = Table(
    "jotgate_codes",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("purpose", TEXT, nullable=False),
    Column("account_id", TEXT, nullable=False),  # no foreign key: "" where the account is still to be made
    Column("email", TEXT, nullable=False),
    Column("email_identity", TEXT, nullable=False),
    Column("password_hash", TEXT, nullable=False),
    Column("credential_version", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("jotgate_codes_account_id_ix", "account_id"),
    Index("jotgate_codes_email_identity_ix", "email_identity"),
    Index("jotgate_codes_expires_at_ix", "expires_at"),
    sqlite_with_rowid=False,
)

# Mails that are to be sent, written with what causes them. One that was sent is deleted.
outbox = Table(
    "jotgate_outbox",
    metadata,
    Column("id", TEXT, primary_key=True),
    Column("kind", TEXT, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("claim", TEXT, nullable=False),  # whose it is until `due_at`
    Column("created_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Index("jotgate_outbox_due_at_ix", "due_at"),
    sqlite_with_rowid=False,
)
