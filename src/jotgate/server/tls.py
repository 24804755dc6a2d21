"""Certificates: a local authority and certificate for development, and what is done with those that an operator brings.

It reads and writes certificate files and knows no server, no setting and no request. Time is an argument.
"""

import datetime as dt
import fcntl
import ipaddress
import os
import re
import shlex
import shutil
import ssl
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, PublicKeyAlgorithmOID

from jotgate.core.errors import SettingsError

_DAY_S: Final = 86_400
_CA_LIFE_S: Final = 3650 * _DAY_S
# Apple's systems refuse server certificates that live longer than 825 days, publicly trusted ones 398.
_LEAF_LIFE_S: Final = 397 * _DAY_S
# So long before its end a certificate is made anew, so that a server may run on for weeks after its start.
_RENEW_BEFORE_S: Final = 60 * _DAY_S
# A client whose clock is a little behind must not find the new certificate "not yet valid".
_BACKDATED_S: Final = 300
_LOCAL_NAMES: Final = (
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    x509.IPAddress(ipaddress.ip_address("::1")),
)
# RFC 5280 section 4.2.1.10: whoever steals the local authority's key can impersonate this machine's loopback only.
_PERMITTED: Final = (
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.ip_network("127.0.0.0/8")),
    x509.IPAddress(ipaddress.ip_network("::1/128")),
)
_PLAIN_KEY: Final = re.compile(rb"-----BEGIN (RSA |EC )?PRIVATE KEY-----")
# What rustls serves with: a worker with any other would end as soon as it begins.
_CURVES: Final = ("secp256r1", "secp384r1")
_RSA_BITS: Final = range(2048, 4097)
_SERVED_KINDS: Final = "RSA of 2048 to 4096 bits, P-256, P-384 and Ed25519"


class LocalCertificate(NamedTuple):
    """Where the local certificate, its private key and the authority to trust lie."""

    cert: Path
    key: Path
    ca: Path


def ensure_local_certificate(tls_dir: Path, now: int) -> LocalCertificate:
    """Return a certificate for localhost that is good for at least two months, making what is missing.

    The folder gets ``ca.pem`` (the certificate of an authority that may vouch for localhost and loopback addresses
    only), ``ca-key.pem``, ``cert.pem`` and ``key.pem``; private keys have mode 0600. A server certificate that is
    broken or near its end is replaced; the authority, which people have told their systems to trust, is replaced
    only when it is missing or near its own end.

    Raises:
        SettingsError: when the folder cannot be used, the authority's files are damaged, or others can read a key.
    """
    paths = LocalCertificate(tls_dir / "cert.pem", tls_dir / "key.pem", tls_dir / "ca.pem")
    ca_key_path = tls_dir / "ca-key.pem"
    try:
        _make_folder(tls_dir)
        with _alone_in(tls_dir):
            for path in (paths.key, ca_key_path):
                _check_private(path)
            ca = _load_authority(paths.ca, now)
            if ca is not None and _leaf_is_good(paths, ca, now):
                return paths
            ca_key = _load_authority_key(ca_key_path, ca) if ca is not None else None
            if ca is None or ca_key is None:
                ca, ca_key = _new_authority(now)
                # The key first: a certificate without its key could not be mended later.
                _write(ca_key_path, _pem_of_key(ca_key), private=True)
                _write(paths.ca, ca.public_bytes(serialization.Encoding.PEM), private=False)
            leaf, leaf_key = _new_leaf(ca, ca_key, now)
            _write(paths.key, _pem_of_key(leaf_key), private=True)
            _write(paths.cert, leaf.public_bytes(serialization.Encoding.PEM), private=False)
    except OSError as error:
        raise SettingsError((f"the folder for the local certificate cannot be used: {_reason(error)}",)) from None
    return paths


class CheckedCertificate(NamedTuple):
    """What was read and found good, written anew in the plainest form: PEM of the chain, and of the key as PKCS#8."""

    chain: bytes
    key: bytes


def check_certificate(cert: Path, key: Path, now: int) -> CheckedCertificate:
    """Read a certificate and its key, once, and refuse what the server could not serve, or should not.

    What is returned is what was looked at, whatever the files hold by then. It is not as the files have it: a key of
    P-256 that spells the curve's parameters out, for one, is read here and by no worker.

    Raises:
        SettingsError: for files that cannot be read, a key that is encrypted or that everybody on the machine can
            read, kinds of certificates and keys that the server does not speak, a key that is not the certificate's,
            and a chain with a certificate outside its time; all faults at once.
    """
    faults: list[str] = []
    chain, private = _read_chain(cert, now, faults), _read_key(key, faults)
    if chain and private is not None and not faults and chain[0].public_key() != private.public_key():
        faults.append(f"the private key {key} does not belong to the certificate {cert}")
    if faults or private is None:
        raise SettingsError(faults)
    pem = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain)
    return CheckedCertificate(pem, _pem_of_key(private))


