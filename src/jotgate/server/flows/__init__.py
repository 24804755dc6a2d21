"""What the server does, one function a use case: decisions come from rules, changes go to the store.

Flows know accounts, sessions and tokens. They know no HTTP: no header, cookie, status or route.
"""
