"""When new workers are due because the certificate has changed, at times that the test chooses."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography import x509

from jotgate.cli.renewing import Renewal, TlsFiles
from jotgate.cli.serving import begin_tls
from jotgate.core.errors import SettingsError
from jotgate.server.settings import Settings
from jotgate.server.tls import check_certificate
from tests.cli.test_serve import make_certificate, rewrite_in_the_old_form, turn

NOW = int(time.time())
DAY_S = 86_400


@pytest.fixture
def pair(tmp_path: Path) -> TlsFiles:
    return TlsFiles(*make_certificate(tmp_path))


@pytest.fixture
def other(tmp_path: Path) -> TlsFiles:
    (tmp_path / "other").mkdir()
    return TlsFiles(*make_certificate(tmp_path / "other"))


def watching(pair: TlsFiles) -> Renewal:
    def prepare(now: int) -> TlsFiles:
        check_certificate(pair.cert, pair.key, now)
        return pair

    return Renewal((pair.cert, pair.key), prepare, NOW)


def copy(source: Path, to: Path) -> None:
    to.write_bytes(source.read_bytes())


def taken(renewal: Renewal, now: int = NOW) -> list[TlsFiles]:
    """What two looks, as far apart as a writer needs, bring into use."""
    used: list[TlsFiles] = []
    for _ in range(2):
        if renewal.due(now):
            renewal.take(now, used.append)
    return used


def test_nothing_is_due_while_nothing_changes(pair: TlsFiles) -> None:
    renewal = watching(pair)
    assert taken(renewal) == []
    os.utime(pair.cert)
    copy(pair.key, pair.key)
    assert taken(renewal) == []


def test_a_new_pair_is_taken_once_and_only_when_it_is_at_rest(pair: TlsFiles, other: TlsFiles) -> None:
    renewal = watching(pair)
    copy(other.cert, pair.cert)
    assert not renewal.due(NOW)  # the writer is in the middle of it
    copy(other.key, pair.key)
    assert not renewal.due(NOW)
    assert taken(renewal) == [pair]
    assert taken(renewal) == []


def test_a_change_of_the_chain_alone_is_taken(pair: TlsFiles) -> None:
    renewal = watching(pair)
    pair.cert.write_bytes(pair.cert.read_bytes() + pair.cert.read_bytes())  # a longer chain
    assert taken(renewal) == [pair]


def test_half_a_pair_is_refused_once_and_taken_when_the_other_half_comes(pair: TlsFiles, other: TlsFiles) -> None:
    renewal = watching(pair)
    copy(other.cert, pair.cert)
    with pytest.raises(SettingsError, match="does not belong to the certificate"):
        taken(renewal)
    assert taken(renewal) == []
    copy(other.key, pair.key)
    assert taken(renewal) == [pair]


def test_a_pair_that_goes_away_and_comes_back_as_it_was_changes_nothing(pair: TlsFiles) -> None:
    renewal = watching(pair)
    pair.key.rename(pair.key.with_suffix(".away"))
    with pytest.raises(SettingsError, match=r"the private key cannot be read: .*No such file"):
        taken(renewal)
    assert taken(renewal) == []
    pair.key.with_suffix(".away").rename(pair.key)
    assert taken(renewal) == []
    pair.key.unlink()
    with pytest.raises(SettingsError, match="cannot be read"):  # another time is told again
        taken(renewal)


def test_what_was_refused_is_taken_when_its_mode_is_put_right(pair: TlsFiles, other: TlsFiles) -> None:
    renewal = watching(pair)
    copy(other.cert, pair.cert)
    copy(other.key, pair.key)
    pair.key.chmod(0o644)
    with pytest.raises(SettingsError, match="everybody on this machine can read"):
        taken(renewal)
    pair.key.chmod(0o600)
    assert taken(renewal) == [pair]


def test_a_certificate_for_tomorrow_is_taken_tomorrow(tmp_path: Path, pair: TlsFiles) -> None:
    renewal = watching(pair)
    make_certificate(tmp_path, first_day=1)
    with pytest.raises(SettingsError, match="is not valid before"):
        taken(renewal)
    assert taken(renewal, NOW + 3599) == []
    assert taken(renewal, NOW + 2 * DAY_S) == [pair]


@pytest.mark.parametrize("swap", ["each file's link, as certbot does", "the folder's link, as Kubernetes does"])
def test_a_link_that_is_turned_to_other_files_is_noticed(
    tmp_path: Path, pair: TlsFiles, other: TlsFiles, swap: str
) -> None:
    stamp = pair.cert.stat().st_mtime - 1000
    for path in (pair.cert, pair.key, other.cert, other.key):
        os.utime(path, (stamp, stamp))  # nothing looks younger than before
    live = tmp_path / "live"
    if "Kubernetes" in swap:
        data = tmp_path / "..data"
        turn(data, tmp_path)
        live.mkdir()
        linked = TlsFiles(live / "tls.crt", live / "tls.key")
        linked.cert.symlink_to(data / pair.cert.name)
        linked.key.symlink_to(data / pair.key.name)
    else:
        live.mkdir()
        linked = TlsFiles(live / "cert.pem", live / "key.pem")
        linked.cert.symlink_to(pair.cert)
        linked.key.symlink_to(pair.key)
    renewal = watching(linked)
    assert taken(renewal) == []
    if "Kubernetes" in swap:
        turn(data, other.cert.parent)
    else:
        turn(linked.cert, other.cert)
        turn(linked.key, other.key)
    assert taken(renewal) == [linked]


def test_what_is_served_is_a_copy_of_what_was_checked_from_the_start_on(
    tmp_path: Path, pair: TlsFiles, other: TlsFiles
) -> None:
    rewrite_in_the_old_form(pair.key)
    settings = Settings(issuer="https://auth.shop.example", data_dir=tmp_path / "data")
    settings.master_key_source.load(make=True)
    first = pair.cert.read_bytes()
    with ExitStack() as beside:
        served, renewal = begin_tls(settings, pair, NOW, beside)
        assert served is not None
        copy(other.cert, pair.cert)
        copy(other.key, pair.key)
        rewrite_in_the_old_form(pair.key)
        (used,) = taken(renewal)
        pair.cert.write_text("-----BEGIN CERTIFICATE-----")
        assert served.cert.read_bytes() == first  # until no worker needs it
        assert [used.cert.read_bytes(), used.key.read_bytes()] == [other.cert.read_bytes(), other.key.read_bytes()]
        check_certificate(used.cert, used.key, NOW)
        renewal.settled(used.cert)
        assert [served.cert.exists(), used.cert.exists()] == [False, True]
    assert not used.key.exists()


def test_whatever_error_it_was_what_was_refused_is_not_due_at_once_again(pair: TlsFiles, other: TlsFiles) -> None:
    def prepare(_: int) -> TlsFiles:
        raise RuntimeError

    renewal = Renewal((pair.cert, pair.key), prepare, NOW)
    copy(other.cert, pair.cert)
    with pytest.raises(RuntimeError):
        taken(renewal)
    assert taken(renewal) == []


def test_what_does_not_work_in_use_is_refused_too(pair: TlsFiles, other: TlsFiles) -> None:
    renewal = watching(pair)
    copy(other.cert, pair.cert)
    copy(other.key, pair.key)

    def refuse(_: TlsFiles) -> None:
        raise SettingsError(("changed while it was looked at",))

    assert [renewal.due(NOW), renewal.due(NOW)] == [False, True]
    with pytest.raises(SettingsError, match="changed while"):
        renewal.take(NOW, refuse)
    assert taken(renewal) == []
    assert taken(renewal, NOW + 3600) == [pair]


@pytest.fixture
def local(tmp_path: Path) -> Iterator[tuple[Path, Renewal]]:
    """The folder of a server's own certificate, and what renews it."""
    settings = Settings(issuer="https://localhost:8443", data_dir=tmp_path / "data")
    settings.master_key_source.load(make=True)
    with ExitStack() as beside:
        yield tmp_path / "data" / "tls", begin_tls(settings, None, NOW, beside)[1]


