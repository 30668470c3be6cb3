import pytest

from tfmtr import components


def test_finds_every_file_by_its_name():
    for folder in ("sharing", "heads"):
        for name in components.names(folder):
            assert components.find(folder, name).__name__ == name


def test_an_unknown_name_lists_what_there_is_and_the_nearest():
    with pytest.raises(ValueError, match=r"`share` must be one of \[.*'none'.*Did you mean 'territory_branches'\?"):
        components.find("sharing", "teritory_branches")
