"""Where a webhook may go."""

import ipaddress

import pytest

from keepless.outbound.urls import Target, UrlError, permitted, target_of

GOOD = {
    "https://example.com": Target("example.com", 443, "/"),
    "https://example.com/a/b?c=d&e=%20": Target("example.com", 443, "/a/b?c=d&e=%20"),
    "HTTPS://Example.COM:8443/": Target("example.com", 8443, "/"),
    "https://93.184.216.34/x": Target("93.184.216.34", 443, "/x"),
    "https://[2606:4700::1111]:444/x": Target("2606:4700::1111", 444, "/x"),
    "https://xn--bcher-kva.example/": Target("xn--bcher-kva.example", 443, "/"),
}
BAD = [
    "",
    "http://example.com/",
    "ftp://example.com/",
    "//example.com/",
    "example.com",
    "https://",
    "https:///path",
    "https://user@example.com/",
    "https://user:pass@example.com/",
    "https://@example.com/",
    "https://example.com/#part",
    "https://example.com/#",
    "https://example.com\\@inside/",
    "https://example.com/ space",
    "https://example.com/\nhost: other",
    "https://example.com/\r\n",
    "https://example.com/\x00",
    "https://exämple.com/",
    "https://example.com/ä",
    "https://example.com:0/",
    "https://example.com:/",
    "https://example.com:65536/",
    "https://example.com:x/",
    "https://-a.example/",
    "https://a..example/",
    "https://example.com./",
    "https://a_b.example/",
    "https://%65xample.com/",
    "https://localhost/",
    "https://intranet/",
    "https://2130706433/",
    "https://0x7f.1/",
    "https://127.1/",
    "https://example.0x7f000001/",
    "https://010.0.0.1/",
    "https://127.0.0.1/",
    "https://10.1.2.3/",
    "https://169.254.169.254/latest/meta-data",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[fe80::1%25eth0]/",
    "https://[example.com]/",
    "https://[v1.a]/",
    "https://example.com/" + "a" * 1000,
    "https://" + "a" * 64 + ".example/",
    "https://example.com/<script>",
    'https://example.com/"',
]
REFUSED = [
    *("0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1"),
    *("192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
    *("224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::127.0.0.1", "::ffff:8.8.8.8", "::ffff:127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::8.8.8.8"),
    *("64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "fc00::1", "fd12::1", "fe80::1"),
    *("fe80::1%eth0", "2606:4700::1111%1", "fec0::1", "ff02::1"),
]


@pytest.mark.parametrize("url", GOOD)
def test_good_urls_in_parts(url: str) -> None:
    assert target_of(url) == GOOD[url]


@pytest.mark.parametrize("url", BAD)
def test_bad_urls_are_refused_without_an_echo(url: str) -> None:
    with pytest.raises(UrlError) as refused:
        target_of(url)
    assert refused.value.why.startswith("it")
    assert not url or url not in refused.value.why


@pytest.mark.parametrize("address", REFUSED)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not permitted(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::200e"])
def test_public_addresses(address: str) -> None:
    assert permitted(ipaddress.ip_address(address))


def test_on_own_premises_names_and_addresses_may_be_private_but_nothing_else_is_looser() -> None:
    assert target_of("https://localhost:8443/x", allow_private=True) == Target("localhost", 8443, "/x")
    assert target_of("https://10.0.0.1/", allow_private=True).host == "10.0.0.1"
    for url in ("http://localhost/", "https://u@localhost/", "https://localhost/#x", "https://0x7f.1/"):
        with pytest.raises(UrlError):
            target_of(url, allow_private=True)


def test_the_authority_names_the_port_only_when_it_is_not_the_usual_one() -> None:
    assert Target("example.com", 443, "/").authority == "example.com"
    assert Target("2606:4700::1111", 444, "/").authority == "[2606:4700::1111]:444"
