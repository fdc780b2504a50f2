"""`coeval get`: the features of a service for some entities, as a table with statuses and ages, or as JSON."""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime
from math import isnan
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coeval.errors import RequestError

if TYPE_CHECKING:
    from coeval.client import FeatureStore
    from coeval.online.result import FeatureResult
    from coeval.spec.model import Field


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("get")(get)


def get(
    service: Annotated[str, typer.Argument(help="The feature service, e.g. coupon_propensity.")],
    inputs: Annotated[
        list[str],
        typer.Argument(help="name=value[,value...] for each entity key and request input: household_id=718,1024"),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Serve the features of a service now, exactly as a model would get them.

    Example: coeval get coupon_propensity household_id=718,1024 store_id=367,367 basket_amount=25.00,25.00
    """
    from coeval.client import connect

    store = connect()
    given = dict(_split(item) for item in inputs)
    entities, request = _typed_inputs(store, service, given)
    result = store.get_features(service, entities, request=request)
    if as_json:
        json.dump(as_document(result), sys.stdout, default=_text, indent=2)
        print()
    else:
        print_result(result)


def _text(value: object) -> str:
    from coeval.spec.types import iso, micros

    return iso(micros(value)) if isinstance(value, datetime) else str(value)


def _split(item: str) -> tuple[str, list[str]]:
    name, equals, values = item.partition("=")
    if not equals or not name:
        raise RequestError(f"{item!r} is not name=value.", "Write household_id=718 or household_id=718,1024.")
    return name, [value.replace("\\,", ",") for value in re.split(r"(?<!\\),", values)]


def _typed_inputs(
    store: FeatureStore, service: str, given: dict[str, list[str]]
) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    plan = store.plan(service)
    keys, request = plan.keys, plan.requested
    unknown = sorted(given.keys() - keys.keys() - request.keys())
    if unknown:
        raise RequestError(
            f"{service} takes no input {', '.join(unknown)}.", f"It takes: {', '.join([*keys, *request])}."
        )
    typed = {name: [_value((keys | request)[name], text) for text in values] for name, values in given.items()}
    return (
        {name: values for name, values in typed.items() if name in keys},
        {name: values for name, values in typed.items() if name in request},
    )


def _value(field: Field, text: str) -> Any:
    from coeval.spec.types import parse_literal, to_logical

    try:
        return to_logical(field.type, parse_literal(field.type, text))
    except ValueError as error:
        raise RequestError(f"{field.name}: {error}.", f"Give a {field.type}.") from error


def as_document(result: FeatureResult) -> dict[str, Any]:
    """The result as a JSON document: values, statuses, ages in seconds, manifest hash."""
    return {
        "at": result.at,
        "manifest": result.manifest_hash,
        "entities": {name: list(values) for name, values in result.entities.items()},
        "features": {
            name: {
                "values": column.logical(),
                "status": [status.name for status in result.status[name]],
            }
            for name, column in result.columns.items()
        },
        "age_seconds": {
            view: [None if isnan(age) else round(age, 3) for age in ages.tolist()] for view, ages in result.age.items()
        },
    }


def print_result(result: FeatureResult) -> None:
    """One row per feature, one column per entity; a status that is not PRESENT is written beside the value."""
    from rich.console import Console
    from rich.table import Table

    names = list(result.entities)
    table = Table(box=None, header_style="bold")
    table.add_column("feature")
    for values in zip(*result.entities.values(), strict=True):
        table.add_column(
            "\n".join(f"{name}={value}" for name, value in zip(names, values, strict=True)), justify="right"
        )
    for name, column in result.columns.items():
        cells = zip(column.logical(), result.status[name], strict=True)
        table.add_row(name, *(_cell(value, status.name) for value, status in cells))
    table.add_section()
    for view, ages in result.age.items():
        table.add_row(f"age of {view}", *("-" if isnan(age) else age_text(age) for age in ages.tolist()), style="dim")
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _cell(value: object, status: str) -> str:
    text = f"{value:.4f}" if isinstance(value, float) else str(value)
    if status == "PRESENT":
        return text
    return status if value is None else f"{text} {status}"


def age_text(seconds: float) -> str:
    """Seconds as a person would say them."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
