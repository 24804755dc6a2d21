"""What PostgreSQL is asked otherwise than SQLite: rows are locked as they are read, and round trips are few.

Nothing here runs a statement.
"""

from sqlalchemy import ARRAY, BigInteger, Integer, Select, bindparam, column, func, insert, literal_column, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import make_url

from jotgate.server.store.schema import TEXT, accounts, audit, cuts, families, revocation_head, revocations
from jotgate.server.store.statements import (
    ACCOUNT_BY_ID,
    ACCOUNT_BY_IDENTITY,
    FAMILY_IS_ALIVE,
    FAMILY_WITH_ACCOUNT,
    PRUNE_REVOCATIONS,
    Numbered,
    Statements,
    advance_head,
    numbered,
)


class PostgresStatements(Statements[Numbered]):
    """All statements for asyncpg."""

    def __init__(self) -> None:
        sql = numbered(make_url("postgresql+asyncpg://").get_dialect()())
        super().__init__(sql)
        self.add_account_if_new = sql(postgresql.insert(accounts).on_conflict_do_nothing().returning(accounts.c.id))
        self.account_to_change = sql(ACCOUNT_BY_IDENTITY.with_for_update())
        self.account_to_change_by_id = sql(ACCOUNT_BY_ID.with_for_update())
        self.family_to_rotate = sql(FAMILY_WITH_ACCOUNT.with_for_update(of=families))
        self.family_is_alive = sql(FAMILY_IS_ALIVE.with_for_update(read=True, of=families))
        self.advance_family_at_once = sql(_advance_family())
        # A change of password that is under way is waited for, and one that comes waits: it ends this session then.
        self.add_family_and_prune = sql(_add_family())
        self.add_family_audited = sql(_add_family("at", "event", "actor", "request_id", "detail"))
        self.live_head = sql(_live_head())
        self.set_cut = sql(_set_cut())
        self.append = sql(_append())


def _live_head() -> Select[tuple[str, int, int, str]]:
    """How far the log goes, and whether the server that says so is the primary still."""
    read_only = func.current_setting(literal_column("'transaction_read_only'"))
    return select(revocation_head.c.log_id, revocation_head.c.seq, revocation_head.c.keys_version, read_only)


_LOCK = (bindparam("lock_class", type_=Integer), bindparam("lock_number", type_=Integer))


def _advance_family() -> Select[tuple[bool]]:
    """Take the lock that is shared, and then swap; see the migration that made the function."""
    names = ("generation", "mac_kid", "retired", "confirmed", "seen_at", "idle_ends_at")
    return select(
        func.jotgate_advance_family(
            *_LOCK,
            bindparam("family_id", type_=families.c.id.type),
            bindparam("expected_generation", type_=BigInteger),
            *(bindparam(name, type_=families.c[name].type) for name in names),
        )
    )


def _add_family(*of_audit: str) -> Select[tuple[bool]]:
    """Take the lock that is shared, add a session, and take some dead ones of its account along.

    With the columns of its line in the audit trail that line is added, too.
    """
    names = [column.name for column in families.c if column.name != "born_seq"]
    return select(
        func.jotgate_add_family(
            *_LOCK,
            bindparam("expected_hash", type_=TEXT),
            bindparam("dead_since", type_=BigInteger),
            *(bindparam(name, type_=families.c[name].type) for name in names),
            *(bindparam(f"audit_{name}", type_=audit.c[name].type) for name in of_audit),
        )
    )


def _set_cut() -> postgresql.Insert:
    added = postgresql.insert(cuts)
    return added.on_conflict_do_update(
        index_elements=[cuts.c.kind, cuts.c.id], set_={"seq": added.excluded.seq, "at": added.excluded.at}
    )


def _append() -> Select[tuple[int, None]]:
    """Number the entries, add them, take some dead ones along, and wake the other processes when it is committed."""
    ids = bindparam("ids", type_=ARRAY(TEXT))
    head = advance_head(func.cardinality(ids)).cte("head")
    each = func.unnest(ids).table_valued(column("id", TEXT), with_ordinality="n").render_derived(name="each")
    rows = select(
        head.c.seq - func.cardinality(ids) + each.c.n,
        bindparam("kind", type_=TEXT),
        each.c.id,
        bindparam("at", type_=BigInteger),
        bindparam("until", type_=BigInteger),
    )
    added = insert(revocations).from_select(["seq", "kind", "id", "at", "until"], rows).cte("added")
    pruned = PRUNE_REVOCATIONS.cte("pruned")
    told = func.pg_notify(bindparam("channel", type_=TEXT), literal_column("''"))
    return select(head.c.seq, told).add_cte(added, pruned)
