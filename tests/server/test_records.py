"""The rows of the server: what they must not show."""

from jotgate.server.records import Account, Family, SealedKey


def test_no_record_shows_a_secret_or_a_person_when_it_is_printed() -> None:
    records = (
        Account(id="id", email="ada@example.com", password_hash="$argon2id$hash", scopes=(), created_at=1),
        Family(
            id=b"the family's id!",
            sid="sid",
            account_id="id",
            client_id="web",
            scopes=(),
            mac_kid="kid",
            auth_time=1,
            created_at=1,
            seen_at=1,
            idle_ends_at=1,
            ends_at=1,
        ),
        SealedKey(
            kid="kid",
            issuer="https://a.example",
            purpose="access",
            algorithm="ES256",
            sealed=b"ciphertext",
            thumbprint="print",
            created_at=1,
        ),
    )
    for shown in (f"{records}", str(records[0]), f"{records[1]!r}"):
        for secret in ("ada@", "argon2id", "the family's id!", "ciphertext"):
            assert secret not in shown
