"""How the schema came to be, step by step, for Alembic. Loaded only when a database is behind."""
