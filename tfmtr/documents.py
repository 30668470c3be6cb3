"""JSON files that are there as a whole or not at all."""

import json
import os


def read_json(file):
    """A JSON document, or `None` where there is no such file."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def read_facts(version):
    """What `tfmtr.export` wrote about a version, from the version's directory; `None` for another tool's SavedModel."""
    return read_json(version / "assets.extra" / "tfmtr.json")


def write_json(file, document):
    """Writes a JSON document under a temporary name and renames it."""
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, file)
