"""`jotgate demo` as a newcomer meets it: one command, lines to paste, Ctrl-C."""

import json
import re
import subprocess
from pathlib import Path

from tests.conftest import Need, RunningServer, StartServer


def pasted_session(demo: RunningServer) -> str:
    """The lines that the demo prints for a terminal: from the first assignment to the next empty line."""
    found = re.search(r"^SHOP=(?:.+\n)+", demo.output, re.MULTILINE)
    assert found is not None, demo.output
    return found[0]


def printed_accounts(demo: RunningServer) -> list[dict[str, str]]:
    """The customer's and the staff's."""
    found = re.findall(r"^ +e-mail +(\S+)\n +password +(\S+)$", demo.output, re.MULTILINE)
    assert len(found) == 2, demo.output
    return [{"email": email, "password": password} for email, password in found]


def test_the_printed_lines_work_when_pasted_into_a_shell(
    running_shop: RunningServer, need: Need, tmp_path: Path
) -> None:
    need("curl")
    need("python3")

    shell = subprocess.run(
        [need("sh")],
        input=pasted_session(running_shop),
        cwd=tmp_path,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert shell.stderr == ""
    answers = [line for line in shell.stdout.replace("\r", "").split("\n") if line]
    signed_up, no_orders, order, one_order, still_one_order = map(json.loads, answers[:5])
    assert signed_up["account"]["email"].endswith("@jotgate.test")
    assert no_orders == {"orders": []}
    assert (order["product"], order["quantity"]) == ("notebook", 2)
    assert one_order == still_one_order == {"orders": [order]}
    refusal = answers[5:]  # the answer to the logout has no body
    assert re.fullmatch(r"HTTP/\S+ 401 ?\S*", refusal[0])
    assert json.loads(refusal[-1])["code"] == "token_revoked"


def test_the_printed_accounts_log_in(running_shop: RunningServer) -> None:
    with running_shop.client("/auth") as client:
        answers = [
            client.post("/v1/login", json={**account, "delivery": "body"}) for account in printed_accounts(running_shop)
        ]

    scopes = ["account:read", "orders:read", "orders:write"]
    assert [answer.json()["scope"].split() for answer in answers] == [scopes, [*scopes, "stock:write"]]


def test_the_printed_lines_end_the_sessions_of_the_demo_account(running_shop: RunningServer, need: Need) -> None:
    need("curl")
    lines = re.search(r"^curl .*/v1/login(?:.+\n)+", running_shop.output, re.MULTILINE)
    assert lines is not None, running_shop.output
    with running_shop.client() as client:
        body = {**printed_accounts(running_shop)[0], "delivery": "body"}
        tokens = client.post("/auth/v1/login", json=body).json()
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        assert client.get("/api/orders", headers=headers).status_code == 200

        shell = subprocess.run(
            [need("sh")],
            input=lines[0],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env={"PATH": "/usr/bin:/bin"},
        )

        assert (shell.stdout, shell.stderr) == ("", "")
        assert client.get("/api/orders", headers=headers).json()["code"] == "token_revoked"


def test_ctrl_c_ends_it_cleanly_and_the_next_start_tells_the_same_account(
    start_server: StartServer, tmp_path: Path
) -> None:
    demo = start_server("demo", data_dir=tmp_path / "data")

    assert demo.interrupt() == 0
    assert "Traceback" not in demo.output
    assert not demo.left_processes
    again = start_server("demo", data_dir=demo.data_dir)
    assert printed_accounts(again) == printed_accounts(demo)
