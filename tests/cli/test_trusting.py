"""`jotgate tls`: what it prints about the local authority, and commands that do what they say."""

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from jotgate.cli.trusting import load_authority, places, this_system
from jotgate.server.tls import ensure_local_certificate
from tests.cli.conftest import Jotgate
from tests.conftest import Need

NOW = int(time.time())
DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n'


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "a folder with spaces"
    ensure_local_certificate(folder / "tls", NOW)
    return folder


def test_show_tells_the_fingerprint_that_openssl_tells(jotgate: Jotgate, data_dir: Path, need: Need) -> None:
    ca = data_dir / "tls" / "ca.pem"
    asked = [need("openssl"), "x509", "-in", str(ca), "-noout", "-fingerprint", "-sha256", "-enddate"]
    told = subprocess.run([*asked, "-dateopt", "iso_8601"], capture_output=True, text=True, check=True).stdout
    fingerprint, ends = (line.partition("=")[2] for line in told.splitlines())
    shown = jotgate("tls", "show", "--data", str(data_dir))
    assert (shown.status, shown.err) == (0, "")
    assert re.search(rf"^local CA +{re.escape(str(ca))}$", shown.out, re.MULTILINE)
    assert re.search(rf"^SHA-256 +{fingerprint}$", shown.out, re.MULTILINE)
    assert re.search(rf"^ends +{ends.rstrip('Z')} UTC$", shown.out, re.MULTILINE)
    as_json = json.loads(jotgate("tls", "show", "--json", "--data", str(data_dir)).out)
    assert (as_json["file"], as_json["sha256"]) == (str(ca), fingerprint)
    assert as_json["name"] in shown.out


def test_trust_prints_this_system_s_commands_and_how_to_take_them_back(
    jotgate: Jotgate, data_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "os-release").write_text(DEBIAN)
    monkeypatch.setattr("jotgate.cli.trusting._OS_RELEASE", tmp_path / "os-release")
    shown = jotgate("tls", "trust", "--data", str(data_dir))
    assert shown.status == 0
    add, _, remove = shown.out.partition("To remove it again:")
    ca = load_authority(data_dir)
    file = f"/usr/local/share/ca-certificates/{ca.alias}.crt"
    assert re.search(rf"vouch for localhost.*\n  Debian, Ubuntu  sudo cp '{ca.file}' {file} && sudo update-ca-", add)
    assert re.search(rf"^\n  Debian, Ubuntu  sudo rm {file} && sudo update-ca-certificates --fresh\n", remove)
    assert f"SHA-256   {ca.sha256}" in add
    for name in ("Chrome on Linux", "Firefox", "curl"):
        assert f"\n  {name} " in add
        assert f"\n  {name} " in remove
    assert "macOS" not in shown.out
    assert "Other systems: jotgate tls trust --all" in shown.out


@pytest.mark.parametrize("os_release", [DEBIAN, "ID=slackware\n"])
def test_all_prints_every_system_and_this_one_first(
    jotgate: Jotgate, data_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, os_release: str
) -> None:
    (tmp_path / "os-release").write_text(os_release)
    monkeypatch.setattr("jotgate.cli.trusting._OS_RELEASE", tmp_path / "os-release")
    options = ["--all"] if os_release == DEBIAN else []  # of a system that is not known, everything is told
    shown = jotgate("tls", "trust", *options, "--data", str(data_dir)).out
    names = [line[2:17].strip() for line in shown.splitlines() if line.startswith("  ")]
    half = len(names) // 2
    assert names[:half] == names[half:]
    assert set(names[:half]) == {place.name for place in places(load_authority(data_dir), "https://localhost")}
    if os_release == DEBIAN:
        assert names[0] == "Debian, Ubuntu"
    assert "--all" not in shown


@pytest.mark.parametrize(
    ("platform", "os_release", "system"),
    [
        ("linux", DEBIAN, "debian"),
        ("linux", "ID=ubuntu\nID_LIKE=debian\n", "debian"),
        ("linux", 'ID="linuxmint"\nID_LIKE="ubuntu debian"\n', "debian"),
        ("linux", "ID=fedora\nVERSION_ID=43\n", "fedora"),
        ("linux", 'ID="rocky"\nID_LIKE="rhel centos fedora"\n', "fedora"),
        ("linux", 'ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "suse"),
        ("linux", "ID=manjaro\nID_LIKE=arch\n", "arch"),
        ("linux", "ID=nixos\n", "linux"),
        ("linux", "", "linux"),
        ("darwin", "", "macos"),
        ("win32", "", "windows"),
    ],
)
def test_systems_are_told_apart(platform: str, os_release: str, system: str) -> None:
    assert this_system(platform, os_release) == system


def test_authorities_of_two_folders_do_not_take_each_others_place(data_dir: Path, tmp_path: Path) -> None:
    ensure_local_certificate(tmp_path / "other" / "tls", NOW)
    ours, other = load_authority(data_dir), load_authority(tmp_path / "other")
    assert re.fullmatch(r"jotgate-local-ca-[0-9a-f]{8}", ours.alias)
    assert ours.alias != other.alias


def test_every_command_names_the_file_so_that_a_shell_takes_it_as_one(data_dir: Path, need: Need) -> None:
    for place in places(load_authority(data_dir), "https://localhost:8443"):
        if place.name in {"Firefox", "Python"}:
            continue
        for command in (place.add, place.remove):
            script = f"sudo() {{ :; }}; certutil() {{ :; }}; curl() {{ :; }}; {command}"
            if command.startswith("nothing"):
                continue
            subprocess.run([need("sh"), "-eu", "-c", script], check=True, capture_output=True)
        assert f"'{data_dir / 'tls' / 'ca.pem'}'" in place.add


def test_the_commands_for_chrome_s_list_add_it_and_take_it_out(data_dir: Path, tmp_path: Path, need: Need) -> None:
    certutil, sh = need("certutil"), need("sh")
    (tmp_path / ".pki" / "nssdb").mkdir(parents=True)
    database = f"sql:{tmp_path}/.pki/nssdb"
    subprocess.run([certutil, "-d", database, "-N", "--empty-password"], check=True)
    ca = load_authority(data_dir)
    (chrome,) = (place for place in places(ca, "https://localhost") if place.name == "Chrome on Linux")
    for command, there in ((chrome.add, True), (chrome.remove, False)):
        subprocess.run([sh, "-c", command], check=True, env=os.environ | {"HOME": str(tmp_path)})
        listed = subprocess.run([certutil, "-d", database, "-L"], check=True, capture_output=True, text=True).stdout
        assert (ca.alias in listed) == there


@pytest.mark.parametrize("command", ["show", "trust"])
def test_without_an_authority_one_sentence_says_what_to_do(jotgate: Jotgate, tmp_path: Path, command: str) -> None:
    refused = jotgate("tls", command, "--data", str(tmp_path / "none"))
    assert (refused.status, refused.out) == (2, "")
    assert re.fullmatch(
        r"error: there is no .*/none/tls/ca\.pem: name the server's folder with --data; .*\n", refused.err
    )
    (tmp_path / "none" / "tls").mkdir(parents=True)
    (tmp_path / "none" / "tls" / "ca.pem").write_text("nonsense")
    refused = jotgate("tls", command, "--data", str(tmp_path / "none"))
    assert (refused.status, refused.out) == (2, "")
    assert re.fullmatch(r"error: .*ca\.pem is damaged\n", refused.err)
