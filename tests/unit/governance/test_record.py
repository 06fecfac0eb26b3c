"""The record as a document: whole, escaped, alone, and readable without eyes or colours."""

from html.parser import HTMLParser
from pathlib import Path

from keepless.config import load
from keepless.governance.record import record_page
from keepless.governance.transfers import Register, register
from tests.unit.governance.test_transfers import CONFIG

AT = 1_800_000_000_000
LOCATION = {
    "location": "local<b>",
    "writable": True,
    "region": None,
    "checked_at": 1_800_000_000,
    "findings": {"public_access": "green"},
}


class Read(HTMLParser):
    """Text by the tag that it stands in, and every attribute of every tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1], data))

    def of(self, tag: str) -> list[str]:
        return [text for where, text in self.texts if where == tag]


def told(tmp_path: Path, config: str = CONFIG) -> Register:
    file = tmp_path / "keepless.toml"
    file.write_text(config)
    return register(load(file, {}), LOCATION, "EU")


def test_everything_of_the_register_is_said_and_nothing_of_its_secrets(tmp_path: Path) -> None:
    page = record_page(told(tmp_path), AT)
    read = Read(page)
    cells = [*read.of("td"), *read.of("th")]
    for said in ("local<b>", "yes", "not declared", "2027-01-15 08:00 UTC", "green", "Public access"):
        assert said in cells
    for said in ("near", "this machine", "here", "far", "api.example.com:8443", "US", "nothing", "other.example.org"):
        assert said in cells
    for said in ("Example, Inc.", "Example Hosting", "DE, FR", "every country", "no upstream"):
        assert said in cells
    assert "standard contractual clauses (GDPR, article 46(2)(c)), module 2" in cells
    assert "adequacy decision (GDPR, article 45)" in cells
    assert any("other.example.org" in text for text in read.of("p"))
    assert any("2027-01-15 08:00 UTC" in text and "pinned to EU" in text for text in read.of("p"))
    assert "secret" not in page


def test_it_says_what_there_is_not(tmp_path: Path) -> None:
    read = Read(record_page(told(tmp_path, '[[models]]\nid = "near"\n'), AT))
    assert "No transfer is declared." in read.of("p")
    assert read.of("strong") == []


def test_what_an_operator_typed_is_text(tmp_path: Path) -> None:
    page = record_page(told(tmp_path, CONFIG.replace("Example, Inc.", "<script>alert(1)</script> & Co")), AT)
    assert "<script" not in page
    assert "<script>alert(1)</script> & Co" in Read(page).of("th")


def test_it_stands_alone_and_every_table_says_what_it_is(tmp_path: Path) -> None:
    page = record_page(told(tmp_path), AT)
    read = Read(page)
    assert read.open == []
    assert not {"src", "href", "onload"} & {name for _, attributes in read.tags for name in attributes}
    assert {tag for tag, _ in read.tags} == {
        *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "p", "strong"),
        *("table", "caption", "thead", "tbody", "tr", "th", "td"),
    }
    assert ("html", {"lang": "en"}) in read.tags
    assert len(read.of("caption")) == len([1 for tag, _ in read.tags if tag == "table"]) == 3
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in read.tags if tag == "th")
    assert len(read.of("h1")) == 1
    assert "size: A4" in page
    assert "url(" not in page
    assert "@import" not in page