def test_the_local_certificate_is_renewed_while_the_server_runs_on(
    local: tuple[Path, Renewal],
) -> None:
    tls_dir, renewal = local
    before = x509.load_pem_x509_certificate((tls_dir / "cert.pem").read_bytes())
    ends_at = int(before.not_valid_after_utc.timestamp())
    used = [now for now in range(NOW, ends_at, DAY_S) if taken(renewal, now)]
    assert len(used) == 1
    assert 58 * DAY_S <= ends_at - used[0] <= 60 * DAY_S
    after = x509.load_pem_x509_certificate((tls_dir / "cert.pem").read_bytes())
    assert int(after.not_valid_after_utc.timestamp()) > ends_at


def test_a_local_certificate_that_cannot_be_renewed_is_told_once_a_day(
    local: tuple[Path, Renewal],
) -> None:
    tls_dir, renewal = local
    (tls_dir / "ca.pem").write_text("nonsense")
    assert not renewal.due(NOW + DAY_S - 1)
    with pytest.raises(SettingsError, match=r"ca\.pem is damaged"):
        renewal.due(NOW + DAY_S)
    assert not renewal.due(NOW + DAY_S + 1)
    with pytest.raises(SettingsError, match=r"ca\.pem is damaged"):
        renewal.due(NOW + 2 * DAY_S)


def test_new_workers_are_not_begun_without_their_master_key(
    local: tuple[Path, Renewal],
) -> None:
    tls_dir, renewal = local
    master_key = tls_dir.parent / "master.key"
    master_key.rename(master_key.with_suffix(".away"))
    with pytest.raises(SettingsError, match="master"):
        renewal.take(NOW, lambda _: None)


def test_without_tls_nothing_is_ever_due_and_the_master_key_is_looked_at_all_the_same(tmp_path: Path) -> None:
    settings = Settings(issuer="https://localhost:8443", data_dir=tmp_path / "data", http=True)
    (tmp_path / "data").mkdir()
    with ExitStack() as beside:
        tls, renewal = begin_tls(settings, None, NOW, beside)
    assert tls is None
    assert taken(renewal, NOW + DAY_S) == []
    with pytest.raises(SettingsError, match="master"):
        renewal.take(NOW, lambda _: None)
    settings.master_key_source.load(make=True)
    renewal.take(NOW, lambda _: pytest.fail("there is no certificate"))