class Snapshots:
    """Copies of what was checked, from which one server serves: nobody rewrites them while its workers read them.

    They lie below the TLS folder in a folder of this server alone, which goes when the server does; one that was
    killed leaves it to the next start, which finds that nobody holds its lock any more. Leave it by its context.
    """

    def __init__(self, tls_dir: Path) -> None:
        self._tls_dir = tls_dir
        self._made = 0

    def __enter__(self) -> Self:
        """Make the folder.

        Raises:
            SettingsError: it cannot be made.
        """
        try:
            _make_folder(self._tls_dir)
            with _alone_in(self._tls_dir):
                for left in self._tls_dir.glob("serving-*"):
                    _remove_unless_held(left)
                self._folder = Path(tempfile.mkdtemp(prefix="serving-", dir=self._tls_dir.resolve()))
                self._handle = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
                fcntl.flock(self._handle, fcntl.LOCK_EX)  # for the workers, too, which inherit it
        except OSError as error:
            raise SettingsError((f"the folder for served certificates cannot be used: {_reason(error)}",)) from None
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._handle)

    def add(self, checked: CheckedCertificate) -> tuple[Path, Path]:
        """Return new files of the chain and of the key, which has mode 0600.

        Raises:
            SettingsError: they cannot be written, or OpenSSL refuses them (a chain signed with SHA-1, say).
        """
        self._made += 1
        folder = self._folder / str(self._made)
        cert, key = folder / "cert.pem", folder / "key.pem"
        try:
            folder.mkdir(mode=0o700, parents=True)
            _write(key, checked.key, private=True)
            _write(cert, checked.chain, private=False)
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
        except ssl.SSLError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise SettingsError((f"OpenSSL refuses the certificate or its key: {error.reason}",)) from None
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise SettingsError((f"the folder for served certificates cannot be used: {_reason(error)}",)) from None
        return cert, key

    def keep_only(self, cert: Path) -> None:
        """Remove all copies but that one."""
        for folder in self._folder.glob("*"):
            if folder != cert.parent:
                shutil.rmtree(folder, ignore_errors=True)


