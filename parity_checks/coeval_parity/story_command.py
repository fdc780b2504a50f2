"""`coeval explain`: why one key has the values that it has; from store, log and control plane."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from coeval.spec.manifest import Manifest
    from coeval.spec.model import View
    from coeval.spec.types import Physical


def explain(
    view: Annotated[str, typer.Argument(help="The feature view.")],
    key: Annotated[list[str], typer.Argument(help="Its key: name=value for each part, such as card_id=4711.")],
    at: Annotated[str, typer.Option(help="An instant of the past, such as 2026-11-20T23:58:01Z (default: now).")] = "",
    feature: Annotated[list[str] | None, typer.Option(help="Only this feature; may be given several times.")] = None,
    ingest: Annotated[bool, typer.Option(help="Read what the topic holds beyond the log, too.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Explain the values of one key: the events behind them, both sides, why they part and where.

    Exit code 1 where a value differs for a cause that no sound system has. A value of the past is what the store must
    have served, by what is known of its progress; what it did serve is for coeval parity replay.

    Example: coeval explain card_spend card_id=4711 --at 2026-11-20T23:58:01Z
    """
    from rich.console import Console

    from coeval.client import read_manifest
    from coeval.errors import CheckFailedError
    from coeval.settings import load_settings
    from coeval_parity.document import plain
    from coeval_parity.story import tell
    from coeval_parity.story_text import print_story

    settings = load_settings()
    manifest = read_manifest(settings.manifest_path)
    chosen = find_view(manifest, view)
    names = [
        _known(name, [field.name for field in chosen.features], f"{view} has no feature") for name in feature or ()
    ]
    story = tell(settings, manifest, chosen, parse_key(chosen, key), instant(at, "--at"), names, ingest=ingest)
    if as_json:
        json.dump(plain(story), sys.stdout, indent=2)
        print()
    else:
        print_story(story, Console(width=None if sys.stdout.isatty() else 200))
    failing = [f"{item.feature} ({item.cause})" for item in story.features if item.fails]
    if failing:
        raise CheckFailedError(
            f"{view} {' '.join(key)} differs: {', '.join(failing)}.", "What to do: docs/runbooks/parity.md"
        )


def find_view(manifest: Manifest, name: str) -> View:
    """The view of that name.

    Raises:
        UnknownFeatureError: there is none; near names are given.
    """
    return manifest.views[_known(name, manifest.views, "There is no view")]


def _known(name: str, names: Collection[str], what: str) -> str:
    from coeval.errors import UnknownFeatureError

    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=3)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(names) or 'none'}."
    raise UnknownFeatureError(f"{what} {name}.", hint)


def parse_key(view: View, parts: list[str]) -> tuple[Physical, ...]:
    """The key that `name=value` texts give, in any order.

    Raises:
        EntityKeyError: a part is missing, twice, unknown or not of its type.
    """
    from coeval.errors import EntityKeyError
    from coeval.spec.types import parse_literal

    usage = " ".join(f"{field.name}={field.type}" for field in view.key)
    given: dict[str, str] = {}
    for part in parts:
        name, equals, text = part.partition("=")
        if not equals or name not in {field.name for field in view.key} or name in given:
            raise EntityKeyError(f"{part!r} is not a part of the key of {view.name}.", f"The key is: {usage}")
        given[name] = text
    missing = [field.name for field in view.key if field.name not in given]
    if missing:
        raise EntityKeyError(f"The key of {view.name} also needs {', '.join(missing)}.", f"The key is: {usage}")
    try:
        return tuple(parse_literal(field.type, given[field.name]) for field in view.key)
    except ValueError as error:
        raise EntityKeyError(f"The key of {view.name}: {error}.", f"The key is: {usage}") from error


def instant(text: str, option: str) -> int | None:
    """The instant that an option names (microseconds UTC); None where it is not given.

    Raises:
        UsageError: it is no instant, or has no zone.
    """
    from coeval.errors import UsageError
    from coeval.spec.types import TIMESTAMP, parse_literal

    if not text:
        return None
    try:
        return int(parse_literal(TIMESTAMP, text) or 0)
    except ValueError as error:
        raise UsageError(f"{option}: {error}.", "Write it with its zone: 2026-11-20T23:58:01Z") from error
