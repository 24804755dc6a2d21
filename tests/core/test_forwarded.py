"""Forwarding headers count only as far as configured proxies vouch for them."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotgate.core.forwarded import TrustedProxies, parse_address, resolve_sender

NOBODY = TrustedProxies()
ONE = TrustedProxies.parse(["10.0.0.0/8", "::1"])
CLIENT = "203.0.113.9"


@given(st.text(), st.text(), st.text())
def test_headers_from_anybody_else_are_not_looked_at(forwarded: str, for_: str, proto: str) -> None:
    sender = resolve_sender(
        CLIENT, "http", forwarded=[forwarded], forwarded_for=[for_], forwarded_proto=[proto], proxies=ONE
    )
    assert (str(sender.address), sender.secure) == (CLIENT, False)
    assert resolve_sender(CLIENT, "http", forwarded_for=["127.0.0.1"], proxies=NOBODY) == sender


def test_the_rightmost_address_that_is_not_ours_is_the_sender() -> None:
    sender = resolve_sender("10.0.0.1", "http", forwarded_for=[f"127.0.0.1, {CLIENT}, 10.0.0.2"], proxies=ONE)
    assert str(sender.address) == CLIENT
    lines = resolve_sender("10.0.0.1", "http", forwarded_for=["6.6.6.6", f"{CLIENT}", "10.0.0.2"], proxies=ONE)
    assert str(lines.address) == CLIENT


def test_a_count_of_proxies_takes_that_many_from_the_right() -> None:
    header = ["9.9.9.9, 198.51.100.1, 203.0.113.9"]
    for count, address in ((1, "203.0.113.9"), (2, "198.51.100.1"), (3, "9.9.9.9")):
        sender = resolve_sender("192.0.2.1", "http", forwarded_for=header, proxies=TrustedProxies.parse(count))
        assert str(sender.address) == address


def test_whoever_goes_around_the_counted_proxies_is_not_believed() -> None:
    two = TrustedProxies.parse(2)
    bare = resolve_sender(CLIENT, "http", proxies=two)
    assert (str(bare.address), bare.secure) == (CLIENT, False)
    forged = resolve_sender(CLIENT, "http", forwarded_for=["127.0.0.1"], forwarded_proto=["https"], proxies=two)
    assert (forged.address, forged.confidential) == (None, False)


def test_forwarded_is_read_with_its_ports_and_quotes() -> None:
    sender = resolve_sender("10.0.0.1", "http", forwarded=[f'for="{CLIENT}:4711";proto=https;by=10.0.0.1'], proxies=ONE)
    assert (str(sender.address), sender.secure) == (CLIENT, True)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_header_that_the_proxy_passes_through_adds_nothing_to_what_it_says_itself(scheme: str) -> None:
    """A proxy writes Forwarded or X-Forwarded-*, and its client writes the other."""
    real = {"forwarded_for": [CLIENT], "forwarded_proto": [scheme]}
    forged = resolve_sender("10.0.0.1", "http", forwarded=["for=127.0.0.1;proto=https"], **real, proxies=ONE)
    assert (forged.address, forged.secure) == (None, scheme == "https")
    real_forwarded = [f"for={CLIENT};proto={scheme}"]
    forged = resolve_sender(
        "10.0.0.1",
        "http",
        forwarded=real_forwarded,
        forwarded_for=["127.0.0.1"],
        forwarded_proto=["https"],
        proxies=ONE,
    )
    assert (forged.address, forged.secure) == (None, scheme == "https")


def test_a_chain_longer_than_any_is_cut_where_it_is_nearest() -> None:
    line = ",".join(["10.0.0.9"] * 30_000 + [CLIENT, "10.0.0.2"])
    assert str(resolve_sender("10.0.0.1", "http", forwarded_for=[line], proxies=ONE).address) == CLIENT
    trusted = ",".join([CLIENT] + ["10.0.0.2"] * 30_000)
    assert str(resolve_sender("10.0.0.1", "http", forwarded_for=[trusted], proxies=ONE).address) == "10.0.0.2"
    elements = ",".join([f"for={CLIENT}"] + ["for=10.0.0.2"] * 5_000)
    assert str(resolve_sender("10.0.0.1", "http", forwarded=[elements], proxies=ONE).address) == "10.0.0.2"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:80", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ('"[2001:db8::1]:443"', "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("unknown", None),
        ("_hidden", None),
        ("localhost", None),
        ("", None),
        (None, None),
        ("127.0.0.1@evil", None),
    ],
)
def test_addresses_as_proxies_write_them(text: str | None, address: str | None) -> None:
    found = parse_address(text)
    assert (str(found) if found else None) == address


def test_an_unknown_client_is_never_taken_for_loopback() -> None:
    sender = resolve_sender("10.0.0.1", "http", forwarded=["for=unknown;proto=http"], proxies=ONE)
    assert not sender.confidential


def test_separators_within_quotes_do_not_split() -> None:
    sender = resolve_sender(
        "10.0.0.1", "http", forwarded=[f'by="a,b;for=127.0.0.1";for={CLIENT};proto=http'], proxies=ONE
    )
    assert (str(sender.address), sender.secure) == (CLIENT, False)


@given(st.lists(st.text(alphabet='for=;,"proto:[]127.0.1 https', max_size=40), max_size=3))
def test_any_header_of_a_trusted_proxy_is_read_without_an_error(lines: list[str]) -> None:
    resolve_sender("10.0.0.1", "http", forwarded=lines, proxies=ONE)
    resolve_sender("10.0.0.1", "http", forwarded_for=lines, forwarded_proto=lines, proxies=ONE)


@pytest.mark.parametrize("value", [["proxy.example"], ["10.0.0.1/8"], -1, 17])
def test_what_is_neither_address_nor_count_is_refused(value: list[str] | int) -> None:
    with pytest.raises(ValueError, match=r"neither|count"):
        TrustedProxies.parse(value)


def test_who_is_trusted_is_an_exact_value() -> None:
    assert TrustedProxies.parse(["10.0.0.0/8", "::1"]) == TrustedProxies((ip_network("10.0.0.0/8"), ip_network("::1")))
    assert TrustedProxies.parse(16).count == 16
    assert not TrustedProxies.parse(0)
    with pytest.raises(AttributeError):
        ONE.count = 1  # type: ignore[misc] # the promise


@pytest.mark.parametrize("scheme", ["http", "https", "ws", "wss"])
@pytest.mark.parametrize(("peer", "local"), [(CLIENT, False), ("127.0.0.1", True), ("::1", True), (None, False)])
def test_nobody_reads_along_on_tls_and_on_loopback(scheme: str, peer: str | None, local: bool) -> None:
    sender = resolve_sender(peer, scheme, proxies=NOBODY)
    assert sender.secure is (scheme in ("https", "wss"))
    assert sender.confidential is (sender.secure or local)
    with pytest.raises(AttributeError):
        sender.secure = True  # type: ignore[misc] # the promise


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (" 192.0.2.1 ", "192.0.2.1"),
        ("[::1]:8", "::1"),
        ("[::1]:65535", "::1"),
        ("[::1]:", None),
        ("[::1]:123456", None),
        ("192.0.2.1:8", "192.0.2.1"),
        ("192.0.2.1:65535", "192.0.2.1"),
        ("192.0.2.1:", None),
        ("192.0.2.1:123456", None),
        ("[]", None),
        (":80", None),
    ],
)
def test_a_port_has_one_to_five_digits(text: str, address: str | None) -> None:
    found = parse_address(text)
    assert (str(found) if found else None) == address


def told(**headers: list[str]) -> tuple[str, bool]:
    sender = resolve_sender("10.0.0.1", "http", **headers, proxies=ONE)
    return str(sender.address), sender.secure


def test_two_headers_that_agree_are_believed() -> None:
    both = {"forwarded": [f"for={CLIENT};proto=https"], "forwarded_for": [CLIENT], "forwarded_proto": ["https"]}
    assert told(**both) == (CLIENT, True)


def test_a_named_proxy_that_says_nothing_speaks_tls() -> None:
    assert told() == ("10.0.0.1", True)
    assert told(forwarded_for=[CLIENT]) == (CLIENT, True)
    assert told(forwarded=[f"for={CLIENT}"]) == (CLIENT, True)


def test_where_all_are_ours_the_furthest_is_the_sender() -> None:
    assert told(forwarded_for=["10.0.0.9, 10.0.0.2"])[0] == "10.0.0.9"
    assert told(forwarded=["for=10.0.0.9, for=10.0.0.2"])[0] == "10.0.0.9"


def test_lines_spaces_quotes_and_case_of_forwarded_do_not_matter() -> None:
    for proto, secure in (("https", True), ('"HTTPS"', True), ("wss", True), ('"http"', False), ("ws", False)):
        lines = [f"for={CLIENT};proto=http , FOR = {CLIENT} ; Proto = {proto}", "for=10.0.0.2", "for=10.0.0.3"]
        assert told(forwarded=lines) == (CLIENT, secure)


def test_the_protocol_of_a_sender_is_its_own_or_the_last_one_known() -> None:
    two = [f"{CLIENT} , 10.0.0.2"]
    for protos, secure in ((["HTTPS"], True), (["http"], False), (["https", "http"], True), (["https , http"], True)):
        assert told(forwarded_for=two, forwarded_proto=protos) == (CLIENT, secure)
    assert told(forwarded_for=["10.0.0.2"], forwarded_proto=["https,http"]) == ("None", True)
    assert told(forwarded_for=[f"{CLIENT}, ,"], forwarded_proto=["https", " "]) == (CLIENT, True)


@pytest.mark.parametrize(("ours", "address"), [(31, CLIENT), (32, "10.0.0.2")])
def test_32_hops_are_looked_at(ours: int, address: str) -> None:
    hops = [CLIENT] + ["10.0.0.2"] * ours
    assert told(forwarded_for=[",".join(hops)])[0] == address
    assert told(forwarded=[",".join(f"for={hop}" for hop in hops)])[0] == address
