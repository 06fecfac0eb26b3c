"""Origins: only behind trusted proxies, only global addresses, and never the address itself."""

import pytest

from keepless.errors import ConfigError
from keepless.incidents.origin import HOUR_S, Origins
from tests.support.log import FixedClock

PROXY = "10.0.0.7"
CLIENT = b"93.184.215.14"


def origins(*proxies: str) -> Origins:
    return Origins(proxies or ("10.0.0.0/8", "fd00::/8"), FixedClock())


def test_one_client_has_one_token() -> None:
    found = origins()
    token = found.token_of(PROXY, CLIENT)
    assert token is not None
    assert len(token) == 16
    assert CLIENT not in token
    assert found.token_of("10.9.9.9", b"1.2.3.4, " + CLIENT + b" , 10.0.0.1") == token
    assert found.token_of(PROXY, b"::ffff:93.184.215.14") == token
    assert found.token_of(PROXY, b"93.184.215.15") != token


def test_ipv6_counts_by_its_56() -> None:
    found = origins()
    token = found.token_of("fd00::1", b"2606:2800:220:1:248:1893:25c8:1946")
    assert token is not None
    assert found.token_of(PROXY, b"2606:2800:220:ff::1") == token
    assert found.token_of(PROXY, b"2606:2800:220:100::1") != token


NONE = {
    "no proxy trusted": (Origins((), FixedClock()), PROXY, CLIENT),
    "a peer that is no proxy": (origins(), "93.184.215.99", CLIENT),
    "no header": (origins(), PROXY, None),
    "an empty header": (origins(), PROXY, b""),
    "loopback": (origins(), PROXY, b"127.0.0.1"),
    "private": (origins(), PROXY, b"192.168.1.9"),
    "carrier-grade": (origins(), PROXY, b"100.64.0.1"),
    "link-local": (origins(), PROXY, b"fe80::1"),
    "only proxies": (origins(), PROXY, b"10.0.0.1, 10.0.0.2"),
    "not an address": (origins(), PROXY, b"unknown"),
    "a hop that is not an address hides what is before it": (origins(), PROXY, CLIENT + b", \xff\xfe"),
    "a peer that is not an address": (origins(), "", CLIENT),
    "a private client said to be global further left": (origins(), PROXY, CLIENT + b", 192.168.0.1"),
}


@pytest.mark.parametrize("case", NONE)
def test_what_may_not_be_known_is_not(case: str) -> None:
    found, peer, header = NONE[case]
    assert found.token_of(peer, header) is None


def test_tokens_mean_nothing_after_an_hour_or_in_another_process() -> None:
    clock = FixedClock()
    found = Origins([PROXY], clock)
    first = found.token_of(PROXY, CLIENT)
    clock.ms += int(HOUR_S * 1000) - 1
    assert found.token_of(PROXY, CLIENT) == first
    clock.ms += 1
    assert found.token_of(PROXY, CLIENT) != first
    assert Origins([PROXY], clock).token_of(PROXY, CLIENT) != first


def test_a_proxy_that_is_no_network_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="trusted_proxies"):
        origins("proxy.example")
    assert not Origins([], FixedClock()).enabled
    assert origins().enabled
