"""Figures of the house: counted by hand in a small one, and no circle in this one."""

import subprocess

from benchmarks import house

FILES = {
    "README.md": "12 bytes....",
    "tfmtr/__init__.py": "import tfmtr.a\n",
    "tfmtr/a.py": "from tfmtr import b\n\n\nclass A:\n    def few(self, a, *, b, c, d, e, f, g):\n        pass\n",
    "tfmtr/b.py": "def many(a, b, c, d, e, f, g, h=1):\n    from tfmtr import a\n\n    return a\n",
    "tfmtr/c.py": "if TYPE_CHECKING:\n    from tfmtr.d import x\n",
    "tfmtr/d.py": "from tfmtr.c import y\n",
}


def make(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    subprocess.run("git init -q && git add tfmtr", shell=True, cwd=folder, check=True)


def test_a_house_s_figures_are_those_counted_by_hand(tmp_path):
    make(tmp_path, FILES)
    assert house.main(tmp_path) == {
        "README, bytes": 12,
        "tracked files": 5,
        "longest module": "tfmtr.a, 6 lines",
        "longest class": "tfmtr.a.A, 3 lines",
        "longest function": "tfmtr.b.many, 4 lines",
        "functions with more than 7 arguments": "tfmtr.b.many (8)",
        "circles of imports": "none",
    }


def test_modules_that_import_each_other_are_a_circle(tmp_path, capsys):
    make(
        tmp_path,
        FILES | {"tfmtr/b.py": "import tfmtr.d\n", "tfmtr/c.py": "try:\n    from tfmtr.a import A\nfinally:\n    1\n"},
    )
    house.main(tmp_path)
    assert "circles of imports: tfmtr.a, tfmtr.b, tfmtr.c, tfmtr.d\n" in capsys.readouterr().out


def test_this_house_has_no_circle():
    trees = {
        name: house.ast.parse(file.read_text(encoding="utf-8")) for name, file in house.modules(house.ROOT).items()
    }
    assert len(trees) > 300
    assert house.circles(trees) == []
