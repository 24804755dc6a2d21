"""The libraries of `bench.tokens` that run on Node, in a child process which times them itself; it measures nothing.

The child inherits the cores of this process. It works only while it is asked something, and this process waits then:
so the two never compete.
"""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.tokens_fixture import AUDIENCE, ISSUER, KID, LEEWAY_S, REQUIRED, TYP, Claims, Keys, make_claims, untimed
from bench.tokens_sides import bad_tokens

_PROGRAM = Path(__file__).with_name("peers.mjs")
_DEMANDS = {
    "issuer": ISSUER,
    "audience": AUDIENCE,
    "required": REQUIRED,
    "typ": TYP,
    "leewayS": LEEWAY_S,
    "kid": KID,
}


class NodePeers:
    """The child process; a context manager that ends it."""

    def __init__(self, modules: Path) -> None:
        node = shutil.which("node")
        if node is None:
            raise FileNotFoundError("node is not installed")
        self._child = subprocess.Popen(
            (node, str(_PROGRAM), str(modules)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.versions: Mapping[str, str] = self._ask(do="versions")

    @property
    def libraries(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(name for name in self.versions if name != "node")

    def offer(self, keys: Keys) -> tuple[str, ...]:
        """Hand over a key; returns the libraries that can use it. Raises RuntimeError if one refuses a good token."""
        answer = self._ask(do="key", alg=keys.algorithm, jwk=dict(keys.jwk), public=keys.public_jwk, demands=_DEMANDS)
        for library in answer["offered"]:
            token = keys.token(make_claims(), alg=self.header_alg(library, keys.algorithm))
            self.verify_us(library, keys.algorithm, [token], 1)
        return tuple(answer["offered"])

    @staticmethod
    def header_alg(library: str, algorithm: str) -> str:
        """What the library's header calls the algorithm."""
        return "EdDSA" if (library, algorithm) == ("fast-jwt", "Ed25519") else algorithm

    def verify_us(self, library: str, algorithm: str, tokens: Sequence[str], together: int) -> list[float]:
        """Verify these tokens; microseconds as of `bench.tokens.time_calls`. Raises RuntimeError if one is refused."""
        answer = self._ask(
            do="verify",
            alg=algorithm,
            library=library,
            tokens=tokens,
            untimed=untimed(len(tokens)),
            together=together,
        )
        if "refused" in answer:
            raise RuntimeError(f"{library} refused a good {algorithm} token: {answer['refused']}")
        return [float(took) for took in answer["us"]]

    def sign_us(self, library: str, algorithm: str, claims: Sequence[Claims], together: int) -> list[float]:
        """Sign tokens of these claims; microseconds as of `bench.tokens.time_calls`."""
        answer = self._ask(
            do="sign",
            alg=algorithm,
            library=library,
            claims=claims,
            untimed=untimed(len(claims)),
            together=together,
        )
        return [float(took) for took in answer["us"]]

    def unchecked(self, library: str, keys: Keys) -> tuple[str, ...]:
        """Return in which ways a token can be wrong without this library refusing it."""
        tokens = bad_tokens(keys, self.header_alg(library, keys.algorithm))
        return tuple(what for what, token in tokens.items() if self._accepts(library, keys.algorithm, token))

    def close(self) -> None:
        """End the process."""
        self._child.communicate()  # its input ends, and so does it

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accepts(self, library: str, algorithm: str, token: str) -> bool:
        answer = self._ask(do="verify", alg=algorithm, library=library, tokens=[token], untimed=0, together=1)
        return "refused" not in answer

    def _ask(self, **order: object) -> dict[str, Any]:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps(order) + "\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"the Node process ended with status {self._child.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer
