import json

import pytest
from helpers.untraced import untraced

from studies.cells import RESULTS, read_cells
from studies.second_stages import study
from tfmtr import components, training


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("second")
    with untraced(), pytest.MonkeyPatch.context() as patch:  # of a few steps
        study.main(folder / "work", folder=folder, names=["share mmoe"], num_users=200)
        patch.setattr(training, "train", None)  # would fail if a cell were computed again
        study.main(folder / "work", folder=folder, names=["share mmoe"], num_users=200)
    return folder


def test_a_cell_goes_all_the_way_once(computed):
    (cell,) = read_cells(computed / RESULTS).values()
    assert cell["titles"] == study.K
    assert set(cell["seconds"]) == set(study.STEPS)
    assert cell["ndcg"]["first stage"] > 1.5 * cell["ndcg"]["recent"]  # it knows which title comes next
    assert cell["ndcg"]["model"] > 1.5 * cell["ndcg"]["recent"]
    page = (computed / "README.md").read_text()
    assert f"| share mmoe | click, purchase | {cell['seconds']['train']:.1f} |" in page


def test_there_is_a_cell_for_every_sharing_file_and_head_and_a_line_of_it():
    named = set(study.cells())
    assert {f"share {name}" for name in components.names("sharing")} <= named
    heads = {f"head {name}" for name in components.names("heads")} - {"head parallel", "head in_batch_softmax"}
    assert heads <= named
    lines = [json.loads(line) for line in (study.HERE / RESULTS).read_text().splitlines()]
    assert {line["cell"] for line in lines} == named
    assert all(line["titles"] == study.K for line in lines)


def test_what_an_evaluation_found_of_lists_becomes_a_line_and_a_row(computed):
    run = computed / "work/cells/share-mmoe/run"
    study.keep_lists("a log", run, computed)
    (line,) = read_cells(computed / study.LISTS).values()
    found = json.loads((run / "evaluation.json").read_text())
    compared = found["first_stage"]["compared"]
    assert line["over_first"]["ratio"] == round(compared["ours"] / compared["theirs"], 4)
    assert line["ndcg"]["first stage"] == round(found["means"]["new"]["first stage"]["ndcg"], 4)
    study.write_page(computed)
    assert f"| a log | {line['lists']:,} | {line['ndcg']['model']:.4f} |" in (computed / "README.md").read_text()
