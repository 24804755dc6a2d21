"""The local authority and its certificate as OpenSSL sees them, and the checks on certificates that people bring."""

import contextlib
import datetime as dt
import ipaddress
import shlex
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from jotgate.core.errors import SettingsError
from jotgate.server.tls import Snapshots, check_certificate, ensure_local_certificate
from tests.conftest import Need

Signing = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

NOW = 1_795_000_000
DAY_S = 86_400


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def verify(openssl: str, ca: Path, cert: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [openssl, "verify", "-x509_strict", "-purpose", "sslserver", "-attime", str(NOW), "-CAfile", str(ca)]
    return subprocess.run([*command, *options, str(cert)], capture_output=True, text=True, check=False)


def signed_by_local_ca(tls_dir: Path, names: Sequence[x509.GeneralName], to: Path) -> Path:
    """What a thief of the authority's key could make."""
    ca_key = serialization.load_pem_private_key((tls_dir / "ca-key.pem").read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(load(tls_dir / "ca.pem").subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(dt.datetime.fromtimestamp(NOW - DAY_S, dt.UTC))
        .not_valid_after(dt.datetime.fromtimestamp(NOW + DAY_S, dt.UTC))
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    to.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return to


def brought(folder: Path, *, days: tuple[int, int] = (-1, 30), key: Signing | None = None) -> tuple[Path, Path]:
    """A self-signed certificate and its PKCS#8 key, valid from and until so many days from NOW."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    edwards = isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "auth.shop.example")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(dt.datetime.fromtimestamp(NOW + days[0] * DAY_S, dt.UTC))
        .not_valid_after(dt.datetime.fromtimestamp(NOW + days[1] * DAY_S, dt.UTC))
        .sign(key, None if edwards else hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").touch(0o600)
    (folder / "key.pem").write_bytes(pem(key, serialization.PrivateFormat.PKCS8))
    return folder / "cert.pem", folder / "key.pem"


def pem(key: Signing, form: serialization.PrivateFormat, password: bytes | None = None) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    return key.private_bytes(serialization.Encoding.PEM, form, encryption)


@pytest.mark.parametrize(
    "reached_as", [("-verify_hostname", "localhost"), ("-verify_ip", "127.0.0.1"), ("-verify_ip", "::1")]
)
def test_openssl_accepts_the_certificate_for_each_local_name(
    tmp_path: Path, need: Need, reached_as: tuple[str, str]
) -> None:
    local = ensure_local_certificate(tmp_path / "tls", NOW)
    assert verify(need("openssl"), local.ca, local.cert, *reached_as).returncode == 0


@pytest.mark.parametrize(
    "name",
    [
        x509.DNSName("shop.example"),
        x509.DNSName("localhost.shop.example"),
        x509.IPAddress(ipaddress.ip_address("10.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
    ],
    ids=lambda name: str(name.value),
)
def test_the_local_authority_cannot_vouch_for_anything_but_loopback(
    tmp_path: Path, need: Need, name: x509.GeneralName
) -> None:
    local = ensure_local_certificate(tmp_path / "tls", NOW)
    inside = signed_by_local_ca(tmp_path / "tls", [x509.DNSName("localhost")], tmp_path / "inside.pem")
    outside = signed_by_local_ca(tmp_path / "tls", [name], tmp_path / "outside.pem")

    assert verify(need("openssl"), local.ca, inside).returncode == 0  # so it is the name that is refused
    refused = verify(need("openssl"), local.ca, outside)
    assert refused.returncode != 0
    assert "permitted subtree violation" in refused.stderr


def test_a_certificate_of_the_local_certificate_is_refused(tmp_path: Path, need: Need) -> None:
    local = ensure_local_certificate(tmp_path / "tls", NOW)
    leaf = load(local.cert)
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not usage.key_cert_sign
    assert verify(need("openssl"), local.cert, local.cert, "-check_ss_sig").returncode != 0


def test_the_local_authority_makes_no_further_authorities(tmp_path: Path) -> None:
    ca = load(ensure_local_certificate(tmp_path / "tls", NOW).ca)
    basic = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value) == (True, x509.BasicConstraints(ca=True, path_length=0))
    assert ca.extensions.get_extension_for_class(x509.NameConstraints).critical


def test_keys_and_their_folder_are_for_their_owner_alone(tmp_path: Path) -> None:
    local = ensure_local_certificate(tmp_path / "data" / "tls", NOW)
    assert mode(tmp_path / "data") == mode(tmp_path / "data" / "tls") == 0o700
    assert mode(local.key) == mode(tmp_path / "data" / "tls" / "ca-key.pem") == 0o600
    assert sorted(path.name for path in local.cert.parent.iterdir()) == ["ca-key.pem", "ca.pem", "cert.pem", "key.pem"]


def test_the_keys_are_pkcs8(tmp_path: Path) -> None:
    local = ensure_local_certificate(tmp_path, NOW)
    check_certificate(local.cert, local.key, NOW)


def test_a_later_start_changes_nothing(tmp_path: Path) -> None:
    before = contents(tmp_path, NOW)
    assert contents(tmp_path, NOW + 300 * DAY_S) == before


def contents(folder: Path, now: int) -> dict[str, bytes]:
    ensure_local_certificate(folder, now)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_certificate_is_renewed_before_its_end_and_the_authority_stays(tmp_path: Path) -> None:
    before = contents(tmp_path, NOW)
    ends_at = int(load(tmp_path / "cert.pem").not_valid_after_utc.timestamp())
    after = contents(tmp_path, ends_at - 59 * DAY_S)
    assert after["ca.pem"] == before["ca.pem"]
    assert load(tmp_path / "cert.pem").not_valid_after_utc.timestamp() > ends_at
    check_certificate(tmp_path / "cert.pem", tmp_path / "key.pem", ends_at + DAY_S)


def test_the_certificate_never_outlives_the_authority(tmp_path: Path) -> None:
    ensure_local_certificate(tmp_path, NOW)
    ca_ends = load(tmp_path / "ca.pem").not_valid_after_utc
    ensure_local_certificate(tmp_path, int(ca_ends.timestamp()) - 100 * DAY_S)
    assert load(tmp_path / "cert.pem").not_valid_after_utc == ca_ends


def test_an_authority_near_its_end_is_replaced_with_all_that_hangs_on_it(tmp_path: Path) -> None:
    before = contents(tmp_path, NOW)
    ca_ends_at = int(load(tmp_path / "ca.pem").not_valid_after_utc.timestamp())
    after = contents(tmp_path, ca_ends_at - 10 * DAY_S)
    assert all(before[name] != after[name] for name in before)
    load(tmp_path / "cert.pem").verify_directly_issued_by(load(tmp_path / "ca.pem"))


def test_an_authority_whose_key_was_put_away_stays_until_a_renewal_needs_it(tmp_path: Path) -> None:
    before = contents(tmp_path, NOW)
    (tmp_path / "ca-key.pem").unlink()
    assert contents(tmp_path, NOW + DAY_S) == {name: before[name] for name in before if name != "ca-key.pem"}
    assert contents(tmp_path, NOW + 390 * DAY_S)["ca.pem"] != before["ca.pem"]


@pytest.mark.parametrize("name", ["cert.pem", "key.pem"])
@pytest.mark.parametrize("damage", [None, b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_damaged_certificate_is_made_anew_under_the_same_authority(
    tmp_path: Path, name: str, damage: bytes | None
) -> None:
    before = contents(tmp_path, NOW)
    if damage is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(damage)
    after = contents(tmp_path, NOW)
    assert after["ca.pem"] == before["ca.pem"]
    check_certificate(tmp_path / "cert.pem", tmp_path / "key.pem", NOW)
    load(tmp_path / "cert.pem").verify_directly_issued_by(load(tmp_path / "ca.pem"))


def test_another_keys_certificate_is_made_anew(tmp_path: Path) -> None:
    ensure_local_certificate(tmp_path / "a", NOW)
    ensure_local_certificate(tmp_path / "b", NOW)
    (tmp_path / "b" / "key.pem").replace(tmp_path / "a" / "key.pem")  # as a crash between two writes leaves it
    local = ensure_local_certificate(tmp_path / "a", NOW)
    check_certificate(local.cert, local.key, NOW)


def test_a_damaged_authority_is_refused_not_silently_replaced(tmp_path: Path) -> None:
    ensure_local_certificate(tmp_path, NOW)
    (tmp_path / "ca.pem").write_text("nonsense")
    with pytest.raises(SettingsError, match=r"ca\.pem is damaged; remove the folder"):
        ensure_local_certificate(tmp_path, NOW)


def test_an_authority_with_another_key_is_refused(tmp_path: Path) -> None:
    ensure_local_certificate(tmp_path / "a", NOW)
    ensure_local_certificate(tmp_path / "b", NOW)
    (tmp_path / "b" / "ca-key.pem").replace(tmp_path / "a" / "ca-key.pem")
    (tmp_path / "a" / "cert.pem").unlink()
    with pytest.raises(SettingsError, match=r"is not the key of ca\.pem"):
        ensure_local_certificate(tmp_path / "a", NOW)


@pytest.mark.parametrize("name", ["key.pem", "ca-key.pem"])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, name: str) -> None:
    ensure_local_certificate(tmp_path, NOW)
    (tmp_path / name).chmod(0o640)
    with pytest.raises(SettingsError, match=rf"others can read the private key .*{name} \(mode 0640\)"):
        ensure_local_certificate(tmp_path, NOW)


def test_a_folder_that_cannot_be_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file, not a folder")
    with pytest.raises(SettingsError, match=r"the folder for the local certificate cannot be used: .*data"):
        ensure_local_certificate(tmp_path / "data" / "tls", NOW)


def test_a_certificate_of_another_authority_is_made_anew(tmp_path: Path) -> None:
    ensure_local_certificate(tmp_path / "a", NOW)
    ensure_local_certificate(tmp_path / "b", NOW)
    for name in ("cert.pem", "key.pem"):
        (tmp_path / "b" / name).replace(tmp_path / "a" / name)
    local = ensure_local_certificate(tmp_path / "a", NOW)
    load(local.cert).verify_directly_issued_by(load(local.ca))


def test_servers_that_start_at_once_agree_on_one_certificate(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from jotgate.server.tls import ensure_local_certificate; print(flush=True); "
        f"sys.stdin.readline(); print(ensure_local_certificate(pathlib.Path(sys.argv[1]), {NOW}).ca.read_text())"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "tls")]
    with contextlib.ExitStack() as stack:
        starters = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            for _ in range(5)
        ]
        for starter in starters:
            assert starter.stdout is not None
            starter.stdout.readline()  # it has loaded everything and waits for the word
        for starter in starters:
            assert starter.stdin is not None
            starter.stdin.write(b"go\n")
            starter.stdin.flush()
        authorities = {starter.communicate()[0].strip() for starter in starters}
    assert len(authorities) == 1  # whoever came second saw the first one's
    local = ensure_local_certificate(tmp_path / "tls", NOW)
    check_certificate(local.cert, local.key, NOW)
    load(local.cert).verify_directly_issued_by(load(local.ca))
    assert mode(local.key) == 0o600


def test_a_brought_certificate_with_a_pkcs8_key_is_taken(tmp_path: Path) -> None:
    check_certificate(*brought(tmp_path), NOW)


@pytest.mark.parametrize(
    ("days", "sentence"), [((-30, -1), "expired on 20"), ((1, 30), "is not valid before 20")], ids=["expired", "early"]
)
def test_a_certificate_outside_its_time_is_refused(tmp_path: Path, days: tuple[int, int], sentence: str) -> None:
    cert, key = brought(tmp_path, days=days)
    with pytest.raises(SettingsError, match=sentence):
        check_certificate(cert, key, NOW)


def test_all_faults_of_a_brought_pair_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "key.pem").touch(0o604)
    with pytest.raises(SettingsError) as refused:
        check_certificate(tmp_path / "cert.pem", tmp_path / "key.pem", NOW)
    unreadable, open_to_all, empty = refused.value.faults
    assert "cert.pem: No such file or directory" in unreadable
    assert "key.pem or change it (mode 0604)" in open_to_all
    assert "key.pem holds no private key in PEM form" in empty


def test_a_file_without_a_certificate_is_refused(tmp_path: Path) -> None:
    _, key = brought(tmp_path)
    with pytest.raises(SettingsError, match="holds no certificate in PEM form"):
        check_certificate(key, key, NOW)


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    cert, _ = brought(tmp_path / "a")
    _, key = brought(tmp_path / "b")
    with pytest.raises(SettingsError, match="does not belong to the certificate"):
        check_certificate(cert, key, NOW)


OLD = serialization.PrivateFormat.TraditionalOpenSSL


@pytest.mark.parametrize("kind", ["EC", "RSA"])
def test_a_key_in_an_old_form_is_served_as_pkcs8_and_stays_as_it_is(tmp_path: Path, kind: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1()) if kind == "EC" else rsa.generate_private_key(65537, 2048)
    cert, file = brought(tmp_path, key=key)
    old = pem(key, OLD)
    file.write_bytes(old)
    checked = check_certificate(cert, file, NOW)
    assert checked.key == pem(key, serialization.PrivateFormat.PKCS8)
    assert checked.chain == cert.read_bytes()
    assert file.read_bytes() == old


def explicit_key(openssl: str, file: Path) -> None:
    """A key of P-256 as PKCS#8 whose curve is spelled out and not named: rustls reads none of these."""
    arguments = ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-param_enc", "explicit"]
    made = subprocess.run([openssl, *arguments], check=True, capture_output=True)
    convert = [openssl, "pkcs8", "-topk8", "-nocrypt", "-out", str(file)]
    subprocess.run(convert, input=made.stdout, check=True, capture_output=True)
    file.chmod(0o600)


def test_a_key_that_spells_its_curve_out_is_served_with_the_curve_s_name(tmp_path: Path, need: Need) -> None:
    explicit_key(need("openssl"), tmp_path / "explicit.pem")
    spelled_out = (tmp_path / "explicit.pem").read_bytes()
    key = serialization.load_pem_private_key(spelled_out, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    named = ec.derive_private_key(key.private_numbers().private_value, ec.SECP256R1())
    cert, _ = brought(tmp_path, key=named)
    checked = check_certificate(cert, tmp_path / "explicit.pem", NOW)
    assert checked.key == pem(named, serialization.PrivateFormat.PKCS8)
    assert len(checked.key) < len(spelled_out)


def test_the_key_that_openssl_writes_with_its_parameters_is_read(tmp_path: Path, need: Need) -> None:
    file = tmp_path / "with-parameters.pem"
    command = [need("openssl"), "ecparam", "-name", "prime256v1", "-genkey", "-out", str(file)]
    subprocess.run(command, check=True, capture_output=True)
    assert file.read_bytes().startswith(b"-----BEGIN EC PARAMETERS-----")
    file.chmod(0o600)
    key = serialization.load_pem_private_key(file.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    cert, _ = brought(tmp_path, key=key)
    assert check_certificate(cert, file, NOW).key == pem(key, serialization.PrivateFormat.PKCS8)


def test_a_damaged_key_is_told_in_a_sentence(tmp_path: Path) -> None:
    cert, file = brought(tmp_path)
    file.write_text("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n")
    with pytest.raises(SettingsError, match="is damaged"):
        check_certificate(cert, file, NOW)


# Snapshots


def test_a_snapshot_is_what_was_checked_whatever_becomes_of_the_files(tmp_path: Path) -> None:
    cert, key = brought(tmp_path / "live")
    checked = check_certificate(cert, key, NOW)
    whole = cert.read_bytes(), key.read_bytes()
    cert.write_text("-----BEGIN CERTIFICATE-----\nMIIB")
    key.unlink()
    with Snapshots(tmp_path / "data" / "tls") as snapshots:
        served = snapshots.add(checked)
        assert tuple(path.read_bytes() for path in served) == whole
        assert mode(served[1]) == 0o600
        folders = served[1].parents[:4]
        assert [mode(folder) for folder in folders] == [0o700] * 4
        assert folders[3] == (tmp_path / "data").resolve()
    assert list((tmp_path / "data" / "tls").iterdir()) == []


def test_of_several_snapshots_one_is_kept_in_the_end(tmp_path: Path) -> None:
    checked = check_certificate(*brought(tmp_path / "live"), NOW)
    with Snapshots(tmp_path / "tls") as snapshots:
        first, second, third = (snapshots.add(checked)[0] for _ in range(3))
        assert first.exists()  # a worker may be about to read it
        snapshots.keep_only(second)
        assert [first.parent.exists(), second.exists(), third.parent.exists()] == [False, True, False]
        assert snapshots.add(checked)[0].exists()


def test_a_start_removes_what_a_killed_server_left_and_nothing_of_one_that_runs(tmp_path: Path) -> None:
    checked = check_certificate(*brought(tmp_path / "live"), NOW)
    program = (
        "import os, pathlib, sys; from jotgate.server.tls import CheckedCertificate, Snapshots\n"
        "with Snapshots(pathlib.Path(sys.argv[1])) as snapshots:\n"
        "    snapshots.add(CheckedCertificate(*(part.encode() for part in sys.argv[2:])))\n"
        "    os._exit(0)"
    )
    arguments = [str(tmp_path / "tls"), checked.chain.decode(), checked.key.decode()]
    with Snapshots(tmp_path / "tls") as running:
        served, _ = running.add(checked)
        subprocess.run([sys.executable, "-c", program, *arguments], check=True)
        assert len(list((tmp_path / "tls").glob("serving-*/1/key.pem"))) == 2
        with Snapshots(tmp_path / "tls"):
            assert list((tmp_path / "tls").glob("serving-*/1/key.pem")) == [served.with_name("key.pem")]


def test_a_folder_for_snapshots_that_cannot_be_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file, not a folder")
    with pytest.raises(SettingsError, match=r"the folder for served certificates cannot be used: .*data"):
        Snapshots(tmp_path / "data" / "tls").__enter__()


def test_what_openssl_refuses_is_told_in_a_sentence_and_not_kept(tmp_path: Path) -> None:
    cert, key = brought(tmp_path)
    checked = check_certificate(cert, key, NOW)
    with Snapshots(tmp_path / "tls") as snapshots:
        with pytest.raises(SettingsError, match="OpenSSL refuses the certificate or its key: "):
            snapshots.add(checked._replace(chain=b""))
        assert list((tmp_path / "tls").glob("serving-*/*")) == []


@pytest.mark.parametrize("curve", ["sect163k1", "sect283k1", "secp112r1", "SM2"])
def test_a_curve_that_is_not_known_here_is_told_in_a_sentence(tmp_path: Path, need: Need, curve: str) -> None:
    cert, _ = brought(tmp_path)
    file = tmp_path / "odd.pem"
    command = [need("openssl"), "genpkey", "-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{curve}"]
    subprocess.run([*command, "-out", str(file)], check=True, capture_output=True)
    file.chmod(0o600)
    with pytest.raises(SettingsError, match=r"odd\.pem is of a kind that is not served"):
        check_certificate(cert, file, NOW)


def test_a_certificate_for_a_curve_that_is_not_known_here_is_told_in_a_sentence(tmp_path: Path, need: Need) -> None:
    _, key = brought(tmp_path)
    make = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:sect163k1", "-noenc", "-subj", "/CN=a"]
    files = ["-keyout", str(tmp_path / "odd.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run([need("openssl"), *make, *files], check=True, capture_output=True)
    with pytest.raises(SettingsError, match=r"cert\.pem is for a key of a kind that is not served"):
        check_certificate(tmp_path / "cert.pem", key, int(time.time()))


def test_a_certificate_of_a_version_that_there_is_not_is_told_in_a_sentence(tmp_path: Path) -> None:
    _, key = brought(tmp_path)
    whole = load(tmp_path / "cert.pem").public_bytes(serialization.Encoding.DER)
    third, sixth = b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05"  # RFC 5280 section 4.1: version [0]
    assert whole.count(third) == 1
    damaged = ssl.DER_cert_to_PEM_cert(whole.replace(third, sixth))
    (tmp_path / "cert.pem").write_text(damaged)
    with pytest.raises(SettingsError, match="or a damaged one"):
        check_certificate(tmp_path / "cert.pem", key, NOW)


@pytest.mark.parametrize(
    ("days", "sentence"), [((-30, -1), "expired on 20"), ((1, 30), "is not valid before 20")], ids=["expired", "early"]
)
def test_an_intermediate_outside_its_time_is_refused(tmp_path: Path, days: tuple[int, int], sentence: str) -> None:
    cert, key = brought(tmp_path)
    intermediate, _ = brought(tmp_path / "intermediate", days=days)
    cert.write_bytes(cert.read_bytes() + intermediate.read_bytes())
    with pytest.raises(SettingsError, match=rf"number 2 \(CN=auth\.shop\.example\), {sentence}"):
        check_certificate(cert, key, NOW)


@pytest.mark.parametrize("others", [0o604, 0o602, 0o644, 0o666])
def test_a_brought_key_that_everybody_can_read_or_change_is_refused_with_what_to_do(
    tmp_path: Path, others: int
) -> None:
    cert, key = brought(tmp_path)
    key.chmod(others)
    with pytest.raises(SettingsError, match=rf"everybody .* {key} .*\(mode 0{others:o}\): chmod 640 {key} "):
        check_certificate(cert, key, NOW)


@pytest.mark.parametrize("allowed", [0o600, 0o400, 0o640, 0o440])
def test_a_brought_key_may_be_read_by_its_owner_and_a_group(tmp_path: Path, allowed: int) -> None:
    cert, key = brought(tmp_path)
    key.chmod(allowed)
    check_certificate(cert, key, NOW)


def test_the_mode_that_counts_is_that_of_the_file_behind_a_link(tmp_path: Path) -> None:
    cert, key = brought(tmp_path)
    link = tmp_path / "live.pem"
    link.symlink_to(key)  # a link's own mode is 0777
    check_certificate(cert, link, NOW)
    key.chmod(0o644)
    with pytest.raises(SettingsError, match="everybody on this machine can read"):
        check_certificate(cert, link, NOW)


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP521R1()),
        ec.generate_private_key(ec.SECP256K1()),
        rsa.generate_private_key(65537, 1024),  # noqa: S505 - what must be refused
        ed448.Ed448PrivateKey.generate(),
    ],
    ids=["P-521", "secp256k1", "RSA-1024", "Ed448"],
)
def test_a_kind_of_key_that_would_end_a_worker_is_refused_before(tmp_path: Path, key: Signing) -> None:
    cert, file = brought(tmp_path, key=key)
    with pytest.raises(SettingsError, match="of a kind that is not served, which are RSA of 2048"):
        check_certificate(cert, file, NOW)


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()], ids=["P-384", "Ed25519"]
)
def test_the_other_kinds_of_keys_are_taken(tmp_path: Path, key: Signing) -> None:
    check_certificate(*brought(tmp_path, key=key), NOW)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        ("genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -out {0}/key.pem", "is for RSA with PSS alone"),
        ("genpkey -algorithm RSA -out {0}/key.pem", "is of X.509 version 1"),
    ],
    ids=["PSS", "version 1"],
)
def test_a_certificate_that_would_end_a_worker_is_refused_before(
    tmp_path: Path, need: Need, make: str, sentence: str
) -> None:
    folder, now = shlex.quote(str(tmp_path)), int(time.time())
    for command in (
        make,
        "req -new -key {0}/key.pem -subj /CN=auth.shop.example -out {0}/csr.pem",
        "x509 -req -in {0}/csr.pem -signkey {0}/key.pem -days 9 -out {0}/cert.pem",
    ):
        arguments = shlex.split(command.format(folder))
        subprocess.run([need("openssl"), *arguments], check=True, capture_output=True)
    with pytest.raises(SettingsError, match=sentence):
        check_certificate(tmp_path / "cert.pem", tmp_path / "key.pem", now)


@pytest.mark.parametrize("form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL])
def test_an_encrypted_key_is_refused_with_what_to_do(tmp_path: Path, form: serialization.PrivateFormat) -> None:
    cert, key = brought(tmp_path)
    key.write_bytes(pem(ec.generate_private_key(ec.SECP256R1()), form, b"secret"))
    with pytest.raises(SettingsError, match=r"is encrypted, .*: openssl pkcs8 -topk8 -nocrypt"):
        check_certificate(cert, key, NOW)
