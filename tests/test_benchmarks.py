"""The benchmarks run, at sizes that say nothing about speed."""

import importlib
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for name in [file.stem for file in FOLDER.glob("*.py")]:
        sys.modules.pop(name, None)


def test_balancing_holds_every_balancer_against_equal(load, tmp_path):
    out = tmp_path / "balancing.json"
    benchmark = load("balancing")
    assert {name.partition("+")[2] for name in benchmark.names()} == {
        *benchmark.components.names("balancing"), "self_auxiliary",
    }  # fmt: skip
    found = benchmark.main(wanted=["mmoe+equal", "mmoe+pcgrad"], batch_size=64, steps=2, warmup=1, out=out)
    assert found["mmoe+equal"]["ratio"] == 1.0
    assert [row["forward_passes"] for row in found.values()] == [1, 1]
    assert json.loads(out.read_text())["models"] == found


def test_baselines_are_measured_in_processes_of_their_own(load, tmp_path, capsys):
    benchmark, out = load("baselines"), tmp_path / "baselines.json"
    history = benchmark.log(1000, 50, 30)
    counts = np.bincount(history.titles, minlength=30)
    assert len(history.users) == 1000
    assert counts[0] > 3 * counts[9]  # 1 / rank
    document = benchmark.main(sizes={2000: 100}, names=(benchmark.LOG, "decayed", "ease"), scored=300, out=out)
    assert json.loads(out.read_text()) == json.loads(json.dumps(document))
    assert list(document["cells"]) == ["log, 2,000 events", "decayed, 2,000 events", "ease, 2,000 events"]
    for name, cell in document["cells"].items():
        assert cell["megabytes"] > 10
        assert set(cell) == ({"megabytes"} if "log" in name else {"options", "fit", "score", "megabytes"})
    assert "decayed" in capsys.readouterr().out


def test_embedding_update_measures_all_sizes(load, tmp_path):
    out = tmp_path / "embedding_update.json"
    document = load("embedding_update").main(sizes=(100, 1000), steps=2, warmup=1, out=out)
    assert set(document["milliseconds"]) == {"100", "1000"}
    assert set(document["milliseconds"]["100"]) == {
        "limit", "sparse_adam", "row_wise_adagrad", "keras_adam", "training_step", "peak_mebibytes",
    }  # fmt: skip
    assert json.loads(out.read_text()) == json.loads(json.dumps(document))


def test_evaluation_measures_every_metric(load, tmp_path):
    out = tmp_path / "evaluation.json"
    document = load("evaluation").main(pairs=20_000, users=400, titles=30, territories=5, out=out)
    assert json.loads(out.read_text()) == document
    assert len(document["seconds"]) == 17
    assert document["total_seconds"] == sum(document["seconds"].values()) > 0
    assert document["peak_mebibytes"] > 0


def test_serving_measures_both_protocols_with_and_without_batching(load, tmp_path, capsys):
    serving = load("serving")
    size = serving.Size(user=8, title=6, units=(16, 4), titles=50)
    document = serving.main(
        seconds=0.1, clients=(1, 64), requests=["recommend"], sizes={"tiny": size}, out=tmp_path / "s.json"
    )
    served = {
        f"{protocol}, {n} clients{batching}"
        for protocol in ("gRPC", "REST") for n in (1, 64) for batching in ("", ", batching")
    }  # fmt: skip
    others = {f"gRPC that does nothing, {n} clients" for n in (1, 64)} | {"in process", "in process, 64 at once"}
    assert set(document["results"]) == {f"tiny, recommend, {what}" for what in served | others}
    assert all(row["per_second"] > 0 for row in document["results"].values())
    assert "tiny, recommend: 64 clients with batching" in capsys.readouterr().out


def test_kill_finds_what_is_not_as_it_was(load, tmp_path):
    kill, lines = load("kill"), []
    assert kill.main(tmp_path, names=["prepare"], kills=1, num_users=3_000, say=lines.append) == []
    assert [line.partition(":")[0] for line in lines] == ["prepare", "prepare", "1 kills each of prepare"]
    expected = {"tree": ["data", "data/a"], "fingerprint": "1"}
    assert kill.differences(expected, expected) == []
    assert kill.differences(expected, {"tree": ["data", ".data.x"], "fingerprint": "2"}) == [
        "left behind: .data.x", "missing: data/a", "another fingerprint"
    ]  # fmt: skip
    failed = kill.check_ended(["prepare", "simulator", "--out", str(tmp_path)])
    assert "exit code 1" in failed
    assert "`--out` must be a new folder" in failed
    assert kill.differences(expected, {"problem": failed}) == [f"started again, it ended with {failed}"]


