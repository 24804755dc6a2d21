"""Where the master key comes from, and that changing it loses nothing, wherever a crash cuts the change off."""

import os
import shlex
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotgate.core.encoding import encode_segment
from jotgate.core.errors import SettingsError
from jotgate.server import sealing
from jotgate.server.records import SealedKey
from jotgate.server.sealing import MasterKey, MasterKeySource, rewrap
from jotgate.server.secret import Secret

ONE, OTHER = b"1" * 32, b"2" * 32
SECRETS = {"a": b"first private half", "b": b"second private half"}


def row(kid: str, sealed: bytes) -> SealedKey:
    return SealedKey(
        kid=kid, issuer="", purpose="access", algorithm="ES256", sealed=sealed, thumbprint=kid, created_at=1
    )


def sealed_rows(master: MasterKey) -> list[SealedKey]:
    return [row(kid, master.seal(raw, purpose="access", kid=kid)) for kid, raw in SECRETS.items()]


def opened(rows: list[SealedKey], master: MasterKey) -> dict[str, bytes]:
    return {each.kid: master.unseal(each.sealed, purpose=each.purpose, kid=each.kid) for each in rows}


def write_key(path: Path, raw: bytes) -> Path:
    path.write_text(encode_segment(raw) + "\n")
    path.chmod(0o600)
    return path


def command(program: str, *arguments: str, within_s: float = 30.0) -> MasterKeySource:
    text = shlex.join([sys.executable, "-c", program, *arguments])
    return MasterKeySource(data_dir=Path("unused"), command=Secret(text), command_within_s=within_s)


def fault_of(call: Callable[[], object]) -> str:
    with pytest.raises(SettingsError) as caught:
        call()
    (fault,) = caught.value.faults
    return fault


# Sources


def test_a_named_file_is_read_and_never_made(tmp_path: Path) -> None:
    source = MasterKeySource(data_dir=tmp_path / "data", file=tmp_path / "named")
    assert "named is missing" in fault_of(source.load)
    assert list(tmp_path.iterdir()) == []
    write_key(tmp_path / "named", ONE)
    assert opened(sealed_rows(MasterKey(ONE)), source.load()) == SECRETS
    assert not (tmp_path / "data").exists()


def test_a_named_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    write_key(tmp_path / "named", ONE).chmod(0o640)
    assert "chmod 600" in fault_of(MasterKeySource(data_dir=tmp_path, file=tmp_path / "named").load)


def test_a_command_prints_the_key_and_gets_no_input() -> None:
    program = "import sys; assert sys.stdin.read() == ''; print(sys.argv[1])"
    master = command(program, encode_segment(ONE)).load()
    assert opened(sealed_rows(MasterKey(ONE)), master) == SECRETS


