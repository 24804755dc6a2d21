"""The authorization server: accounts, sessions and tokens behind an ASGI app, run alone or mounted in another app.

Nothing outside this package and the command line may import it: `import jotgate` must stay light.
"""
