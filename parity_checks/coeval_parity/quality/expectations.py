"""Great Expectations: a frame held to rules, its pages written. It knows nothing of Coeval but the rules.

Its import takes seconds, so only commands about quality come here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coeval.errors import MissingExtraError, UsageError
from coeval_parity.quality.result import Checked
from coeval_parity.quality.rules import Rule

Position = tuple[Any, ...]
_COUNTED = ("expect_table_", "_count_", "_proportion_", "_type")
"""In the names of expectations that observe no value of the data."""
_COUNTS = (
    "element_count",
    "missing_count",
    "missing_percent",
    "unexpected_count",
    "unexpected_percent",
    "unexpected_percent_total",
    "unexpected_percent_nonmissing",
)

_EXCEPTION = re.compile(r"^(?:\w+\.)*(\w+(?:Error|Exception))\b", re.MULTILINE)
"""In a traceback the first exception, which caused the others."""


class Pages:
    """A project of Great Expectations in a directory: the suites, what came of them, and pages about both.

    Neither has values of the data, only counts, so that nothing that has to be erased is kept there.
    """

    def __init__(self, directory: Path) -> None:
        # It would report its use to its makers.
        os.environ["GX_ANALYTICS_ENABLED"] = "false"
        try:
            import great_expectations as gx
            from great_expectations.data_context.types.base import ProgressBarsConfig
        except ImportError as error:
            raise MissingExtraError("great-expectations is not installed.", "pip install 'coeval[quality]'") from error
        directory.mkdir(parents=True, exist_ok=True)
        self._gx = gx
        self._context: Any = gx.get_context(mode="file", project_root_dir=str(directory))
        self._context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)

    def check(
        self, name: str, frame: Any, engine: str, rules: Sequence[Rule], identity: Sequence[str]
    ) -> tuple[list[Checked], dict[int, list[Position]]]:
        """Hold a pandas or Spark frame to rules; what became of each, and by rule the rows that break it.

        A row is told by the values of its `identity` columns.

        Raises:
            UsageError: there is no such expectation, or its arguments do not fit it.
        """
        suite = self._suite(name, rules)
        asked: dict[str, Any] = {"result_format": "COMPLETE", "partial_unexpected_count": 0}
        asked |= {"exclude_unexpected_values": True}
        if identity:
            asked |= {"unexpected_index_column_names": list(identity)}
        batch = self._batch(name, engine, frame)
        found = batch.validate(suite, result_format=asked)
        numbers = {str(item.expectation_config.meta["number"]): item for item in found.results}
        checked = [_checked(rule, numbers[str(number)]) for number, rule in enumerate(rules)]
        rows = {number: _positions(numbers[str(number)].result, identity) for number in range(len(rules))}
        self._keep(name, batch.id, found)
        return checked, {number: items for number, items in rows.items() if items}

    def verify(self, name: str, rules: Sequence[Rule]) -> None:
        """Refuse rules that are no expectations, before anything is read.

        Raises:
            UsageError: there is no such expectation, or its arguments do not fit it.
        """
        for number, rule in enumerate(rules):
            _expectation(name, rule, number)

    def write(self) -> str:
        """Write the pages; the index of them."""
        (site,) = self._context.build_data_docs().values()
        return str(site).removeprefix("file://")

    def _suite(self, name: str, rules: Sequence[Rule]) -> Any:
        expectations = [_expectation(name, rule, number) for number, rule in enumerate(rules)]
        return self._context.suites.add_or_update(self._gx.ExpectationSuite(name=name, expectations=expectations))

    def _batch(self, name: str, engine: str, frame: Any) -> Any:
        sources = self._context.data_sources
        source = sources.add_or_update_pandas(engine) if engine == "pandas" else sources.add_or_update_spark(engine)
        definition = source.add_dataframe_asset(name=name).add_batch_definition_whole_dataframe("all")
        return definition.get_batch(batch_parameters={"dataframe": frame})

    def _keep(self, name: str, batch: str, found: Any) -> None:
        """Keep what came of a suite where the pages are made of it, without values of the data."""
        from great_expectations.core.run_identifier import RunIdentifier
        from great_expectations.data_context.types.resource_identifiers import (
            ExpectationSuiteIdentifier,
            ValidationResultIdentifier,
        )

        for item in found.results:
            item.result = _without_values(item.expectation_config.type, item.result)
            trouble = _trouble(item.exception_info)
            item.exception_info = {
                "raised_exception": bool(trouble),
                "exception_message": trouble,
                "exception_traceback": "",
            }
            item.success = bool(item.success)  # Some expectations give numpy's, which is not written.
        found.success = bool(found.success)
        run = RunIdentifier(run_time=datetime.now(UTC))
        found.meta |= {"run_id": run, "validation_time": run.run_time}
        key = ValidationResultIdentifier(ExpectationSuiteIdentifier(name), run, batch)
        self._context.validation_results_store.store_validation_results(found, key)


def _expectation(name: str, rule: Rule, number: int) -> Any:
    from great_expectations.exceptions import GreatExpectationsError
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    try:
        return ExpectationConfiguration(**rule.to_document(), meta={"number": number}).to_domain_obj()
    except (GreatExpectationsError, ValueError, TypeError) as error:
        reason = f"{rule.type} of the suite {name} cannot be checked: {str(error).splitlines()[0]}."
        raise UsageError(reason, "See docs/quality.md.") from error


def _checked(rule: Rule, found: Any) -> Checked:
    result = _without_values(rule.type, found.result)
    observed = result.get("observed_value")
    return Checked(
        rule.type,
        rule.column,
        rule.severity,
        bool(found.success),
        int(result.get("unexpected_count") or 0),
        "" if observed is None else str(observed),
        _trouble(found.exception_info),
    )


def _trouble(info: Mapping[str, Any]) -> str:
    """Which kind of exception kept a rule from being checked; '': none did. What it says may hold values."""
    errors = [item for item in info.values() if isinstance(item, Mapping)] or [info]
    trace = next((str(item["exception_traceback"]) for item in errors if item.get("raised_exception")), None)
    if trace is None:
        return ""
    kinds = _EXCEPTION.search(trace)
    return kinds.group(1) if kinds else "an exception"


def _without_values(kind: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """Of a result the counts; what was observed only where that is a count, a share or a type."""
    counted = any(word in kind for word in _COUNTED)
    return {name: value for name, value in result.items() if name in _COUNTS or (counted and name == "observed_value")}


def _positions(result: Any, identity: Sequence[str]) -> list[Position]:
    """The rows that break a rule, each once; a null is None, whatever the engine calls it."""
    import pandas as pd

    rows: dict[Position, None] = {}
    for item in result.get("unexpected_index_list") or ():
        columns = [item[name] if isinstance(item[name], list) else [item[name]] for name in identity]
        rows |= dict.fromkeys(zip(*columns, strict=True))
    return [tuple(None if pd.isna(value) else value for value in row) for row in rows]
