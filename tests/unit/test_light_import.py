"""`import coeval` stays light: what a model service carries."""

from __future__ import annotations

import subprocess
import sys

import pytest

from coeval.engines import engine
from coeval.errors import MissingExtraError

HEAVY = (
    "feast",
    "pandas",
    "pyarrow",
    "pyspark",
    "pyflink",
    "sqlalchemy",
    "great_expectations",
    "kafka",
    "pydantic",
    "typer",
)


def _loaded(statement: str) -> set[str]:
    script = f"import sys\n{statement}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_coeval_loads_no_engine() -> None:
    assert _loaded("import coeval").isdisjoint({*HEAVY, "numpy", "redis"})


def test_features_without_spark_load_no_engine() -> None:
    loaded = _loaded("import coeval_pipelines.offline.small; import coeval_pipelines.offline.choice")
    assert loaded.isdisjoint({"pyspark", "py4j", "delta", "feast", "pyflink", "kafka", "sqlalchemy", "polars", "rich"})


def test_training_sets_without_spark_load_no_engine() -> None:
    loaded = _loaded("import coeval_pipelines.offline.training.sdk, coeval_pipelines.offline.training.rebuild")
    assert loaded.isdisjoint({"pyspark", "py4j", "delta", "feast", "pyflink", "kafka", "sqlalchemy", "polars", "rich"})


def test_an_engine_that_is_not_installed_is_named_with_what_brings_it() -> None:
    with pytest.raises(MissingExtraError) as raised:
        engine("abacus", "notebook|offline")
    assert raised.value.instruction == "pip install 'coeval[notebook]' or pip install 'coeval[offline]'"


def test_the_client_loads_no_engine_and_no_settings_library() -> None:
    assert _loaded("import coeval; coeval.FeatureStore; coeval.Labels; coeval.TrainingSet").isdisjoint(HEAVY)
