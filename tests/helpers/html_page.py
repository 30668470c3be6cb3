"""A page as its reader's browser finds it, for tests."""

import html.parser


class Page(html.parser.HTMLParser):
    """What a page has, as its reader's browser finds it.

    Attributes:
        tables: `{id: {"headers": [text], "rows": [[(text, data-value or None)]], "sorts": [aria-sort], "attributes"}}`,
            rows of body and foot.
        elements: `(tag, attributes)` of every element.
        text: All text that is shown.
        scripts: Text of every script element.
    """

    def __init__(self, text):
        super().__init__()
        self.tables, self.elements, self.text, self.scripts = {}, [], "", []
        self.table = self.cell = None
        self.part, self.hidden = None, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if tag in ("script", "style"):
            self.hidden = tag
            if tag == "script":
                self.scripts.append("")
        if tag == "table":
            self.table = {"headers": [], "rows": [], "sorts": [], "buttons": 0, "attributes": attributes}
            self.tables[attributes["id"]] = self.table
        if self.table is None:
            return
        if tag in ("thead", "tbody", "tfoot"):
            self.part = tag
        if tag == "tr" and self.part != "thead":
            self.table["rows"].append([])
        if tag == "button":
            self.table["buttons"] += 1
        if tag in ("th", "td"):
            self.cell = ["", attributes.get("data-value")]
            if self.part == "thead":
                self.table["sorts"].append(attributes.get("aria-sort"))

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self.hidden = None
        if tag in ("th", "td") and self.cell is not None:
            text, value = " ".join(self.cell[0].split()), self.cell[1]
            if self.part == "thead":
                self.table["headers"].append(text)
            else:
                self.table["rows"][-1].append((text, None if value is None else float(value)))
            self.cell = None
        if tag == "table":
            self.table = None

    def handle_data(self, data):
        if self.hidden == "script":
            self.scripts[-1] += data
        if self.hidden:
            return
        self.text += data
        if self.cell is not None:
            self.cell[0] += data

    def column(self, table, header):
        """`{row header: data-value}` of one column."""
        place = self.tables[table]["headers"].index(header)
        return {row[0][0]: row[place][1] for row in self.tables[table]["rows"]}

    def all(self, tag):
        """Attributes of every element of a tag."""
        return [attributes for name, attributes in self.elements if name == tag]
