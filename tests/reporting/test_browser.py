"""The page in a browser: its tables sort, and it fits a phone."""

import shutil
import subprocess

import numpy as np
import pytest
from helpers.html_page import Page
from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
SORT = """
const click = (table, column) =>
  document.querySelector(`#${table} thead th:nth-child(${column}) button`).click();
click("table-2-1", 3);  // training positives
click("table-2-1", 3);
click("table-2-1", 8);  // average
click("table-2-1", 8);
click("table-2-2", 3);  // training positives
click("table-3", 1);  // title
const root = document.documentElement;
document.body.dataset.overflow = root.scrollWidth - root.clientWidth;
"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")


def browse(file, folder, *arguments):
    """What Chromium prints about a file, with an empty profile and the window of a phone."""
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--window-size=390,900", *arguments]
    result = subprocess.run(
        [*command, file.as_uri()], stdin=subprocess.DEVNULL, capture_output=True, timeout=180, check=True
    )
    return result.stdout.decode()


def test_tables_sort_and_the_page_fits_a_phone(file, tmp_path):
    text = file.read_text(encoding="utf-8")
    changed = tmp_path / "page.html"
    changed.write_text(text.replace("</body>", f"<script>{SORT}</script></body>"), encoding="utf-8")
    before, after = Page(text), Page(browse(changed, tmp_path, "--dump-dom"))

    def order(page, table):
        return [row[0][0] for row in page.tables[table]["rows"]]

    averages = before.column("table-2-1", "average")
    territories = [name for name in averages if name != "overall"]
    lowest_first = sorted(territories, key=averages.get)
    assert order(before, "table-2-1") == [*lowest_first[::-1], "overall"]
    assert order(after, "table-2-1") == [*lowest_first, "overall"]  # the foot stays below
    assert order(after, "table-2-2") == ["am-00", "eu-01", "af-02", "as-03", "overall"]
    titles = order(after, "table-3")
    assert titles != order(before, "table-3")
    assert [title for title in titles if title.startswith("Title ")] == [
        f"Title {number}" for number in sorted(int(title[6:]) for title in titles if title.startswith("Title "))
    ]
    sorts = {name: [sort for sort in table["sorts"] if sort != "none"] for name, table in after.tables.items()}
    assert {name: of for name, of in sorts.items() if of} == {
        "table-2-1": ["ascending"], "table-2-2": ["descending"], "table-3": ["ascending"]
    }  # fmt: skip
    (body,) = after.all("body")
    assert body["data-overflow"] == "0"  # wide tables scroll inside their own boxes


def test_the_page_is_painted(file, tmp_path):
    browse(file, tmp_path, f"--screenshot={tmp_path / 'page.png'}")
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB"))
    assert pixels.shape == (900, 390, 3)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50  # text, links and a chart, and not one colour
