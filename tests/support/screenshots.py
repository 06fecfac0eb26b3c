"""Pictures of the console's main pages on a deployment made for it: light, dark, and as wide as a phone.

`make screenshots` writes them whole below dist/screenshots, and the first screen of a few into docs/screenshots.
"""

import sys
import tempfile
from pathlib import Path

from tests.support import demo
from tests.support.browser import chromium, opened, overflow
from tests.support.serve import serve, upstream_models
from tests.support.upstream import MockUpstream

LOOKS = {
    "light": {"viewport": {"width": 1280, "height": 860}},
    "dark": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}},
}
PAGES = {
    "overview": "/",
    "controls": "/controls",
    "review": "/controls/review?zero_data_retention=on",
    "kept": "/kept",
    "receipts": "/receipts",
    "usage": "/usage",
    "files": "/files",
    "batches": "/batches",
    "fine-tunings": "/fine-tunings",
    "captures": "/captures",
    "cases": "/cases",
    "keys": "/keys",
    "projects": "/projects",
    "members": "/members",
    "holds": "/holds",
    "audit": "/audit",
    "location": "/location",
}


CHOSEN = {("controls", "light"): "controls", ("kept", "dark"): "kept", ("review", "light"): "review"}


def main() -> None:
    """Seed, look, write."""
    out = Path("dist/screenshots")
    out.mkdir(parents=True, exist_ok=True)
    chosen = sys.argv[1:] or list(PAGES)
    with (
        tempfile.TemporaryDirectory() as folder,
        MockUpstream() as upstream,
        serve(Path(folder), upstream_models(upstream.base_url), fresh=True) as served,
        chromium() as browser,
    ):
        demo.seed(served)
        for look, options in LOOKS.items():
            with opened(browser, served.url, served.told["admin_key"], **options) as page:
                for name in chosen:
                    page.goto(PAGES[name])
                    page.wait_for_load_state("networkidle")
                    page.screenshot(path=out / f"{name}-{look}.png", full_page=True)
                    if (name, look) in CHOSEN:
                        page.screenshot(path=f"docs/screenshots/{CHOSEN[name, look]}.png")
                    if wider := overflow(page):
                        sys.stdout.write(f"{name} ({look}) is {wider} pixels wider than its window\n")


if __name__ == "__main__":
    main()
