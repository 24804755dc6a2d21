"""``jotgate tls``: how each system is told to trust the local authority, and to forget it again."""

import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from msgspec import Struct

from jotgate.cli.text import print_json, printable, utc
from jotgate.core.errors import SettingsError
from jotgate.server.settings import Settings

_KEYCHAIN: Final = "/Library/Keychains/System.keychain"
_OS_RELEASE: Final = Path("/etc/os-release")


class Authority(Struct, frozen=True):
    """A local authority: its file, its common name, its SHA-256 fingerprint, and its end in Unix seconds."""

    file: Path
    name: str
    sha256: str
    ends_at: int

    @property
    def alias(self) -> str:
        """What systems shall file it under, apart from the authorities of other folders."""
        return re.sub("[^a-z0-9]+", "-", self.name.lower()).strip("-")


class Place(Struct, frozen=True):
    """One of the lists of trusted authorities that a machine may have: how to add ours to it, and to remove it."""

    name: str
    add: str
    remove: str
    systems: frozenset[str]  # as `this_system` names them; programs of their own are on several


def load_authority(data_dir: Path) -> Authority:
    """Read the authority of a data folder.

    Raises:
        SettingsError: there is none, or it is damaged.
    """
    file = data_dir.resolve() / "tls" / "ca.pem"
    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
    except FileNotFoundError:
        fault = f"there is no {file}: name the server's folder with --data; its first start without --tls-cert makes it"
        raise SettingsError((fault,)) from None
    except OSError as error:
        raise SettingsError((f"the local CA cannot be read: {file}: {error.strerror}",)) from None
    except (ValueError, x509.InvalidVersion):
        raise SettingsError((f"{file} is damaged",)) from None
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Authority(
        file,
        str(names[0].value) if names else "jotgate local CA",
        certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
        int(certificate.not_valid_after_utc.timestamp()),
    )


def places(ca: Authority, issuer: str) -> list[Place]:
    """Return all lists of trusted authorities that we know of, programs that take one for themselves among them."""
    file, alias, name = shlex.quote(str(ca.file)), ca.alias, shlex.quote(ca.name)
    debian = f"/usr/local/share/ca-certificates/{alias}.crt"
    fedora = f"/etc/pki/ca-trust/source/anchors/{alias}.pem"
    suse = f"/etc/pki/trust/anchors/{alias}.pem"
    nss = "certutil -d sql:$HOME/.pki/nssdb"
    firefox = "Settings, Privacy & Security, View Certificates, Authorities"
    linux = frozenset({"debian", "fedora", "suse", "arch", "linux"})
    everywhere = linux | {"macos", "windows"}
    return [
        Place("curl", f"curl --cacert {file} {issuer}/healthz", "nothing: it holds for one call", everywhere),
        Place("Python", f"Verifier(…, ca_file=…), or export SSL_CERT_FILE={file}", "unset SSL_CERT_FILE", everywhere),
        Place("Node.js", f"export NODE_EXTRA_CA_CERTS={file}", "unset NODE_EXTRA_CA_CERTS", everywhere),
        Place(
            "Debian, Ubuntu",
            f"sudo cp {file} {debian} && sudo update-ca-certificates",
            f"sudo rm {debian} && sudo update-ca-certificates --fresh",
            frozenset({"debian"}),
        ),
        Place(
            "Fedora",
            f"sudo cp {file} {fedora} && sudo update-ca-trust",
            f"sudo rm {fedora} && sudo update-ca-trust",
            frozenset({"fedora"}),
        ),
        Place(
            "openSUSE",
            f"sudo cp {file} {suse} && sudo update-ca-certificates",
            f"sudo rm {suse} && sudo update-ca-certificates",
            frozenset({"suse"}),
        ),
        Place(
            "Arch",
            f"sudo trust anchor --store {file}",
            f"sudo trust anchor --remove {file}",
            frozenset({"arch"}),
        ),
        Place(
            "macOS",
            f"sudo security add-trusted-cert -d -r trustRoot -k {_KEYCHAIN} {file}",
            f"sudo security remove-trusted-cert -d {file} && sudo security delete-certificate -c {name} {_KEYCHAIN}",
            frozenset({"macos"}),
        ),
        Place(
            "Windows",
            f"certutil -user -addstore Root {file}",
            f'certutil -user -delstore Root "{ca.name}"',
            frozenset({"windows"}),
        ),
        Place("Chrome on Linux", f"{nss} -A -t C,, -n {alias} -i {file}", f"{nss} -D -n {alias}", linux),
        Place("Firefox", f"{firefox}, Import", f"{firefox}, {ca.name}, Delete or Distrust", everywhere),
    ]


def this_system(platform: str, os_release: str) -> str:
    """Return what kind of system this is, by Python's name for it and, on Linux, the text of ``/etc/os-release``."""
    if platform == "darwin":
        return "macos"
    if platform in {"win32", "cygwin"}:
        return "windows"
    ids = re.findall(r"""^(?:ID|ID_LIKE)=["']?([^"'\n]*)""", os_release, re.MULTILINE)
    words = " ".join(ids).lower().split()
    kinds = {"debian": "debian", "ubuntu": "debian", "alpine": "debian", "fedora": "fedora", "rhel": "fedora"}
    kinds |= {"suse": "suse", "opensuse": "suse", "arch": "arch"}
    return next((kinds[word] for word in words if word in kinds), "linux")


def show(data: Path | None, *, as_json: bool) -> None:
    """Print which authority a data folder has; None: that of the settings.

    Raises:
        SettingsError: there is none.
    """
    ca = load_authority(_settings(data).data_dir)
    if as_json:
        print_json({"file": str(ca.file), "name": ca.name, "sha256": ca.sha256, "ends_at": ca.ends_at})
    else:
        _say(*_about(ca))


def trust(data: Path | None, *, everything: bool) -> None:
    """Print what to type so that this system trusts a data folder's authority, and so that it does no longer.

    Args:
        data: whose authority; None: that of the settings.
        everything: all systems, this one first.

    Raises:
        SettingsError: there is no authority.
    """
    settings = _settings(data)
    ca = load_authority(settings.data_dir)
    system = this_system(sys.platform, _OS_RELEASE.read_text() if _OS_RELEASE.is_file() else "")
    known = places(ca, settings.issuer)
    here = [place for place in known if system in place.systems]
    # A list of the whole system is what most people look for; programs with lists of their own come behind it.
    here.sort(key=lambda place: len(place.systems))
    elsewhere = [place for place in known if place not in here]
    shown = here + elsewhere if everything or system == "linux" else here
    _say(*_about(ca), "", "To trust it; it can vouch for localhost and nothing else:")
    _say(*(f"  {place.name:<15} {place.add}" for place in shown))
    _say("", "To remove it again:")
    _say(*(f"  {place.name:<15} {place.remove}" for place in shown))
    if len(shown) < len(known):
        _say("", "Other systems: jotgate tls trust --all")


def _settings(data: Path | None) -> Settings:
    return Settings.from_env(os.environ, **({} if data is None else {"data_dir": data}))


def _about(ca: Authority) -> Iterator[str]:
    yield f"local CA  {ca.file}"
    yield f"name      {ca.name}"
    yield f"SHA-256   {ca.sha256}"
    yield f"ends      {utc(ca.ends_at)}"


def _say(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(printable(line) + "\n")
