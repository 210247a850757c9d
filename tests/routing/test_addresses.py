"""Claims about where arms may be: nowhere that clouds keep secrets, however the address is written."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.addresses import DEFAULT, AddressRules, address_rules, destination, host_refusal, socket_path

NEVER = [
    "169.254.0.0",
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "169.254.42.42",
    "169.254.0.23",
    "169.254.255.255",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "0.0.0.0",  # noqa: S104  # nothing is bound to it
    "0.1.2.3",
    "224.0.0.1",
    "239.255.255.255",
    "255.255.255.255",
    "::",
    "fe80::1",
    "febf::1",
    "ff02::1",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd00:42::42",
    "fd00:100::100:200",
    "fd00:a9fe:a9fe::1",
    "fd00:c1::a9fe:a9fe",
    "fd20:ce::254",
]
DISGUISES = {
    "mapped": "::ffff:{dotted}",
    "compatible": "::{dotted}",
    "translated": "::ffff:0:{dotted}",
    "NAT64": "64:ff9b::{dotted}",
    "local NAT64 of 96 bits": "64:ff9b:1::{dotted}",
    "local NAT64 of 48 bits": "64:ff9b:1:{high}:{c:02x}:{d:02x}00::",
    "local NAT64 of 64 bits": "64:ff9b:1:0:{a:02x}:{b:02x}{c:02x}:{d:02x}00::",
    "6to4": "2002:{high}:{low}::1",
    "Teredo server": "2001:0:{high}:{low}::1",
    "Teredo client": "2001:0:102:304:0:0:{turned_high}:{turned_low}",
    "ISATAP": "2001:db8::5efe:{dotted}",
    "global ISATAP": "2001:db8::200:5efe:{dotted}",
}
OPEN = ["127.0.0.1", "127.9.9.9", "::1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fd12::1"]
PUBLIC = ["203.0.113.7", "8.8.8.8", "169.253.0.1", "169.255.0.1", "2001:db8::1", "64:ff9b::8.8.8.8"]


def disguised(form: str, dotted: str) -> str:
    """An IPv4 address inside an IPv6 one."""
    a, b, c, d = IPv4Address(dotted).packed
    high, low = a << 8 | b, c << 8 | d
    return form.format(
        dotted=dotted,
        a=a,
        b=b,
        c=c,
        d=d,
        high=f"{high:x}",
        low=f"{low:x}",
        turned_high=f"{high ^ 0xFFFF:x}",
        turned_low=f"{low ^ 0xFFFF:x}",
    )


@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_are_never_allowed(address: str) -> None:
    """Link-local, metadata, unspecified, multicast and broadcast addresses, whatever a setting allows."""
    allowing = address_rules(True, ["0.0.0.0/0", "::/0"], [])
    for rules in (DEFAULT, allowing):
        refusal = rules.refusal(address)
        assert refusal is not None
        assert refusal.startswith("must not be ")
        assert refusal.endswith(f"got {address}")


@pytest.mark.parametrize("form", DISGUISES.values(), ids=DISGUISES)
@pytest.mark.parametrize("address", ["169.254.169.254", "168.63.129.16", "100.100.100.200", "224.0.0.1"])
def test_an_address_inside_another_is_found(form: str, address: str) -> None:
    """Whatever hands packets on to an IPv4 address is judged as that address."""
    assert DEFAULT.refusal(disguised(form, address)) is not None


@pytest.mark.parametrize("form", DISGUISES.values(), ids=DISGUISES)
def test_a_private_address_inside_another_is_private(form: str) -> None:
    """It is refused exactly where private addresses are."""
    address = disguised(form, "10.1.2.3")
    assert DEFAULT.refusal(address) is None
    assert AddressRules(private=False).refusal(address) is not None
    assert address_rules(True, [], ["10.0.0.0/8"]).refusal(address) is not None


@pytest.mark.parametrize("address", [*OPEN, *PUBLIC])
def test_private_and_public_addresses_are_allowed(address: str) -> None:
    """Without settings, and also those that only look a little like what is refused."""
    assert DEFAULT.refusal(address) is None


@pytest.mark.parametrize("address", OPEN)
def test_private_addresses_are_refused_by_setting(address: str) -> None:
    """With `private_arms` off."""
    refusal = AddressRules(private=False).refusal(address)
    bound = "must not be a private or loopback address while private_arms is off"
    assert refusal == f"{bound}, got {address}"


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_not(address: str) -> None:
    """The same setting leaves them alone."""
    assert AddressRules(private=False).refusal(address) is None


@pytest.mark.parametrize("address", ["fe80::1%eth0", "fd12::1%1", "::1%lo"])
def test_zones_are_refused(address: str) -> None:
    """What a zone means is known to one machine alone."""
    refusal = DEFAULT.refusal(address)
    assert refusal == f"must be an address without a zone, got {address!r}"


@pytest.mark.parametrize(
    "text", ["", "localhost", "1.2.3", "0x7f.1", "01.2.3.4", "１.2.3.4", "[::1]", "::1]"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """A resolver that answers something else is not believed."""
    assert DEFAULT.refusal(text) == f"must be an IP address, got {text!r}"


def test_deny_wins_over_allow() -> None:
    """An address in both is refused; one in allow alone is allowed; one in neither is refused."""
    rules = address_rules(True, ["10.0.0.0/8", "2001:db8::/32"], ["10.9.0.0/16"])
    assert rules.refusal("10.9.1.1") == "must not be in deny_networks, got 10.9.1.1"
    assert rules.refusal("10.8.1.1") is rules.refusal("::ffff:10.8.1.1") is None
    assert rules.refusal("2001:db8::1") is None
    assert rules.refusal("8.8.8.8") == "must be in one of allow_networks, got 8.8.8.8"


def test_every_rule_holds_at_once() -> None:
    """A private network that is allowed is refused all the same where private arms are."""
    assert address_rules(False, ["10.0.0.0/8"], []).refusal("10.0.0.1") is not None
    with pytest.raises(ValueError, match="host bits set"):
        address_rules(True, ["10.0.0.1/8"], [])


@given(st.integers(0, 2**32 - 1))
def test_a_mapped_address_is_judged_as_what_it_is(bits: int) -> None:
    """Under any settings, an IPv4 address and its mapped form are both refused or both allowed."""
    plain, mapped = IPv4Address(bits), IPv6Address(0xFFFF << 32 | bits)
    assert destination(mapped) == destination(plain) == plain
    networks = ["10.0.0.0/8", "128.0.0.0/1"]
    for rules in (DEFAULT, AddressRules(private=False), address_rules(True, networks, ["192.0.0.0/3"])):
        assert (rules.refusal(str(plain)) is None) is (rules.refusal(str(mapped)) is None)


@given(st.integers(0, 2**128 - 1))
def test_every_address_is_judged(bits: int) -> None:
    """No address raises, and what is refused without settings is refused under any."""
    address = str(IPv6Address(bits))
    if DEFAULT.refusal(address) is not None:
        assert AddressRules(private=False).refusal(address) is not None


@pytest.mark.parametrize(
    "host",
    [
        "2852039166",
        "0xa9fea9fe",
        "0xa9.0xfe.43518",
        "0251.0376.0251.0376",
        "169.254.43518",
        "169.16689662",
        "0169.254.169.254",
        "169.254.169.254.",
        "169.254.169.254..",
        "127.1",
        "0",
        "0x7f",
        "0x",
        "256.1.1.1",
        "1.2.3.4.5",
        "name.0x7f000001",
        "name.1",
    ],
)
def test_numbers_are_written_in_one_way(host: str) -> None:
    """A host that ends in a number is four decimal numbers, or nothing that an arm may have."""
    assert host_refusal(host) == f"must write an IPv4 address as four decimal numbers, got {host!r}"


@pytest.mark.parametrize(
    "host",
    [
        "metadata",
        "metadata.google.internal",
        "metadata.google.internal.",
        "metadata.goog",
        "instance-data",
        "metadata.tencentyun.com",
        "169.254.169.254",
        "fd00:ec2::254",
        "::ffff:a9fe:a9fe",
        "fe80::1%25eth0",
        "127.0.0.%31",
        "169。254。169。254",
        "１６９.254.169.254",
        "①②⑦.⓪.⓪.①",
        "münchen.example",
        "a..b",
        ".a",
        "-a",
        "a-",
        "a b",
        "a,b",
        "a" * 64,
        "a." * 127 + "a",
    ],
)
def test_hosts_that_no_arm_may_have(host: str) -> None:
    """Names of metadata services, addresses that are never allowed, and what is no host name in ASCII."""
    assert host_refusal(host) is not None


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "model-7.svc.cluster.local",
        "model.svc.cluster.local.",
        "my_model",
        "1und1.example",
        "xn--mnchen-3ya.example",
        "metadata.example.org",
        "a" * 63,
        "127.0.0.1",
        "::1",
        "10.0.0.1",
    ],
)
def test_hosts_that_an_arm_may_have(host: str) -> None:
    """Names, also with the dot at their end that keeps a resolver from trying others, and addresses."""
    assert host_refusal(host) is None


@pytest.mark.parametrize(
    ("netloc", "path"),
    [
        ("%2Frun%2Fmodel.sock", "/run/model.sock"),
        ("%2frun%2Fa%20b.sock", "/run/a b.sock"),
        ("%2Frun%2F%C3%BC", "/run/ü"),
        ("%2F" + "a" * 106, "/" + "a" * 106),
        ("%2F" + "a" * 107, None),
        ("%2Frun%00x", None),
        ("%2Frun%0Ax", None),
        ("%2Frun%FF", None),
        ("%2", None),
        ("%2F", None),
        ("run%2Fmodel.sock", None),
        ("/run/model.sock", None),
        ("me@%2Frun%2Fx", None),
        ("%2Frun%2Fx:80", None),
        ("%00abstract", None),
        ("", None),
    ],
)
def test_a_socket_is_named_by_its_whole_path(netloc: str, path: str | None) -> None:
    """Percent-encoded in the place of the host; relative, abstract and overlong ones are none."""
    assert socket_path(netloc) == path


def test_sockets_are_private() -> None:
    """And in no network; those of container engines are the machine itself."""
    assert DEFAULT.socket_refusal("/run/model.sock") is None
    assert AddressRules(private=False).socket_refusal("/run/model.sock") is not None
    assert address_rules(True, ["10.0.0.0/8"], []).socket_refusal("/run/model.sock") is not None
    assert DEFAULT.socket_refusal("/var/run/docker.sock") is not None
