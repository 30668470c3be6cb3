from tfmtr.serving import request_counts


def test_names_that_clients_think_up_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(request_counts, "MAX_NAMES", 2)
    counted = request_counts.Metrics()
    for name in ("toy", "a", "b", "c", "toy"):
        counted.count(name, "OK")
    assert counted.text().splitlines()[1:] == [
        ':tensorflow:serving:request_count{model_name="",status="OK"} 2',
        ':tensorflow:serving:request_count{model_name="a",status="OK"} 1',
        ':tensorflow:serving:request_count{model_name="toy",status="OK"} 2',
    ]
