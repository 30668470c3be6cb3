import json
import shutil

import keras
import numpy as np
import pytest
from helpers.few_signatures import keep_signatures

from tfmtr import calibration, inputs, training
from tfmtr.calibration import Calibrate, Map, apply, choose, errors, fit, fit_map, log_odds
from tfmtr.datasets.dataset import Dataset
from tfmtr.evaluation.evaluate import predict
from tfmtr.evaluation.metrics import expected_calibration_error
from tfmtr.exporting import export
from tfmtr.run import Run
from tfmtr.schema import Schema

tf = pytest.importorskip("tensorflow")
RNG = np.random.default_rng(0)
nan = float("nan")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def draw(rows, scale, offset):
    """Probabilities and labels whose true log-odds are `scale logit(p) + offset`."""
    p = sigmoid(RNG.normal(-1, 1.5, rows))
    return p, (RNG.random(rows) < sigmoid(scale * log_odds(p) + offset)).astype(float)


def test_platt_finds_the_slope_and_the_offset():
    p, labels = draw(200_000, 0.6, -0.8)
    np.testing.assert_allclose(fit_map(p, labels, "platt").values, (0.6, -0.8), atol=0.03)
    np.testing.assert_allclose(Map("platt", (0.6, -0.8))(np.asarray([0.3])), sigmoid(0.6 * np.log(3 / 7) - 0.8))


def test_isotonic_pools_adjacent_violators():
    p, labels = np.asarray([0.1, 0.2, 0.3, 0.4, 0.5]), np.asarray([0.0, 1.0, 0.0, 1.0, 1.0])
    found = fit_map(p, labels, "isotonic")
    np.testing.assert_allclose(found(p), [0.0, 0.5, 0.5, 1.0, 1.0])
    np.testing.assert_allclose(found(np.asarray([0.0, 0.15, 0.9])), [0.0, 0.25, 1.0])


