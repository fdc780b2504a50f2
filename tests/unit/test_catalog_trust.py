"""Claims about what a registry may hold: wherever Feast would load or execute something, the object is left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.fast_feast import import_feast

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast's own: it calls stream views experimental.

CODE = b"a pickle"
STUB = 'def ratio(inputs):\n    raise NotImplementedError("Coeval runs bank.functions:ratio")\n'


def _registry() -> Any:
    import_feast()
    from feast.protos.feast.core.Registry_pb2 import Registry

    made = Registry()
    made.feature_views.add().spec.name = "table"
    made.stream_feature_views.add().spec.name = "stream"
    derived = made.on_demand_feature_views.add().spec
    derived.name = "derived"
    derived.feature_transformation.user_defined_function.name = "ratio"
    derived.feature_transformation.user_defined_function.body_text = STUB
    derived.tags["team"] = "risk"
    derived.sources["table"].feature_view.spec.name = "table"
    made.saved_datasets.add().spec.name = "saved"
    made.validation_references.add().name = "reference"
    record = made.feature_view_version_history.records.add()
    record.feature_view_type = "feature_view"
    record.feature_view_proto = made.feature_views[0].SerializeToString()
    return made


def _set(function: Any) -> None:
    function.body = CODE


def _function(view: Any) -> None:
    _set(view.spec.feature_transformation.user_defined_function)


def _ibis(view: Any) -> None:
    view.spec.feature_transformation.substrait_transformation.ibis_function = CODE


def _nested(view: Any) -> None:
    view.spec.source_views.add().feature_transformation.substrait_transformation.ibis_function = CODE


def _record(made: Any) -> None:
    view = made.feature_views[0].FromString(made.feature_views[0].SerializeToString())
    _function(view)
    made.feature_view_version_history.records[0].feature_view_proto = view.SerializeToString()


def _source(made: Any, text: str) -> None:
    made.on_demand_feature_views[0].spec.feature_transformation.user_defined_function.body_text = text


PLANTS: dict[str, Callable[[Any], Any]] = {
    "a function of a derived view": lambda made: _function(made.on_demand_feature_views[0]),
    "the ibis function of a derived view": lambda made: _ibis(made.on_demand_feature_views[0]),
    "the ibis function of a view": lambda made: _ibis(made.feature_views[0]),
    "the ibis function of a stream view": lambda made: _ibis(made.stream_feature_views[0]),
    "the old slot of a stream view": lambda made: _set(made.stream_feature_views[0].spec.user_defined_function),
    "a view that a view is made of": lambda made: _nested(made.feature_views[0]),
    "a view that a derived view keeps": lambda made: _ibis(
        made.on_demand_feature_views[0].spec.sources["table"].feature_view
    ),
    "the profiler of a validation reference": lambda made: _set(made.validation_references[0].ge_profiler.profiler),
    "an earlier version of a view": _record,
    "source to be executed": lambda made: _source(made, "import os\n" + STUB),
    "source after the stub": lambda made: _source(made, STUB + "import os\n"),
    "source inside the stub": lambda made: _source(made, STUB.replace("bank.functions", '", x() and "a')),
}


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS.keys())
def test_an_object_that_holds_code_is_left_out_and_nothing_else_is(plant: Callable[[Any], Any]) -> None:
    from coeval_pipelines.catalog.trust import leave_out_code

    registry = _registry()
    objects = _count(registry)
    plant(registry)
    assert leave_out_code(registry) == 1
    assert _count(registry) == objects - 1
    text = registry.SerializeToString()
    assert CODE not in text
    assert b"import os" not in text


def test_what_coeval_registers_is_kept_to_the_byte() -> None:
    registry = _registry()
    from coeval_pipelines.catalog.trust import leave_out_code, stub

    assert stub("bank.functions:ratio") == STUB
    before = registry.SerializeToString(deterministic=True)
    assert leave_out_code(registry) == 0
    assert registry.SerializeToString(deterministic=True) == before


def _count(registry: Any) -> int:
    kinds = ("feature_views", "stream_feature_views", "on_demand_feature_views", "saved_datasets")
    held = sum(len(getattr(registry, kind)) for kind in (*kinds, "validation_references"))
    return held + len(registry.feature_view_version_history.records)
