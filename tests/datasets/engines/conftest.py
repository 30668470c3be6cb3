"""The engines, each started once."""

import signal

import pytest

# For small tables: little compilation, two tasks, no pages on a port.
SUBMIT = "--driver-java-options -XX:TieredStopAtLevel=1 --conf spark.sql.codegen.wholeStage=false"
SUBMIT += " --conf spark.sql.codegen.factoryMode=NO_CODEGEN --conf spark.sql.shuffle.partitions=2"
SUBMIT += " --conf spark.ui.enabled=false pyspark-shell"


@pytest.fixture(scope="session")
def spark(tmp_path_factory):
    """The engine that started Spark, by the usual configuration; those of `prepare` are its guests."""
    pytest.importorskip("pyspark", reason="needs the extra `spark` and Java 17: pip install 'tfmtr[spark]'")
    from pyspark.sql import SparkSession

    from tfmtr.datasets.engines.spark import Spark

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_SUBMIT_ARGS", SUBMIT)
        interrupt = signal.getsignal(signal.SIGINT)
        engine = Spark(tmp_path_factory.mktemp("spark"), 10**9, "local[2]")
    yield engine
    engine.close()
    assert SparkSession.getActiveSession() is None
    assert signal.getsignal(signal.SIGINT) is interrupt  # PySpark's own fails without an application
