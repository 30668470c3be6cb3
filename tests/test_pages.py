"""The pages' worked examples run as they are printed."""

import contextlib
import functools
import importlib.metadata
import importlib.util
import inspect
import re
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from helpers.untraced import untraced
from typer.testing import CliRunner

import tfmtr.sharing
from tfmtr import cli, components, models
from tfmtr.balancing import Balancer, Problem
from tfmtr.evaluation.lists import Lists
from tfmtr.evaluation.ranking import metrics_of_users
from tfmtr.heads._head import Head
from tfmtr.models.side_inputs import call_share
from tfmtr.retrieval.catalogue import Catalogue
from tfmtr.schema import Feature, Scenario, Schema, Task

PAGE = Path(__file__).parents[1] / "docs" / "add-a-system.md"
HEAD_PAGE = PAGE.with_name("add-a-head.md")
FORMS = {"ranking": models.ranking, "two_tower": functools.partial(models.two_tower, units=(8, 4))}


def example_file(page, folder, tmp_path):
    """A page's code block as a file with the name that the page gives it."""
    text = page.read_text(encoding="utf-8")
    name = re.search(rf"`tfmtr/{folder}/(\w+\.py)`", text)[1]
    (block,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    file = tmp_path / name
    file.write_text(block, encoding="utf-8")
    return file


def test_the_page_s_recipe_fits_the_readme_s_data():
    """The simulator has one task, which follows no other."""
    text = PAGE.with_name("recipes.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^    form = .*?\n\n", text, re.MULTILINE | re.DOTALL)
    recipe = tfmtr.Recipe.from_toml(inspect.cleandoc(block))
    schema = Schema([Feature("age", "user", "number")], [Task("event")], Scenario(["territory"], {("DE",): "west"}))
    assert recipe.adapt(schema) == schema
    assert (recipe.head, recipe.balance) == ("parallel", None)


@pytest.fixture
def film_file(tmp_path):
    return example_file(PAGE, "sharing", tmp_path)


@pytest.fixture
def in_the_package(film_file, monkeypatch):
    """Puts the file's folder beside `tfmtr/sharing/`, as if it were in there."""
    monkeypatch.setattr(tfmtr.sharing, "__path__", [*tfmtr.sharing.__path__, str(film_file.parent)])
    yield
    sys.modules.pop(f"tfmtr.sharing.{film_file.stem}", None)


def load(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, file.stem)


def train(form, share):
    """A few steps on labels whose sign depends on the scenario; returns the model and the loss of each step."""
    schema = Schema(
        [Feature("taste", "user", "vector", width=4), Feature("movie", "title", "id", ["a", "b"])],
        [Task("click"), Task("like")],
        Scenario(["territory"], {("DE",): "west", ("PL",): "east"}),
    )
    rng = np.random.default_rng(0)
    x = {
        "taste": rng.normal(size=(64, 4)).astype("float32"),
        "movie": rng.integers(1, 3, 64).astype("int32"),
        "scenario": 1 + np.arange(64, dtype="int32") % 2,
    }
    labels = (x["taste"][:, 0] * np.where(x["scenario"] == 1, 1, -1) > 0).astype("float32")
    keras.utils.set_random_seed(0)
    model = FORMS[form](schema, share=share, unknown_rate=0.0)
    model.compile(keras.optimizers.Adam(0.03))
    return model, model.fit(x, {"click": labels, "like": labels}, epochs=8, verbose=0).history["loss"]


@pytest.mark.parametrize("form", FORMS)
def test_the_example_trains_when_its_function_is_passed(form, film_file):
    model, losses = train(form, load(film_file))
    assert losses[-1] < losses[0] - 0.05
    for name in ("scale", "shift"):  # they start at zero
        assert np.asarray(model.get_layer(name).embeddings).any()


def test_the_example_is_found_by_its_file_name(film_file, in_the_package):
    assert film_file.stem in components.names("sharing")
    model, _ = train("ranking", film_file.stem)
    assert model.get_layer("scale").embeddings.shape[0] == 2


def test_without_the_file_its_name_is_unknown(film_file):
    name = f"{film_file.stem}_of_nobody"  # who follows the page has the page's own
    with pytest.raises(ValueError, match=f"`share` must be one of .*Received: share='{name}'"):
        components.find("sharing", name)


def test_the_page_names_every_side_input():
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(set(re.findall(r'sides\["(\w+)"\]', inspect.getsource(call_share))))


def block(text, name):
    return text.partition(f"<!-- table: {name} -->\n")[2].partition(f"<!-- end of table: {name} -->\n")[0]


def test_the_tables_are_what_the_command_writes_and_miss_nothing_that_was_measured():
    from docs import tables as page_tables

    root, command = PAGE.parents[1], "run `python docs/tables.py`"
    for page, tables in page_tables.PAGES.items():
        there = (root / page).read_text(encoding="utf-8")
        made = page_tables.written(page, there)
        for table in tables:
            if table not in page_tables.tables():
                assert block(made, table) == block(there, table), command
                continue
            rows, anew = (page_tables.rows(block(text, table)) for text in (there, made))
            assert len(rows) >= 5
            for name, row in rows.items():  # a file that somebody has just added has no row yet
                assert anew.get(name) == row, command
            assert page_tables.measured(table) - set(rows) == set(), command


def test_links_of_the_pages_lead_to_files():
    root, missing = PAGE.parents[1], []
    pages = [root / "README.md", *root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("studies/*/*.md")]
    for page in pages:
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in link and not (page.parent / link).exists():
                missing.append((page.name, link))
    assert missing == []


def test_figures_are_made_anew_words_stay_and_a_new_file_gets_a_row(tmp_path, monkeypatch):
    from docs import tables as page_tables

    (tmp_path / "tfmtr/sharing").mkdir(parents=True)
    (tmp_path / "tests/sharing").mkdir(parents=True)
    (tmp_path / "tests/sharing/test_new.py").touch()
    paper = "Reference: Ma et al., A, Title, KDD 2018, https://x.y, section 3."
    for name in ("old", "new"):
        file = tmp_path / f"tfmtr/sharing/{name}.py"
        file.write_text(f'"""What {name} does."""\n\n\ndef {name}(x):\n    """Does it.\n\n    {paper}\n    """\n')
    monkeypatch.setattr(page_tables, "ROOT", tmp_path)
    columns = {
        "paper": page_tables.paper("sharing"),
        "speed": page_tables.figure({"old": 0.456}),
        "lines": lambda name, _: str(len(page_tables.source("sharing", name).splitlines())),
        "oracle": lambda name, cell: page_tables.oracle(name) or cell,
    }
    before = """| file | system | paper | speed | lines | oracle |
| --- | --- | --- | --- | --- | --- |
| [old](../tfmtr/sharing/old.py) | typed words | Mu et al., KDD 2017, 3 | 9.99 | 1 | [test](tests/x.py) |
| [gone](../tfmtr/sharing/gone.py) | typed words | | 9.99 | 1 | |
"""
    assert page_tables.rewrite(before, "sharing", columns).split("\n")[2:] == [
        "| [old](../tfmtr/sharing/old.py) | typed words | Ma et al., KDD 2018, 3 | 0.46 | 8 | [test](tests/x.py) |",
        "| [new](../tfmtr/sharing/new.py) | what new does | Ma et al., KDD 2018 | n/a | 8 "
        "| [test](../tests/sharing/test_new.py) |",
        "",
    ]
    with pytest.raises(ValueError, match="must have each of '<!-- table: systems -->' and"):
        page_tables.replace("no table", "systems", str)


def test_the_study_s_page_has_the_table_of_the_summary():
    root = PAGE.parents[1]
    table = block((root / "docs/studies.md").read_text(encoding="utf-8"), "m3oe").strip()
    assert table in (root / "studies/m3oe/README.md").read_text(encoding="utf-8")


def test_the_example_of_a_head_keeps_the_contract_and_follows_its_equation(tmp_path, monkeypatch):
    from helpers.head_oracles import LABELS, LOGITS, cross_entropy, losses

    import tfmtr.heads
    from studies.combinations import study as combinations

    file = example_file(HEAD_PAGE, "heads", tmp_path)
    monkeypatch.setattr(tfmtr.heads, "__path__", [*tfmtr.heads.__path__, str(file.parent)])
    try:
        for form in FORMS:
            model = combinations.build("focal", "ple", form)
            combinations.check_step(model, combinations.labels(combinations.tasks_of("focal")))
            combinations.check_export(model, tmp_path / form)
    finally:
        sys.modules.pop("tfmtr.heads.focal", None)
        combinations.tasks_of.cache_clear()
    focal = load(file)
    p, y = 1 / (1 + np.exp(-np.asarray(LOGITS["click"]))), np.asarray(LABELS["click"])
    expected = np.mean(np.abs(y - p) ** 2 * cross_entropy(p, y))
    assert losses(focal([Task("click")]), LOGITS, LABELS)["click"] == pytest.approx(expected, rel=1e-5)
    assert losses(focal([Task("click")]), LOGITS, {"click": [float("nan")] * 4}) == {"click": 0.0}
    with pytest.raises(ValueError, match="is for binary tasks"):
        focal([Task("seconds", kind="regression")])


def test_the_example_of_a_way_to_debias_follows_its_equation_and_is_found(tmp_path):
    from helpers.head_oracles import LABELS, LOGITS, cross_entropy, losses

    from tfmtr.heads.parallel import parallel

    file, tasks = example_file(PAGE.with_name("add-a-debiasing-method.md"), "debiasing", tmp_path), [Task("click")]
    residual = load(file)
    term = np.log([1.0, 0.5, 0.1, 0.2]).astype("float32")
    p, context = 1 / (1 + np.exp(-(np.asarray(LOGITS["click"]) + term))), {"training": {"log_popularity": term}}
    expected = cross_entropy(p, LABELS["click"]).mean()
    found = losses(residual(tasks, parallel(tasks)), LOGITS, LABELS, **context)
    assert found["click"] == pytest.approx(expected, rel=1e-5)
    with beside("tfmtr.debiasing", file):
        assert "residual" in components.names("debiasing")
    with pytest.raises(ValueError, match="`power` must be"):
        residual(tasks, parallel(tasks), power=-1)


def test_the_page_names_every_field_of_a_head():
    fields = re.findall(r"^\| `(\w+)` \|", HEAD_PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(fields) == set(Head._fields) - {"outputs", "losses", "is_two_tower_only"}


def test_the_example_of_a_balancer_follows_its_equation_and_steps(tmp_path):
    from studies.combinations import study as combinations

    file = example_file(PAGE.with_name("add-a-balancer.md"), "balancing", tmp_path)
    gradients = np.array([[3.0, 4.0], [0.0, 1.0], [0.0, 0.0]], "float32")  # of lengths 5, 1 and 0
    for power, expected in ((1.0, [3 / 5, 3.0, 0.0]), (0.5, [(3 / 5) ** 0.5, 3**0.5, 0.0]), (0.0, [1.0, 1.0, 0.0])):
        balancer = load(file)(Problem(["a", "b", "c"]), power=power)
        shared, own, updates = balancer.coefficients(gradients @ gradients.T, np.ones(3, "float32"), {})
        np.testing.assert_allclose(shared, expected, rtol=1e-6)
        np.testing.assert_array_equal(own, np.ones(3))
        assert updates == {}
    with pytest.raises(ValueError, match="balances two or more losses"):
        load(file)(Problem(["a"]))
    with pytest.raises(ValueError, match=r"`power` must be in \[0, 1\]"):
        load(file)(Problem(["a", "b"]), power=2.0)
    with beside("tfmtr.balancing", file):
        assert "even" in components.names("balancing")
        model = combinations.build("parallel", "mmoe", "ranking")
        model.compile(keras.optimizers.SGD(0.1), balance="even")
        x = {name: value for name, value in combinations.rows(60).items() if name in model.input}
        labels = np.random.default_rng(0).integers(0, 2, (2, 60)).astype("float32")
        y = dict(zip(("click", "purchase"), labels, strict=True))
        with untraced():
            losses = model.fit(x, y, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_the_page_names_every_field_of_a_balancer():
    text = PAGE.with_name("add-a-balancer.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(Balancer._fields)


@contextlib.contextmanager
def beside(package, file):
    """Puts a file's folder beside a package's own, as if the file were in there."""
    folder = importlib.import_module(package)
    before = list(folder.__path__)
    folder.__path__ = [*before, str(file.parent)]
    try:
        yield
    finally:
        folder.__path__ = before
        sys.modules.pop(f"{package}.{file.stem}", None)


def test_the_example_of_a_metric_is_found_and_counts(tmp_path):
    file = example_file(PAGE.with_name("add-a-metric.md"), "evaluation/list_metrics", tmp_path)
    rng = np.random.default_rng(0)
    lists = Lists([[3, 7], [5, -1], [1, 2]], ["DE"] * 3, [0, 0, 1, 2, 2], [3, 7, 8, 2, 4], num_titles=9)
    with beside("tfmtr.evaluation.list_metrics", file):
        assert "precision" in components.names("evaluation.list_metrics")
        np.testing.assert_array_equal(components.find("evaluation.list_metrics", "precision")(lists), [1.0, 0.0, 0.5])
        users, titles = np.nonzero(rng.random((20, 30)) < 0.1)
        many = Lists(np.argsort(rng.random((20, 30)))[:, :10], ["DE"] * 20, users, titles, num_titles=30)
        assert "precision" in metrics_of_users(many)


def test_the_example_of_an_encoder_follows_its_equation_and_trains(tmp_path):
    file = example_file(PAGE.with_name("add-an-encoder.md"), "encoders/interactions", tmp_path)
    schema = Schema(
        [Feature("user", "user", "id", ["a", "b"]), Feature("movie", "title", "id", ["m", "n"])],
        [Task("click")],
        Scenario(["territory"], {("DE",): "west"}),
    )
    with beside("tfmtr.encoders.interactions", file):
        recipe = tfmtr.Recipe(form="ranking", share="none", encode=("senet", {"reduction": 2}), learning_rate=0.05)
        with pytest.raises(ValueError, match=r"Did you mean 'reduction'\?"):
            tfmtr.Recipe(form="ranking", encode=("senet", {"reductions": 2}))
        model = recipe.build(schema)
        rng = np.random.default_rng(0)
        x = {name: rng.integers(1, 3, 64).astype("int32") for name in ("user", "movie")}
        x["scenario"] = np.ones(64, "int32")
        y, start = {"click": (x["user"] == 1).astype("float32")}, model.get_layer("senet_excite").get_weights()[0]
        losses = model.fit(x, y, epochs=20, verbose=0).history["loss"]
        assert losses[-1] < 0.5 * losses[0]
        assert (model.get_layer("senet_excite").get_weights()[0] != start).any()
    fields = {name: rng.normal(size=(2, 3)).astype("float32") for name in ("user", "movie")}
    keras.utils.set_random_seed(0)
    inputs = {name: keras.Input((3,)) for name in fields}
    found = keras.Model(inputs, load(file)(keras.layers.concatenate(list(inputs.values())), inputs))
    squeeze, excite = (found.get_layer(f"senet_{name}").get_weights() for name in ("squeeze", "excite"))
    z = np.stack([field.mean(axis=1) for field in fields.values()], axis=1)
    a = np.maximum(np.maximum(z @ squeeze[0] + squeeze[1], 0) @ excite[0] + excite[1], 0)
    expected = np.concatenate([*fields.values(), *(a[:, [i]] * e for i, e in enumerate(fields.values()))], axis=1)
    np.testing.assert_allclose(found.predict(fields, verbose=0), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="needs a categorical feature and a positive `reduction`"):
        load(file)(keras.Input((3,)), {})


def test_the_example_of_an_index_finds_what_numpy_finds(tmp_path):
    file = example_file(PAGE.with_name("add-an-index.md"), "retrieval/indexes", tmp_path)
    rng = np.random.default_rng(0)
    titles, vectors = [f"t{i}" for i in range(50)], rng.normal(size=(50, 4)).astype("float32")
    catalogue = Catalogue(titles, {"DE": np.ones(50, bool)})
    query, allowed = rng.normal(size=(3, 4)).astype("float32"), rng.random((3, 50)) < 0.7
    with beside("tfmtr.retrieval.indexes", file):
        index = components.find("retrieval.indexes", "half")(catalogue, vectors)
    found = index(query, np.asarray([5, 3, 5], "int32"), allowed)
    scores = np.where(allowed, query @ vectors.astype("float16").astype("float32").T, -np.inf)
    np.testing.assert_array_equal(found["index"], np.argsort(-scores)[:, :5])
    np.testing.assert_array_equal(np.isfinite(found["scores"]), [[True] * 5, [True] * 3 + [False] * 2, [True] * 5])
    assert not np.asarray(found["is_exact"]).any()
    np.testing.assert_allclose(index.vectors_of(found["index"][:, :1])[:, 0], vectors[found["index"][:, 0]], atol=1e-2)
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.with_name("add-an-index.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(rows) == set(found)


def test_the_example_of_a_data_set_is_a_command(tmp_path):
    file = example_file(PAGE.with_name("add-a-data-set.md"), "datasets/public", tmp_path)
    rng = np.random.default_rng(0)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 60 * 24, 3000), unit="h")
    loans = pd.DataFrame({"reader": rng.integers(0, 200, 3000), "book": rng.integers(0, 40, 3000), "lent": days})
    loans["branch"] = np.where(loans.reader % 2, "north", "south")
    loans.to_csv(tmp_path / "loans.csv", index=False)
    words = ["prepare", "library", "--source", str(tmp_path / "loans.csv"), "--since", "2024-01-11"]
    with beside("tfmtr.datasets.public", file):
        result = CliRunner().invoke(cli.app, [*words, "--num-groups", "2", "--out", str(tmp_path / "data")])
        assert result.exit_code == 0, result.exception
        assert "A library's loans" in CliRunner().invoke(cli.app, ["prepare", "library", "--help"]).stdout
        with pytest.raises(ValueError, match="`since` must be a day with loans after it"):
            components.find("datasets.public", "library")(tmp_path / "loans.csv", tmp_path, since="2030-01-01")
    data = tfmtr.Dataset(tmp_path / "data")
    assert sorted(data.schema.scenario.groups) == [("north",), ("south",)]
    assert data.report["logs"]["columns"]["territory"] == "branch"


def test_the_readme_leads_to_every_page_and_is_short():
    text = (PAGE.parents[1] / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGE.parent.glob("*.md") if f"(docs/{page.name})" not in text] == []
    assert len(text.encode()) <= 8_192
    for folder, words in (
        ("sharing", "systems share"),
        ("heads", "heads make"),
        ("balancing", "balancers make"),
        ("debiasing", "methods debias"),
    ):
        files = list((PAGE.parents[1] / "tfmtr" / folder).glob("[!_]*.py"))
        assert f"{len(files)} {words}" in text


def test_the_version_is_the_same_wherever_it_stands():
    root = PAGE.parents[1]
    assert f"\nversion: {tfmtr.__version__}\n" in (root / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {tfmtr.__version__}" in (root / "CHANGELOG.md").read_text(encoding="utf-8")
    assert tfmtr.__version__ == importlib.metadata.version("tfmtr")