def test_a_long_isotonic_map_is_thinned_and_stays_right():
    p, labels = draw(300_000, 1.3, 0.5)
    found = fit_map(p, labels, "isotonic")
    assert len(found.knots) <= 64
    assert np.all(np.diff(found.values) >= 0)
    grid = np.asarray([0.05, 0.2, 0.5, 0.8])
    np.testing.assert_allclose(found(grid), sigmoid(1.3 * log_odds(grid) + 0.5), atol=0.02)


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_every_group_and_task_has_a_map_of_its_own_and_small_groups_that_of_all(method):
    rows = 20_000
    groups = np.repeat(["DE", "PL"], rows // 2)
    parts = [draw(rows // 2, 1.0, 1.0), draw(rows // 2, 1.0, -1.0)]
    p, labels = (np.concatenate(side) for side in zip(*parts, strict=True))
    groups[:20] = "LI"
    unknown = labels.copy()
    unknown[::2] = nan
    scores = {"click": p, "like": p}
    maps = fit(scores, {"click": labels, "like": unknown}, groups, method=method)
    assert set(maps["click"]) == set(maps["like"]) == {"", "DE", "PL"}
    before = errors(labels, p, p, groups)
    after = errors(labels, p, apply(maps, scores, groups)["click"], groups)
    for group in ("DE", "PL"):
        assert before[group]["before"] > 0.1
        assert after[group]["after"] < 0.02
    pooled = apply(maps, {"click": p[:20]}, groups[:20])["click"]
    np.testing.assert_allclose(pooled, maps["click"][""](p[:20]))


def test_a_map_of_one_knot_is_constant_in_the_graph_too():
    one = fit_map(np.full(10, 0.3), np.asarray([0.0] * 8 + [1.0] * 2), "isotonic")
    found = Calibrate([one])(np.asarray([[0.1], [0.3], [0.9]], "float32"), np.zeros(3, "int32"))
    np.testing.assert_allclose(found, np.full((3, 1), 0.2), atol=1e-6)


def test_the_order_is_never_turned_around():
    p = np.linspace(0.1, 0.9, 1000)
    labels = (p < 0.5).astype(float)
    assert fit_map(p, labels, "platt") is None
    maps = fit({"click": p}, {"click": labels}, np.full(1000, "DE"))
    np.testing.assert_allclose(apply(maps, {"click": p}, np.full(1000, "DE"))["click"], p, rtol=1e-5)
    constant = fit({"click": p}, {"click": np.zeros(1000)}, np.full(1000, "DE"), method="isotonic")
    np.testing.assert_allclose(constant["click"][""](p), p)


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_the_graph_computes_the_same_and_is_saved(method, tmp_path):
    maps = [fit_map(*draw(3000, scale, offset), method) for scale, offset in ((1.0, 0.5), (0.5, -1.0), (2.0, 0.0))]
    p, group = keras.Input((1,)), keras.Input((), dtype="int32")
    model = keras.Model([p, group], Calibrate(maps)(p, group))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x = np.concatenate([[0.0, 1.0, 1e-9], RNG.random(60), np.asarray(maps[0].knots)[:5]]).astype("float32")
    for i, one in enumerate(maps):
        expected = one(x.astype(float))
        for graph in (model, again):
            found = graph.predict([x[:, None], np.full(len(x), i)], verbose=0)[:, 0]
            np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("calibration") / "run"
    recipe = training.Recipe(
        units=(16, 8), epochs=4, batch_size=250, learning_rate=0.03, deterministic=False, listwise=False
    )
    training.train(tiny, path, recipe, verbose=0)
    return path


def served(run, tiny, folder):
    data = Dataset(tiny)
    table = next(inputs.read_tables(data.examples("test", windows=[3]), rows=200))
    raw = {name: tf.constant(table[name].to_pylist()) for name in ("territory", "language")}
    raw["age"] = tf.constant(table["age"].to_pylist(), tf.float32)
    genres = [[*row, "", ""][:2] for row in table["genres"].to_pylist()]
    stores = inputs.open_stores(data)
    features = inputs.model_inputs(table, data.schema, stores)
    raw |= {name: tf.constant(features[name]) for name in ("user_vector", "title_vector")}
    raw["genres"] = tf.constant(genres)
    with pytest.MonkeyPatch.context() as patch:
        keep_signatures(patch, "serving_default")
        loaded = tf.saved_model.load(export(run, folder, titles=tiny))  # must outlive its functions
    return np.asarray(loaded.signatures["serving_default"](**raw)["event"])[:, 0], table


@pytest.fixture(scope="module")
def plain(run, tiny, tmp_path_factory):
    """What is served without a calibration, and the rows."""
    assert not (run / "calibration.json").exists()
    return served(run, tiny, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(("by", "method"), [("territory", "platt"), ("scenario", "isotonic")])
def test_a_run_is_calibrated_on_validation_rows_and_served_so(run, tiny, tmp_path, plain, by, method):
    plain, table = plain
    file = run / "calibration.json"
    document = calibration.calibrate(run, tiny, by=by, method=method).document
    assert json.loads(file.read_text()) == json.loads(json.dumps(document))
    cell = document["error"]["event"][""]
    assert cell["rows"] == 1000
    calibrated, _ = served(run, tiny, tmp_path / "calibrated")
    file.unlink()
    assert np.abs(calibrated - plain).max() > 0.01
    territories = table["territory"].to_pylist()
    schema = Schema.load(run)
    groups = territories if by == "territory" else [schema.scenario.groups.get((t,), "") for t in territories]
    maps = {"event": {name: Map(**one) for name, one in document["maps"]["event"].items()}}
    expected = apply(maps, {"event": plain}, np.asarray(groups))["event"]
    np.testing.assert_allclose(calibrated, expected, atol=1e-5)


def test_rows_know_the_name_of_their_scenario(run, tiny):
    data, schema = Dataset(tiny), Schema.load(run)
    values, _, _ = predict(Run(run).load(), data.examples("validation"), schema, data, columns=["scenario"])
    expected = [schema.scenario.groups.get((territory,), "") for territory in values["territory"]]
    assert values["scenario"].tolist() == expected
    assert len(set(expected)) == 3


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_a_group_keeps_its_map_only_if_its_error_falls_on_users_that_the_map_has_not_seen(method):
    """One group says too much, one is right already, one has few rows, one has them all in one half of the users."""
    rng, sizes = np.random.default_rng(3), {"wrong": 4000, "right": 4000, "small": 12, "half": 200}
    group = np.repeat(list(sizes), list(sizes.values()))
    p = sigmoid(rng.normal(-1, 1, len(group))).astype("float32")
    label = (rng.random(len(group)) < np.where(group == "wrong", p / 3, p)).astype(float)
    half = rng.integers(0, 2, len(group))
    half[group == "half"] = 1
    label[group == "small"] = [1] + [0] * 11
    maps, error, unknown = choose(p, label, group, half, method=method)
    assert maps["wrong"].method == method
    assert error["wrong"]["map"] == "own"
    assert error["wrong"]["after"] == error["wrong"]["tried"] < 0.3 * error["wrong"]["before"]
    in_sample = expected_calibration_error(label[group == "wrong"], maps["wrong"](p[group == "wrong"]))
    assert error["wrong"]["after"] != pytest.approx(in_sample, rel=1e-3)
    # The map of all rows, most of which are right or wrong by a factor of 3, and the fit to one half, are no help here.
    known = label[group == "right"], p[group == "right"]
    assert error["right"]["before"] == expected_calibration_error(*known)
    if error["right"]["map"] == "identity":
        assert error["right"]["tried"] >= error["right"]["before"]
    assert (error["half"]["map"], error["half"]["tried"]) == ("identity", None)
    assert error["half"]["why"] == "one half of the users has no positives and no negatives"
    for name, cell in error.items():
        assert cell["after"] <= cell["before"]
        if cell.get("map") == "identity":
            assert cell["after"] == cell["before"]
            assert cell["why"]
            np.testing.assert_array_equal(maps.get(name, maps[""])(p), p)
    assert error["small"]["map"] != "own"
    assert unknown["rows"] == 12  # groups that nobody is of are judged by those without a map of their own
    assert (unknown["map"] == "identity") == (maps[""].method == "identity")


def test_noise_is_not_fitted_and_without_positives_nothing_is():
    """On its own users the map is better than none, on others worse."""
    rng = np.random.default_rng(0)
    p, half, group = rng.uniform(0.05, 0.95, 150), np.arange(150) % 2, np.full(150, "DE")
    label = (rng.random(150) < p).astype(float)
    maps, error, unknown = choose(p, label, group, half, method="isotonic")
    assert expected_calibration_error(label, fit_map(p, label, "isotonic")(p)) < error["DE"]["before"]
    assert error["DE"]["tried"] > error["DE"]["before"]
    assert error["DE"]["why"] == f"error would be {error['DE']['tried']:.4f}"
    assert maps == {"": Map("identity")}
    assert unknown["map"] == "identity"
    label[half == 0] = 0  # of one half none is positive
    label[half == 1] = (rng.random(75) < 0.5).astype(float)
    for method in ("platt", "isotonic"):
        maps, error, unknown = choose(p, label, group, half, method=method)
        assert maps == {"": Map("identity")}
        assert error["DE"]["why"] == unknown["why"] == "one half of the users has no positives"
    maps, error, unknown = choose(p, np.full(150, nan), group, half)
    assert (maps, error, unknown["why"]) == ({"": Map("identity")}, {}, "no labelled row")


def test_small_groups_and_unknown_ones_have_the_map_of_all_only_where_it_helps_them():
    rng, names = np.random.default_rng(1), ("big", "alike", "other")
    group = np.repeat(names, (4000, 300, 30))
    p = sigmoid(rng.normal(-1, 1, len(group)))
    label = (rng.random(len(group)) < np.where(group == "other", np.minimum(2 * p, 1), p / 3)).astype(float)
    maps, error, unknown = choose(p, label, group, np.arange(len(group)) % 2, min_count=100)
    assert [error[name]["map"] for name in names] == ["own", "of all", "identity"]
    assert error["other"]["tried"] > error["other"]["before"] == error["other"]["after"]
    assert unknown["rows"] == 330
    served = apply({"click": maps}, {"click": p}, group)["click"]
    np.testing.assert_array_equal(served[group == "other"], p[group == "other"])
    assert np.abs(served - p)[group == "alike"].max() > 0.1
    # Rows of no scenario are served as unknown ones, and are no group of their own.
    group[group == "alike"] = ""
    maps, same, again = choose(p, label, group, np.arange(len(group)) % 2, min_count=100)
    assert (set(same), again) == ({"", "big", "other"}, unknown)
    assert unknown["map"] == "of all"
    assert same[""]["after"] == error[""]["after"]
    group[group == "big"] = ""
    _, _, again = choose(p, label, group, np.arange(len(group)) % 2, min_count=100)
    assert again["rows"] == len(p)


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_the_identity_is_exact_in_the_graph_beside_other_maps(method, tmp_path):
    maps = [Map("identity"), fit_map(*draw(3000, 0.5, -1.0), method)]
    p, group = keras.Input((1,)), keras.Input((), dtype="int32")
    model = keras.Model([p, group], Calibrate(maps)(p, group))
    model.save(tmp_path / "model.keras")
    x = np.concatenate([[0.0, 1.0, 1e-9, 1 - 2.0**-24], RNG.random(60)]).astype("float32")[:, None]
    for graph in (model, keras.saving.load_model(tmp_path / "model.keras")):
        np.testing.assert_array_equal(graph.predict([x, np.zeros(len(x))], verbose=0), x)
        found = graph.predict([x, np.ones(len(x))], verbose=0)
        np.testing.assert_allclose(found, maps[1](x.astype(float)), atol=2e-5)
    np.testing.assert_array_equal(Calibrate([Map("identity")])(x, np.zeros(len(x), "int32")), x)


def test_scores_that_are_no_numbers_are_refused(run, tiny, monkeypatch):
    p = np.asarray([0.2, nan, np.inf])
    with pytest.raises(ValueError, match=r"task `click` must be finite.* Received: 2 of 3 that are not, such as nan"):
        fit({"click": p}, {"click": np.asarray([0.0, 1.0, 1.0])}, np.full(3, "DE"))

    def diverged(*arguments, columns):
        values, users, positives = predict(*arguments, columns=columns)
        return {**values, "event score": np.full_like(values["event score"], nan)}, users, positives

    monkeypatch.setattr("tfmtr.calibration.calibrating.predict", diverged)
    with pytest.raises(ValueError, match=r"task `event` must be finite to be calibrated; train the model again"):
        calibration.calibrate(run, tiny)
    assert not (run / "calibration.json").exists()
    with pytest.raises(ValueError, match=r"`min_count` must be positive.* Received: min_count=0"):
        calibration.calibrate(run, tiny, min_count=0)


def test_the_probability_of_one_task_given_another_is_the_ratio_of_the_calibrated_ones(tmp_path, monkeypatch):
    monkeypatch.setattr("tfmtr.calibration.graph.last_window", lambda run: 3)
    maps = {
        "click": {"": {"method": "platt", "values": (1.0, 1.0)}},
        "buy": {"": {"method": "platt", "values": (1.0, -1.0)}},
    }
    document = {"by": "territory", "window": 3, "maps": maps}
    (tmp_path / "calibration.json").write_text(json.dumps(document))
    raw = {"territory": tf.constant(["DE", "DE"])}
    p = {"click": [[0.4], [0.0]], "buy|click": [[0.45], [0.5]], "buy": [[0.2], [0.9]]}
    outputs = {name: tf.constant(value) for name, value in p.items()}
    found = calibration.calibrated_outputs(tmp_path, outputs, raw, {}, None)  # as earlier versions wrote it
    click, buy = sigmoid(log_odds(0.4) + 1), sigmoid(log_odds(0.2) - 1)
    np.testing.assert_allclose(found["click"][0], click, rtol=1e-5)
    np.testing.assert_allclose(found["buy|click"][:, 0], [buy / click, 1.0], rtol=1e-4)  # never above 1
    # Where both keep the identity, so does what depends on them, to the last bit.
    same = {"method": "identity", "values": (), "knots": ()}
    for own in maps.values():
        own["DE"] = same
    (tmp_path / "calibration.json").write_text(json.dumps(document))
    raw = {"territory": tf.constant(["DE", "FR"])}
    mixed = calibration.calibrated_outputs(tmp_path, outputs, raw, {}, None)
    for name, value in outputs.items():
        assert mixed[name][0] == value[0]
        assert mixed[name][1] == found[name][1]


def test_bad_input(run, tiny, tmp_path):
    with pytest.raises(ValueError, match=r"`method` must be one of .* Received: method='beta'"):
        calibration.calibrate(run, tiny, method="beta")
    with pytest.raises(ValueError, match=r"`by` must be one of .*'scenario'.* Received: by='age'"):
        calibration.calibrate(run, tiny, by="age")
    calibration.calibrate(run, tiny)
    file = run / "calibration.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"window": 2}))
    with pytest.raises(ValueError, match=r"run `tfmtr calibrate` again.* calibrated in window 2, .* window 3"):
        export(run, tmp_path / "models", titles=tiny)
    for text in ("{}", '{"window": 3, "by": "territory", "maps": []}', '{"window": 3, "by": "nothing", "maps": {}}'):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"calibration\.json` must be what `tfmtr calibrate` wrote; run it again"):
            export(run, tmp_path / "models", titles=tiny)
    file.unlink()


def test_a_run_is_calibrated_by_what_it_holds(run, tiny, tmp_path):
    """Its weights say what its newest model is, whatever is written of how it was trained."""
    copy = shutil.copytree(run, tmp_path / "copy")
    document = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**document, "stages": {}}))
    assert calibration.calibrate(copy, tiny).document["window"] == 3