def test_soak_finds_no_wrong_answer(load, tmp_path):
    soak = load("soak")
    document = soak.main(minutes=0.065, every=1.3, broken_every=2, out=tmp_path / "soak.json")
    assert (document["failures"], document["wrong"], document["exit_status"]) == (0, 0, 0), document["first"]
    assert document["published"] == {"good": 3, "broken": 1}
    assert document["answers"] > 100
    assert (tmp_path / "soak.png").stat().st_size > 5000
    wrong = soak.Load(0, 0)
    wrong.count([1], soak.X / 2 + 1)  # the answer of another version
    wrong.count([1], soak.X / 2 + 2)
    assert len(wrong.wrong) == 1


def test_retrieval_holds_the_indexes_against_numpy_and_goes_on_where_it_stopped(load, tmp_path, capsys):
    out = tmp_path / "retrieval.json"
    benchmark = load("retrieval")
    benchmark.main(sizes=(2000,), engines=("numpy", "usearch"), seconds=0.1, out=out)
    first = json.loads(out.read_text())["results"]
    document = benchmark.main(sizes=(2000,), engines=("numpy", "usearch", "exact"), seconds=0.1, out=out)
    assert {name: document["results"][name] for name in first} == first
    assert list(document["results"]) == [
        f"clustered 2,000, {engine}, {kind}" for engine in ("numpy", "usearch", "exact") for kind in ("all", "filtered")
    ]
    for name, cell in document["results"].items():
        assert cell["recall"] == 1.0 or "usearch" in name
        assert min(cell["per_second_1"], cell["per_second_128"], cell["megabytes"]) > 0
    assert "clustered 2,000: exact to numpy: " in capsys.readouterr().out


@pytest.mark.parametrize("engine", ["streaming", "scann", "faiss_flat", "faiss_ivf", "hnswlib"])
def test_retrieval_measures_every_index(load, tmp_path, engine):
    if engine not in ("streaming", "scann"):
        pytest.importorskip(engine.partition("_")[0])  # the extra `peers`
    benchmark = load("retrieval")
    benchmark.write_data(tmp_path / "data", *benchmark.clustered(2000))
    cells = benchmark.measure(engine, tmp_path / "data", 0.05)
    assert min(cell["recall"] for cell in cells.values()) > (0.3 if engine == "hnswlib" else 0.9)


def test_simulator_measures_each_number_of_users_and_leaves_nothing(load, tmp_path):
    benchmark, folder = load("simulator"), tmp_path / "tables"
    folder.mkdir()
    sizes = {"territories": 5, "titles": 20, "days": 18, "widths": (8, 6)}
    document = benchmark.main((300, 1_200), **sizes, folder=folder, out=tmp_path / "simulator.json")
    assert json.loads((tmp_path / "simulator.json").read_text()) == json.loads(json.dumps(document))
    few, more = document["users"]["300"], document["users"]["1,200"]
    assert 2 * few["events"] < more["events"] < 8 * few["events"]
    assert min(few[name] for name in ("seconds", "cpu_seconds", "peak_mb")) > 0
    assert not list(folder.iterdir())
    with pytest.raises(OSError, match="`folder` needs 142,400,000,000,000,000 bytes of disk; name another one"):
        benchmark.main((100_000_000_000_000,), folder=folder)


def test_limits_measures_products_memory_and_disk(load, tmp_path, monkeypatch):
    limits = load("limits")
    monkeypatch.setattr(limits, "SHAPES", {"tiny": (64, 8, 4)})
    monkeypatch.setattr(limits, "MEMORY", 2**22)
    monkeypatch.setattr(limits, "FILE", 2**25)
    limits.main(0.01, tmp_path, tmp_path / "limits.json")
    found = json.loads((tmp_path / "limits.json").read_text())
    assert found["matmul"].keys() == {"tiny, float32", "tiny, bfloat16"}
    assert all(cell["forward"] > 0 < cell["step"] for cell in found["matmul"].values())
    assert len(found["memory"]) == 3
    assert min(*found["memory"].values(), found["disk"]) > 0
    assert found["processor"]["cores"] > 0


