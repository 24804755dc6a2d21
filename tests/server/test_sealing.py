"""The master key: where it lies, who may read it, and that nothing else opens what it sealed."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotgate.core.encoding import encode_segment
from jotgate.core.errors import SettingsError
from jotgate.server import sealing
from jotgate.server.sealing import MasterKey, MasterKeySource
from jotgate.server.secret import Secret

RAW = bytes(range(32))
KEY = MasterKey(RAW)

LOAD = """
import sys
from pathlib import Path
from jotgate.server.sealing import MasterKeySource
print("here", flush=True)
sys.stdin.readline()
MasterKeySource(data_dir=Path(sys.argv[1])).load()
print((Path(sys.argv[1]) / "master.key").read_text().strip())
"""


def opens_the_same(one: MasterKey, other: MasterKey) -> bool:
    sealed = one.seal(b"secret", purpose="access", kid="kid")
    try:
        return other.unseal(sealed, purpose="access", kid="kid") == b"secret"
    except SettingsError:
        return False


@given(st.binary(max_size=300), st.text(), st.text())
def test_what_was_sealed_opens_again(raw: bytes, purpose: str, kid: str) -> None:
    purpose, kid = purpose.encode("utf-8", "ignore").decode(), kid.encode("utf-8", "ignore").decode()
    assert KEY.unseal(KEY.seal(raw, purpose=purpose, kid=kid), purpose=purpose, kid=kid) == raw


def test_the_same_key_is_never_sealed_the_same_way_twice() -> None:
    assert len({KEY.seal(b"secret", purpose="access", kid="kid") for _ in range(100)}) == 100


def test_sealed_keys_do_not_contain_what_they_hide() -> None:
    assert b"a private key" not in KEY.seal(b"a private key", purpose="access", kid="kid")


@pytest.mark.parametrize(
    ("purpose", "kid"), [("refresh", "kid"), ("access", "other"), ("acces", "skid"), ("access\0", "kid"), ("", "")]
)
def test_a_sealed_key_moved_to_another_row_does_not_open(purpose: str, kid: str) -> None:
    sealed = KEY.seal(b"secret", purpose="access", kid="kid")
    with pytest.raises(SettingsError):
        KEY.unseal(sealed, purpose=purpose, kid=kid)


def test_every_change_of_one_byte_and_every_truncation_is_refused() -> None:
    sealed = KEY.seal(b"secret", purpose="access", kid="kid")
    damaged = [sealed[:n] + bytes([sealed[n] ^ 1]) + sealed[n + 1 :] for n in range(len(sealed))]
    damaged += [sealed[:n] for n in range(len(sealed))] + [sealed + b"\0"]
    for raw in damaged:
        with pytest.raises(SettingsError):
            KEY.unseal(raw, purpose="access", kid="kid")


def test_the_wrong_master_key_is_told_in_one_sentence_without_any_secret() -> None:
    sealed = KEY.seal(b"secret", purpose="access", kid="the-kid")
    with pytest.raises(SettingsError) as caught:
        MasterKey(b"\xff" * 32).unseal(sealed, purpose="access", kid="the-kid")
    assert caught.value.code == "settings_refused"
    (fault,) = caught.value.faults
    assert "the-kid" in fault
    assert "master key" in fault
    assert "\n" not in fault


def test_the_file_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        first = MasterKeySource(data_dir=tmp_path / "data").load()
    finally:
        os.umask(umask)
    file = tmp_path / "data" / "master.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in file.parent.iterdir()] == ["master.key"]
    text = file.read_text()
    assert opens_the_same(first, MasterKeySource(data_dir=tmp_path / "data").load())
    assert file.read_text() == text


def test_two_new_folders_get_two_different_keys(tmp_path: Path) -> None:
    assert not opens_the_same(
        MasterKeySource(data_dir=tmp_path / "a").load(), MasterKeySource(data_dir=tmp_path / "b").load()
    )


def test_the_text_of_the_file_is_also_the_value_of_the_variable(tmp_path: Path) -> None:
    from_file = MasterKeySource(data_dir=tmp_path / "data").load()
    text = (tmp_path / "data" / "master.key").read_text()
    assert opens_the_same(from_file, MasterKeySource(data_dir=tmp_path / "elsewhere", text=Secret(text)).load())


def test_the_variable_needs_and_makes_no_file(tmp_path: Path) -> None:
    assert opens_the_same(MasterKeySource(data_dir=tmp_path / "data", text=Secret(encode_segment(RAW))).load(), KEY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o644])
def test_a_file_that_others_may_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    MasterKeySource(data_dir=tmp_path).load()
    (tmp_path / "master.key").chmod(mode)
    with pytest.raises(SettingsError) as caught:
        MasterKeySource(data_dir=tmp_path).load()
    assert "chmod 600" in str(caught.value)


BAD = ["", "x", encode_segment(RAW[:-1]), encode_segment(RAW + b"x"), encode_segment(RAW) + "=", "*" * 43, "ä" * 43]


@pytest.mark.parametrize("text", BAD)
def test_a_malformed_key_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError) as from_variable:
        MasterKeySource(data_dir=tmp_path, text=Secret(text)).load()
    assert "JOTGATE_MASTER_KEY" in str(from_variable.value)
    (tmp_path / "master.key").write_text(text)
    (tmp_path / "master.key").chmod(0o600)
    with pytest.raises(SettingsError) as from_file:
        MasterKeySource(data_dir=tmp_path).load()
    assert "master.key" in str(from_file.value)
    if len(text) > 10:
        assert text not in str(from_variable.value) + str(from_file.value)


def test_a_missing_file_is_an_error_where_keys_wait_for_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is missing: put it back"):
        MasterKeySource(data_dir=tmp_path).load(make=False)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_hold_the_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SettingsError) as caught:
        MasterKeySource(data_dir=tmp_path / "file").load()
    assert "master.key" in str(caught.value)


@pytest.mark.parametrize("raw", [b"", b"x" * 31, b"x" * 33])
def test_a_master_key_has_32_bytes(raw: bytes) -> None:
    with pytest.raises(SettingsError):
        MasterKey(raw)


def test_a_master_key_does_not_show_itself() -> None:
    assert repr(KEY) == "MasterKey(…)"


def test_a_process_that_comes_second_keeps_the_key_of_the_first(tmp_path: Path) -> None:
    MasterKeySource(data_dir=tmp_path).load()
    text = (tmp_path / "master.key").read_text()
    sealing._create(tmp_path / "master.key")
    assert (tmp_path / "master.key").read_text() == text


def test_processes_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", LOAD, str(tmp_path / "data")],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
    texts = {process.communicate("go\n", timeout=60)[0] for process in processes}
    assert all(process.returncode == 0 for process in processes)
    assert len(texts) == 1
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == ["master.key"]