def test_a_command_runs_without_a_shell(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    source = command("import sys; print(sys.argv[1])", encode_segment(ONE), f"; touch {mark}", f"$(touch {mark})")
    source.load()
    assert not mark.exists()


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("import sys; print('c4nary'); sys.exit(3)", "ended with status 3"),
        ("import os; print('c4nary', flush=True); os.kill(os.getpid(), 9)", "ended with status -9"),
        ("print('c4nary')", "must hold 32 bytes"),
        ("pass", "must hold 32 bytes"),
        ("print('c4nary' * 1000)", "more than 1024 bytes"),
        ("while True: print('c4nary' * 1000)", "more than 1024 bytes"),
        ("import sys; sys.stderr.write('c4nary'); sys.exit(1)", "ended with status 1"),
    ],
)
def test_a_command_that_fails_is_told_without_arguments_and_output(
    program: str, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    fault = fault_of(command(program, "c4nary-argument").load)
    assert told in fault
    assert "JOTGATE_MASTER_KEY_COMMAND" in fault
    assert "c4nary" not in fault
    assert capfd.readouterr() == ("", "")


def test_a_command_that_is_not_there_is_told_by_its_name() -> None:
    source = MasterKeySource(data_dir=Path("unused"), command=Secret("no-such-program c4nary"))
    fault = fault_of(source.load)
    assert "no-such-program cannot be started" in fault
    assert "c4nary" not in fault


def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    child = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
    program = (
        "import os, subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}, sys.argv[1]])\n"
        "while not (os.path.exists(sys.argv[1]) and open(sys.argv[1]).read()): time.sleep(0.01)\n"
    )  # the program itself ends; its child holds the output open
    began_at = time.monotonic()
    fault = fault_of(command(program, str(tmp_path / "pid"), within_s=5.0).load)
    assert "has not ended within 5 s" in fault
    assert time.monotonic() - began_at < 20
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _runs(pid)


def test_a_command_whose_child_cannot_be_found_holds_nothing_up(tmp_path: Path) -> None:
    child = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
    program = (
        "import os, subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}, sys.argv[1]], start_new_session=True)\n"
        "while not (os.path.exists(sys.argv[1]) and open(sys.argv[1]).read()): time.sleep(0.01)\n"
    )
    began_at = time.monotonic()
    try:
        assert "has not ended within 5 s" in fault_of(command(program, str(tmp_path / "pid"), within_s=5.0).load)
        assert time.monotonic() - began_at < 20
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_a_command_that_prints_and_goes_on_is_ended() -> None:
    program = "import os, sys, time; print(sys.argv[1], flush=True); os.close(1); time.sleep(600)"
    assert "has not ended within 2 s" in fault_of(command(program, encode_segment(ONE), within_s=2.0).load)


# Several keys


def test_the_previous_key_opens_and_never_seals(tmp_path: Path) -> None:
    source = MasterKeySource(
        data_dir=tmp_path, text=Secret(encode_segment(OTHER)), previous=Secret(encode_segment(ONE))
    )
    master = source.load()
    assert opened(sealed_rows(MasterKey(ONE)), master) == SECRETS
    assert opened(sealed_rows(master), MasterKey(OTHER)) == SECRETS
    with pytest.raises(SettingsError):
        opened(sealed_rows(master), MasterKey(ONE))


def test_when_no_key_opens_it_one_sentence_says_so() -> None:
    (sealed, *_) = sealed_rows(MasterKey(b"3" * 32))
    assert "does not open the access key a" in fault_of(lambda: opened([sealed], MasterKey(ONE, OTHER)))


def test_a_replaced_file_is_read_again_before_a_running_server_complains_or_seals(tmp_path: Path) -> None:
    master = MasterKeySource(data_dir=tmp_path, file=write_key(tmp_path / "named", ONE)).load()
    write_key(tmp_path / "named", OTHER)
    assert opened(sealed_rows(MasterKey(OTHER)), master) == SECRETS
    write_key(tmp_path / "named", ONE)
    assert opened(sealed_rows(master), MasterKey(ONE)) == SECRETS
    assert "does not open" in fault_of(lambda: opened(sealed_rows(MasterKey(b"3" * 32)), master))


def test_a_command_is_asked_again_once_before_a_running_server_complains(tmp_path: Path) -> None:
    asked, key = tmp_path / "asked", write_key(tmp_path / "key", ONE)
    program = "import sys; open(sys.argv[1], 'a').write('x'); print(open(sys.argv[2]).read())"
    master = command(program, str(asked), str(key)).load()
    write_key(key, OTHER)
    assert opened(sealed_rows(MasterKey(OTHER)), master) == SECRETS
    assert asked.read_text() == "xx"
    fault_of(lambda: opened(sealed_rows(MasterKey(b"3" * 32)), master))
    assert asked.read_text() == "xxx"


def test_a_source_that_cannot_be_read_again_is_told_besides(tmp_path: Path) -> None:
    master = MasterKeySource(data_dir=tmp_path, file=write_key(tmp_path / "named", ONE)).load()
    (tmp_path / "named").unlink()
    with pytest.raises(SettingsError) as caught:
        opened(sealed_rows(MasterKey(OTHER)), master)
    not_opened, not_read = caught.value.faults
    assert "does not open" in not_opened
    assert "is missing" in not_read
    with pytest.raises(SettingsError, match="is missing"):  # what is sealed now could be lost with its key
        sealed_rows(master)


# Changing the key


@given(st.lists(st.none() | st.binary(max_size=40), max_size=8))
def test_rows_are_sealed_anew_in_their_order_and_erased_ones_stay(halves: list[bytes | None]) -> None:
    old, new = MasterKey(ONE), MasterKey(OTHER, ONE)
    rows = [
        row(str(n), b"" if raw is None else old.seal(raw, purpose="access", kid=str(n))) for n, raw in enumerate(halves)
    ]
    again = rewrap(rows, new)
    assert [(each.kid, each.created_at) for each in again] == [(each.kid, each.created_at) for each in rows]
    for before, after, raw in zip(rows, again, halves, strict=True):
        if raw is None:
            assert after == before
        else:
            assert MasterKey(OTHER).unseal(after.sealed, purpose="access", kid=after.kid) == raw


def test_a_row_that_does_not_open_stops_the_whole_change() -> None:
    rows = [*sealed_rows(MasterKey(ONE)), row("c", b"\x01" + b"x" * 60)]
    assert "key c " in fault_of(lambda: rewrap(rows, MasterKey(OTHER, ONE)))


def test_a_change_in_the_data_folder_leaves_a_new_key_and_the_old_one_until_told(tmp_path: Path) -> None:
    source = MasterKeySource(data_dir=tmp_path)
    running = source.load()
    before = (tmp_path / "master.key").read_text()
    rows = sealed_rows(running)
    umask = os.umask(0)
    try:
        master = source.begin_rewrap()
        again = rewrap(rows, master)
        assert opened(again, running) == SECRETS  # a server that runs on, between commit and rename
        source.finish_rewrap(master)
    finally:
        os.umask(umask)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["master.key", "master.key.previous"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    assert (tmp_path / "master.key.previous").read_text() == before
    assert (tmp_path / "master.key").read_text() != before
    assert "does not open" in fault_of(lambda: source.forget_previous(rows))
    assert (tmp_path / "master.key.previous").exists()
    source.forget_previous([*again, row("erased", b"")])
    assert [path.name for path in tmp_path.iterdir()] == ["master.key"]
    assert opened(again, source.load()) == opened(again, running) == SECRETS
    source.forget_previous(again)  # nothing left to do


def test_what_a_running_server_seals_after_a_change_is_sealed_with_the_new_key(tmp_path: Path) -> None:
    source = MasterKeySource(data_dir=tmp_path)
    running = source.load()
    source.finish_rewrap(source.begin_rewrap())
    source.forget_previous([])
    assert opened(sealed_rows(running), source.load()) == SECRETS


def test_a_late_finish_does_not_put_another_change_s_key_in_place(tmp_path: Path) -> None:
    source = MasterKeySource(data_dir=tmp_path)
    source.load()
    late = source.begin_rewrap()
    source.finish_rewrap(source.begin_rewrap())  # the same change, finished by another process
    present = (tmp_path / "master.key").read_text()
    source.begin_rewrap()
    source.finish_rewrap(late)
    assert (tmp_path / "master.key").read_text() == present
    assert (tmp_path / "master.key.next").exists()


def test_other_sources_are_sealed_anew_under_their_present_key_and_write_no_file(tmp_path: Path) -> None:
    old, new = Secret(encode_segment(ONE)), Secret(encode_segment(OTHER))
    source = MasterKeySource(data_dir=tmp_path, text=new, previous=old)
    master = source.begin_rewrap()
    again = rewrap(sealed_rows(MasterKey(ONE)), master)
    source.finish_rewrap(master)
    source.forget_previous(again)
    assert opened(again, MasterKeySource(data_dir=tmp_path, text=new).load()) == SECRETS
    assert list(tmp_path.iterdir()) == []


class Crash(BaseException):
    """The process is gone: nothing is tidied up after it."""


STEPS = ("open", "fsync", "link", "unlink", "rename", "replace")


def crash_at(monkeypatch: pytest.MonkeyPatch, step: int) -> list[str]:
    """Let the process die instead of making its file system call number `step`, and every later one."""
    done: list[str] = []

    def wrap(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            if len(done) >= step:
                raise Crash
            done.append(name)
            return real(*args, **kwargs)

        return call

    for name in STEPS:
        monkeypatch.setattr(os, name, wrap(name, getattr(os, name)))
    return done


def change(source: MasterKeySource, database: list[list[SealedKey]]) -> None:
    master = source.begin_rewrap()
    again = rewrap(database[-1], master)
    database.append(again)  # the COMMIT
    source.finish_rewrap(master)


def test_a_crash_at_any_point_of_a_change_loses_nothing(tmp_path: Path) -> None:
    cut_off = 0
    for step in range(100):
        source = MasterKeySource(data_dir=tmp_path / str(step))
        running = source.load()
        database = [sealed_rows(running)]
        with pytest.MonkeyPatch.context() as patch:
            done = crash_at(patch, step)
            try:
                change(source, database)
            except Crash:
                cut_off += 1
        whole = len(done) < step
        for rows in (database[0], database[-1]):  # the commit may have been lost or kept
            assert opened(rows, source.load(make=False)) == SECRETS  # a server that starts now
            assert opened(rows, running) == SECRETS  # one that runs on
        late = sealed_rows(source.load(make=False))  # made by a server in that moment
        database.append([*database[-1], *late])
        change(source, database)  # done again, it comes to its end
        assert opened(database[-1], source.load(make=False)) == SECRETS
        source.forget_previous(database[-1])
        assert opened(database[-1], MasterKey(sealing._read_key(source.data_dir / "master.key"))) == SECRETS
        if whole:
            break
    else:
        pytest.fail("the change never ended")
    assert cut_off >= 10


def test_nothing_private_is_shown() -> None:
    source = MasterKeySource(
        data_dir=Path("d"), text=Secret("c4nary"), command=Secret("c4nary"), previous=Secret("c4nary")
    )
    for shown in (source, MasterKey(ONE, OTHER), row("a", b"c4nary")):
        assert "c4nary" not in repr(shown) + str(shown)
        assert encode_segment(ONE) not in repr(shown)
