"""What tests of stores share by name."""

from typing import Final

PASSWORD_HASH: Final = "$argon2id$…"  # of the accounts that the fixture `new_account` makes
