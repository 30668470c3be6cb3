import pytest

from tfmtr import components


def test_finds_every_file_by_its_name():
    for folder in ("sharing", "heads"):
        for name in components.names(folder):
            assert components.find(folder, name).__name__ == name


def test_an_unknown_name_lists_what_there_is_and_the_nearest():
    with pytest.raises(ValueError, match=r"`share` must be one of \[.*'none'.*Did you mean 'territory_branches'\?"):
        components.find("sharing", "teritory_branches")


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