def test_training_takes_turns_with_peers(load, tmp_path, monkeypatch, capsys):
    benchmark = load("training")
    libraries = {"ours_branches": "tfmtr", "keras_branches": "keras", "rechub_multi_task": "no_such_package"}
    case = benchmark.Case("tiny", "2", 16, libraries, 1.8, benchmark.branches_macs())
    monkeypatch.setattr(benchmark, "cases", lambda: [case])
    document = benchmark.main(None, turns=2, batches=1, seconds=0.01, out=tmp_path / "training.json")
    ours, keras = (document["cases"]["tiny"][name] for name in ("ours_branches", "keras_branches"))
    assert ours["ratio"] == 1.0
    assert keras["ratio"] == ours["examples_per_second"] / keras["examples_per_second"]
    assert abs(ours["parameters"] - keras["parameters"]) < 10  # the scale of the dot product is written differently
    assert "not installed" in capsys.readouterr().out


def test_inputs_measures_both_kinds(load, tmp_path):
    inputs = load("inputs")
    cells = inputs.main(9000, 36_000, users=50, titles=20, turns=1, units=4, out=tmp_path / "inputs.json")
    assert set(cells) == set(inputs.GOALS)
    assert all(cell["rows_per_second"] > 0 and cell["alone"] > 0 for cell in cells.values())


def test_scaling_measures_a_slope_for_each_axis(load, tmp_path):
    scaling = load("scaling")
    found = scaling.main({"tasks": (1, 2), "scenarios": (2, 3)}, rows=64, steps=2, warmup=1, out=tmp_path / "s.json")
    assert {axis: cell["sizes"] for axis, cell in found.items()} == {"tasks": [1, 2], "scenarios": [2, 3]}
    assert all(len(cell["milliseconds"]) == 2 for cell in found.values())


def test_precision_trains_both_and_keeps_what_is_there(load, tmp_path, monkeypatch):
    precision = load("precision")
    aucs = iter([0.7, 0.72, 0.71, 0.71, 0.72, 0.7])
    policies = []

    def mean_auc(movielens, optimizer, seed, **options):
        policies.append(options["policy"])
        return next(aucs)

    monkeypatch.setattr(precision, "mean_auc", mean_auc)
    monkeypatch.setattr(precision, "read_movielens", lambda path: ())
    out = tmp_path / "precision.json"
    precision.main(None, seeds=2, systems=("mmoe",), out=out)
    found = precision.main(None, seeds=3, systems=("mmoe",), out=out)
    assert found == {"mmoe": {"float32": [0.7, 0.71, 0.72], "bfloat16": [0.72, 0.71, 0.7]}}
    assert policies == ["float32", "mixed_bfloat16"] * 3


def test_the_auc_of_a_policy_is_that_of_a_model_under_it(load):
    benchmark, peers = load("embedding_update"), load("training_peers")
    (batch, *_), dtypes = peers.ids(32), []
    x = {**{name: batch[name] for name in peers.FIELDS}, "scenario": batch["domain"]}
    parts = dict.fromkeys(("train", "test"), (x, {task: batch[task] for task in peers.TASKS}))

    def evaluate(model, *_):
        dtypes.append({layer.compute_dtype for layer in model.layers if "logit" not in layer.name})
        return [{"mean_auc": 0.5}]

    for policy, dtype in (("float32", "float32"), ("mixed_bfloat16", "bfloat16")):
        movielens = peers.id_schema(), parts, evaluate
        benchmark.mean_auc(movielens, benchmark.keras.optimizers.Adam(), 0, policy=policy, epochs=1)
        assert dtype in dtypes[-1]
    assert "bfloat16" not in dtypes[0]
    benchmark.keras.mixed_precision.set_global_policy("float32")


