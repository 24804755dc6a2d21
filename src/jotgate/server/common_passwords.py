"""The common passwords that nobody may choose: those that the package `zxcvbn` brings along."""

import importlib.machinery
import importlib.util
from functools import cache
from typing import Final

from jotgate.server.rules.blocklist import prepare

_PACKAGE: Final = "zxcvbn"
_MODULE: Final = "frequency_lists"


@cache
def load_common_passwords() -> frozenset[str]:
    """Return them as `rules.blocklist` wants them: some 33 000, in 7 MB; the first call takes about 50 ms.

    The module that holds them is read by itself and let go of: the package's own import would keep five further lists
    in memory, and tables of them all.
    """
    package = importlib.util.find_spec(_PACKAGE)
    folders = [] if package is None else package.submodule_search_locations
    found = importlib.machinery.PathFinder.find_spec(_MODULE, folders)
    if found is None or found.loader is None:
        raise ModuleNotFoundError(f"{_PACKAGE} has no {_MODULE}", name=_PACKAGE)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return prepare(module.FREQUENCY_LISTS["passwords"])
