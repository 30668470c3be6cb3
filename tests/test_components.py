import subprocess
import sys
import typing

import pytest

from tfmtr import components, declared
from tfmtr.recipe import ENCODERS, PARTS

FOLDERS = (*PARTS.values(), ENCODERS)
QUICK = """
import sys, tfmtr

tfmtr.Recipe(share=("ple", {"num_experts": 2}), head="esmm", balance="pcgrad", optimizer="sparse_adam")
tfmtr.Recipe(form="ranking", share="mmoe", encode=("cross", {"num_layers": 1}), per_pair=True)
for wrong in (
    {"share": "plee"},
    {"share": ("ple", {"num_expert": 2})},
    {"optimizer": ("adam", {"beta1": 0.5})},
    {"schedule": ("cosine_decay", {"steps": 5})},
    {"form": "ranking", "head": "in_batch_softmax"},
    {"per_pair": True, "share": "star"},
):
    try:
        tfmtr.Recipe(**wrong)
    except ValueError as error:
        print(error)
print({"keras", "tensorflow"} & set(sys.modules))
"""


def test_finds_every_file_by_its_name():
    for folder in ("sharing", "heads"):
        for name in components.names(folder):
            assert components.find(folder, name).__name__ == name


def test_an_unknown_name_lists_what_there_is_and_the_nearest():
    with pytest.raises(ValueError, match=r"`share` must be one of \[.*'none'.*Did you mean 'territory_branches'\?"):
        components.find("sharing", "teritory_branches")


def test_a_recipe_is_checked_without_keras():
    lines = subprocess.run(
        [sys.executable, "-c", QUICK], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert len(lines) == 7
    assert "Did you mean 'num_experts'?" in lines[1]
    assert "Did you mean 'beta_1'?" in lines[2]
    assert lines[6] == "set()"


@pytest.mark.parametrize(
    ("folder", "name"), [(folder, name) for folder in FOLDERS for name in components.names(folder)]
)
def test_what_a_file_says_is_what_its_function_takes(folder, name):
    """A file that cannot be read so is no mistake: then the function is asked, which takes seconds."""
    read, is_open = components._options_of(folder, name)
    asked, is_open_too = components._options_of(folder, components.find(folder, name))
    assert (list(read), is_open) == (list(asked), is_open_too)
    for option, parameter in read.items():
        kinds = [components._kind_of(one) for one in (parameter, asked[option])]
        assert (parameter.default, parameter.kind) == (asked[option].default, asked[option].kind)
        if object not in (kinds[0], *typing.get_args(kinds[0])):  # a type of Keras's
            assert kinds[0] == kinds[1]


@pytest.mark.parametrize(
    "source", ["", "mine = print", "def mine(x, *, a=OF_ITS_OWN): pass", "def mine(", "def mine(): 0\ndef mine(): 1"]
)
def test_a_file_that_says_it_in_another_way_is_not_read(source, tmp_path):
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(declared.UnreadableError):
        declared.parameters(declared.function_of(tmp_path / "mine.py", "mine"))


@pytest.mark.parametrize(
    ("folder", "path"),
    [
        ("retrieval.indexes", "builtins:len"),
        ("evaluation.list_metrics", "tfmtr.components:check_part"),
        ("heads", "tfmtr.components:lock"),
    ],
)
def test_a_function_that_takes_other_arguments_is_no_part(folder, path):
    with pytest.raises(ValueError, match=rf"must be a function like those of tfmtr/{folder.replace('.', '/')}\. Rec"):
        components.find(folder, path)