def test_large_tables_measures_mechanisms_in_processes_and_goes_on_where_it_stopped(
    load, tmp_path, monkeypatch, capsys
):
    benchmark, out = load("large_tables"), tmp_path / "large_tables.json"
    sizes = {"sizes": (5000,), "batch_size": 64, "steps": 1, "timeout": 200, "out": out}
    benchmark.main(mechanisms=["servers"], **sizes)
    first = json.loads(out.read_text())["cells"]
    cell = first["5,000 rows, servers"]
    assert cell.get("failed") is None
    assert len(cell["megabytes_of_others"]) == 2
    assert min(cell["examples_per_second"], cell["megabytes"], *cell["megabytes_of_others"]) > 0
    assert cell["megabytes_per_step"] > 0.2  # 500 rows of 64 floats there, and their gradients back
    run_cell = benchmark.run_cell
    monkeypatch.setattr(benchmark, "run_cell", lambda mechanism, *_, **__: cell | {"mechanism": mechanism})
    cells = benchmark.main(mechanisms=["servers", "strategy"], **sizes)["cells"]
    assert cells["5,000 rows, servers"] == cell
    assert cells["5,000 rows, strategy"]["mechanism"] == "strategy"  # it alone was measured
    failed = run_cell("one process", 0, 64, 1, timeout=200)  # a table without rows
    assert "`input_dim` must be a positive integer" in failed["failed"]
    assert "5,000 rows, strategy" in capsys.readouterr().out


def test_gpu_measures_every_model_in_both_precisions_and_says_where_there_is_no_gpu(
    load, tmp_path, monkeypatch, capsys
):
    benchmark, out = load("gpu"), tmp_path / "gpu.json"
    assert [case.name for case in benchmark.cases()] == [
        f"{model}, {dtype}"
        for model in ("branches, 4 groups", "multi-task, mmoe", "multi-task, ple", "m3oe")
        for dtype in ("float32", "bfloat16")
    ]
    monkeypatch.setattr(benchmark, "MODELS", ("multi-task, mmoe",))
    monkeypatch.setattr(benchmark, "LARGE", 64)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    real, cells = benchmark.training.measure, []

    def measure(case, turns, batches):
        """The second precision really, in a process of its own; the first was measured by `training` above."""
        cells.append(case.dtype)
        seen = real(case, turns, batches) if case.dtype == "bfloat16" else None
        return seen or {"ours": {"examples_per_second": 5.0, "deviation": 1.0, "first_step_seconds": 1.0}}

    monkeypatch.setattr(benchmark.training, "measure", measure)
    document = benchmark.main("cpu", batch_size=16, turns=1, batches=1, seconds=0.01, out=out)
    assert json.loads(out.read_text()) == json.loads(json.dumps(document))
    assert cells == ["float32", "bfloat16"]
    for name, cell in document["models"].items():
        shares = cell["of_matmul_rate"]
        expected = cell["gflops"] / document["matmul_gflops"]["large"][name.partition(", mmoe, ")[2]]
        assert shares["large"] == pytest.approx(expected)
        assert min(cell["examples_per_second"], shares["two-tower"]) > 0
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind: [])
    assert benchmark.main("gpu", out=out) is None
    assert "no GPU" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["shared_bottom", "mmoe", "ple"])
def test_multiplications_are_counted_as_the_model_has_them(load, monkeypatch, name):
    training, peers = load("training"), load("training_peers")
    models = []
    monkeypatch.setattr(peers, "keras_fit", lambda model, *_: models.append(model))
    peers.ours_multi_task(name, 16)
    kernels = [weight for weight in models[0].trainable_weights if weight.name == "kernel"]
    assert sum(int(np.prod(kernel.shape)) for kernel in kernels) == training.multi_task_macs(name)
    assert any(weight.name == "scale" for weight in models[0].trainable_weights)  # as the peers' layers are normalised


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("sharing", lambda benchmark: benchmark.measure(["mmoe"], batch_size=2, steps=1, warmup=0)),
        ("balancing", lambda benchmark: benchmark.build("mmoe+equal", None)),
        ("scaling", lambda benchmark: benchmark.case("tasks", 2, 2)),
        ("embedding_update", lambda benchmark: benchmark.mean_auc((None, {}, None), None, 0)),
    ],
)
def test_figures_are_of_systems_with_layer_normalisation(load, monkeypatch, name, measure):
    """As they were measured when it was the default."""

    def ranking(schema, *, share, **options):
        raise StopIteration(share)

    benchmark = load(name)
    monkeypatch.setattr(
        *((benchmark.models, "ranking") if name == "embedding_update" else (benchmark, "ranking")), ranking
    )
    with pytest.raises(StopIteration) as found:
        measure(benchmark)
    assert found.value.args[0].keywords["normalize"] is True