def _remove_unless_held(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


def _make_folder(tls_dir: Path) -> None:
    for folder in (tls_dir.parent, tls_dir):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _reason(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}"


def _read_chain(path: Path, now: int, faults: list[str]) -> list[x509.Certificate]:
    try:
        chain = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        faults.append(f"the certificate cannot be read: {_reason(error)}")
        return []
    except (ValueError, x509.InvalidVersion):
        faults.append(f"{path} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----), or a damaged one")
        return []
    for index, each in enumerate(chain):
        what = f"the certificate {path}"
        if index:
            what = f"the chain in {path}, whose certificate number {index + 1} ({each.subject.rfc4514_string()}),"
        begins, ends = each.not_valid_before_utc, each.not_valid_after_utc
        if now > ends.timestamp():
            faults.append(f"{what} expired on {ends:%Y-%m-%d %H:%M} UTC")
        if now < begins.timestamp():
            faults.append(f"{what} is not valid before {begins:%Y-%m-%d %H:%M} UTC")
    if chain[0].version is not x509.Version.v3:
        faults.append(f"the certificate {path} is of X.509 version 1, which has no subjectAltName and is not served")
    if chain[0].public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:
        faults.append(f"the certificate {path} is for RSA with PSS alone, which is not served: use {_SERVED_KINDS}")
    else:
        try:
            chain[0].public_key()
        except (ValueError, UnsupportedAlgorithm):
            faults.append(f"the certificate {path} is for a key of a kind that is not served: use {_SERVED_KINDS}")
    return chain


def _read_key(path: Path, faults: list[str]) -> PrivateKeyTypes | None:
    try:
        with path.open("rb") as file:
            mode, pem = stat.S_IMODE(os.fstat(file.fileno()).st_mode), file.read()
    except OSError as error:
        faults.append(f"the private key cannot be read: {_reason(error)}")
        return None
    if mode & 0o007:
        # A group may read it: that is how Debian's ssl-cert and Kubernetes' fsGroup hand keys to a service.
        faults.append(
            f"everybody on this machine can read the private key {path} or change it (mode {mode:04o}): chmod 640 "
            f"{shlex.quote(str(path))} (in a Kubernetes secret's volume, defaultMode: 0440)"
        )
    if b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in pem or b"Proc-Type: 4,ENCRYPTED" in pem:
        plain = path.with_name(f"{path.stem}-pkcs8.pem")
        decrypt = f"openssl pkcs8 -topk8 -nocrypt -in {shlex.quote(str(path))} -out {shlex.quote(str(plain))}"
        faults.append(
            f"the private key {path} is encrypted, and the server cannot ask for its password; decrypt it: {decrypt}"
        )
        return None
    if _PLAIN_KEY.search(pem) is None:
        faults.append(f"{path} holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)")
        return None
    unserved = f"the private key {path} is of a kind that is not served, which are {_SERVED_KINDS}"
    try:
        key = serialization.load_pem_private_key(pem, None)
    except UnsupportedAlgorithm:  # a curve that is not known here, say
        faults.append(unserved)
        return None
    except (ValueError, TypeError):
        faults.append(f"the private key {path} is damaged")
        return None
    if not _is_served(key):
        faults.append(unserved)
    return key


def _is_served(key: PrivateKeyTypes) -> bool:
    match key:
        case rsa.RSAPrivateKey():
            return key.key_size in _RSA_BITS
        case ec.EllipticCurvePrivateKey():
            return key.curve.name in _CURVES
        case _:
            return isinstance(key, ed25519.Ed25519PrivateKey)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Two servers that start at once on one folder must not mix their files."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _check_private(path: Path) -> None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return
    if mode & 0o077:
        fault = (
            f"others can read the private key {path} (mode {mode:04o}); remove the folder {path.parent} to get "
            f"new keys, or, if nobody else could have read it, chmod 600 {path}"
        )
        raise SettingsError((fault,))


def _load_authority(path: Path, now: int) -> x509.Certificate | None:
    try:
        ca = x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, x509.InvalidVersion):
        raise SettingsError((f"{path} is damaged; remove the folder {path.parent} to get a new one",)) from None
    return ca if ca.not_valid_after_utc.timestamp() - now > _RENEW_BEFORE_S else None


def _load_authority_key(path: Path, ca: x509.Certificate) -> ec.EllipticCurvePrivateKey | None:
    """Return the authority's key; None where it was removed, as careful people do after the first start."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != ca.public_key():
        raise SettingsError(
            (f"{path} is not the key of ca.pem beside it; remove the folder {path.parent} to get new ones",)
        )
    return key


def _leaf_is_good(paths: LocalCertificate, ca: x509.Certificate, now: int) -> bool:
    try:
        leaf = x509.load_pem_x509_certificate(paths.cert.read_bytes())
        key = serialization.load_pem_private_key(paths.key.read_bytes(), None)
        leaf.verify_directly_issued_by(ca)
        same_key = leaf.public_key() == key.public_key()
    except (FileNotFoundError, ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion):
        return False
    return (
        same_key
        and leaf.not_valid_before_utc.timestamp() <= now
        and leaf.not_valid_after_utc.timestamp() - now > _RENEW_BEFORE_S
    )


def _new_authority(now: int) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    own_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    # The suffix tells several folders' authorities apart in a system's list of trusted ones.
    name = _name(f"jotgate local CA {own_id.digest.hex()[:8]}")
    builder = (
        _begun(name, name, key.public_key(), now, now + _CA_LIFE_S)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.NameConstraints(permitted_subtrees=_PERMITTED, excluded_subtrees=None), critical=True)
        .add_extension(own_id, critical=False)
    )
    return builder.sign(key, hashes.SHA256()), key


def _new_leaf(
    ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey, now: int
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    ends_at = min(now + _LEAF_LIFE_S, int(ca.not_valid_after_utc.timestamp()))
    builder = (
        _begun(_name("jotgate on localhost"), ca.subject, key.public_key(), now, ends_at)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_LOCAL_NAMES), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    return builder.sign(ca_key, hashes.SHA256()), key


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: int, ends_at: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime.fromtimestamp(now - _BACKDATED_S, dt.UTC))
        .not_valid_after(dt.datetime.fromtimestamp(ends_at, dt.UTC))
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem_of_key(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, pem: bytes, *, private: bool) -> None:
    """Write a whole file or none: a crash leaves the old one, and nobody ever sees a private key half open."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644)
    with os.fdopen(handle, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