def test_prepare_and_its_peers_write_the_same_rows(load, tmp_path, capsys, monkeypatch):
    benchmark = load("prepare")
    monkeypatch.setitem(benchmark.PACKAGES, "polars", "no_such_package")
    size = {"num_territories": 5, "num_titles": 20, "days": 20, "widths": (4, 3)}
    out, libraries = tmp_path / "prepare.json", ("tfmtr", "pandas")
    first = benchmark.main((400,), size=size, libraries=("tfmtr",), folder=tmp_path, out=out)["results"]
    document = benchmark.main((400,), size=size, libraries=(*libraries, "polars"), folder=tmp_path, out=out)
    results = document["results"]
    assert list(results) == ["400 users, tfmtr", "400 users, pandas"]
    assert results["400 users, tfmtr"] == first["400 users, tfmtr"]  # measured once
    assert json.loads(out.read_text())["results"] == results
    ours, pandas = (results[f"400 users, {name}"] for name in libraries)
    assert ours["rows"] == pandas["rows"]
    assert ours["rows"]["examples"] > ours["rows"]["positives"] > 0
    assert min(ours["peak_mebibytes"], pandas["hash_seconds"], pandas["seconds"]) > 0
    assert "400   │ pandas" in capsys.readouterr().out
    wrong = {"400 users, tfmtr": {**ours, "rows": {**ours["rows"], "checksum": "1"}}}
    with pytest.raises(RuntimeError, match="pandas and tfmtr must write the same rows"):
        benchmark.check_same_rows(pandas, "pandas", 400, wrong)
    assert not benchmark.is_wanted("pandas", 800, {"400 users, pandas": {"failed": "out of 1 GB"}})
    assert [path.name for path in tmp_path.iterdir()] == ["prepare.json"]


def test_prepare_says_what_does_not_fit(load, tmp_path):
    benchmark = load("prepare")
    size = {"num_territories": 5, "num_titles": 20, "days": 20, "widths": (4, 3)}
    document = benchmark.main(
        (400,), size=size, libraries=("pandas",), memory_gb=0.02, folder=tmp_path, out=tmp_path / "prepare.json"
    )
    assert document["results"]["400 users, pandas"]["failed"] == "out of 0.02 GB"


def test_polars_prepares_the_same_rows(load, tmp_path):
    pytest.importorskip("polars")  # the extra `peers`
    benchmark = load("prepare")
    size = {"num_territories": 5, "num_titles": 20, "days": 20, "widths": (4, 3)}
    libraries = ("tfmtr", "polars")
    results = benchmark.main((400,), size=size, libraries=libraries, folder=tmp_path, out=tmp_path / "p.json")[
        "results"
    ]
    assert results["400 users, tfmtr"]["rows"] == results["400 users, polars"]["rows"]


def test_lists_hold_a_list_model_against_the_towers_alone(load, tmp_path, monkeypatch):
    benchmark = load("lists")
    real = benchmark.subprocess.run

    def run(command, **options):
        """The list model really in a process of its own; the towers alone are exported in this one."""
        if "--listwise" in command:
            return real(command, **options)
        given = dict(zip(command[2::2], command[3::2], strict=True))
        units = tuple(map(int, given["--units"].split(",")))
        titles, territories = int(given["--titles"]), int(given["--territories"])
        benchmark.export(Path(given["--export"]), titles, territories, listwise=False, units=units)
        return types.SimpleNamespace(stdout="100\n")

    monkeypatch.setattr(benchmark, "subprocess", types.SimpleNamespace(run=run))
    found = benchmark.main(sizes=(300,), territories=5, calls=5, units=(8, 4), out=tmp_path / "lists.json")
    assert json.loads((tmp_path / "lists.json").read_text()) == found
    towers, own = found["cells"]["300"].values()
    assert own["p50_ms_ratio"] == pytest.approx(own["p50_ms"] / towers["p50_ms"], rel=0.1)
    assert own["megabytes"] >= towers["megabytes"]
    assert own["peak_megabytes"] > 100


def test_two_stages_are_measured_beside_the_first_alone_and_beside_rows(load, tmp_path):
    out = tmp_path / "two_stages.json"
    options = {"users": (2,), "width": 4, "units": (8, 4), "candidates": 5}
    document = load("two_stages").main((30,), 0.05, out, **options)
    assert json.loads(out.read_text()) == document
    cells = document["cells"]["30 titles"]
    assert cells["second, 2 at once"]["rows_ratio"] == pytest.approx(
        cells["rows, 2 at once"]["p50_ms"] / cells["second, 2 at once"]["p50_ms"]
    )
    assert min(cells["megabytes"], cells["both, 2 at once"]["p50_ms"], cells["both, 2 at once"]["first_ratio"]) > 0
