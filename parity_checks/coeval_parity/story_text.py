"""The story of a key for a terminal. It knows rich."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coeval.spec.types import Logical, iso
from coeval_parity.story import FeatureStory, KeyEvent, Story
from coeval_parity.text import shown

if TYPE_CHECKING:
    from rich.console import Console

MAX_EVENTS = 40
"""Events that are listed; the newest."""


def print_story(story: Story, console: Console) -> None:
    """Print what was served and what training would use, why they part, and the events behind them."""
    name = " ".join(f"{part}={value}" for part, value in story.entity.items())
    then = "as of" if story.is_past else "now,"
    console.print(f"{story.view} {name}   {then} {iso(story.at)}   version {story.version}", style="bold", markup=False)
    console.print(_progress(story), style="dim", markup=False, soft_wrap=True)
    for note in story.notes:
        console.print(f"! {note}", style="yellow", markup=False, soft_wrap=True)
    console.print()
    _features(story, console)
    for feature in story.features:
        if feature.cause:
            _difference(feature, console)
    if len(story.features) == 1 and story.features[0].steps:
        _steps(story.features[0], console)
    _events(story, console)


def _progress(story: Story) -> str:
    parts = [
        f"stream owns tiles from {iso(story.since)}" if story.since is not None else "not deployed",
        f"batch loaded what was final at {iso(story.load_cut)}" if story.load_cut is not None else "no batch load",
    ]
    if story.certified is not None:
        offsets = ", ".join(f"{part}:{offset}" for part, offset in sorted(story.certified.items()))
        parts.append(f"certified to cover offsets below {offsets}")
    return "; ".join(parts)


def _features(story: Story, console: Console) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for name in ("feature", "served", "training would use", "cause", "window"):
        table.add_column(name, justify="right" if name in ("served", "training would use") else "left")
    for item in story.features:
        style = "bold red" if item.fails else "yellow" if item.cause else ""
        served = shown(item.served) if item.status in ("PRESENT", "NULL") else f"{shown(item.served)} {item.status}"
        table.add_row(item.feature, served, shown(item.expected), item.cause or "equal", item.window, style=style)
    console.print(table)


def _difference(item: FeatureStory, console: Console) -> None:
    since = f" since {iso(item.since)}" if item.since is not None else ""
    console.print()
    console.print(f"{item.feature}: {item.cause}{since}. {item.proof}", markup=False, highlight=False, soft_wrap=True)
    if item.parted:
        line = item.parted
        where = "file" if line.partition < 0 else f"partition {line.partition}"
        tile = f", tile {line.tile}" if line.tile else ""
        console.print(
            f"  they part at event {line.event_id or '-'} of {iso(line.event_ts)}, available {iso(line.available_at)}, "
            f"{where}, offset {line.offset}{tile}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    for step in item.steps:
        if step.differs:
            text = f"  {step.part} ({step.owner}): served {step.served}; the log has {step.expected}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)


def _steps(item: FeatureStory, console: Console) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold", title=f"{item.label}, part by part", title_justify="left")
    for name in ("part", "delivered by", "served", "the log has", ""):
        table.add_column(name)
    for step in item.steps:
        table.add_row(step.part, step.owner, step.served, step.expected, "differs" if step.differs else "")
    console.print()
    console.print(table)


def _events(story: Story, console: Console) -> None:
    from rich.table import Table

    console.print()
    if not story.events:
        console.print("The log has no event of this key.")
        return
    hops = list(story.events[0].tiles)
    columns = [name for name in story.events[0].values if name not in story.entity]
    table = Table(box=None, header_style="bold", title="events in their order (UTC)", title_justify="left")
    for name in ("happened", "available", "at", "event", *columns, *(f"{hop} tile" for hop in hops), ""):
        table.add_column(name, no_wrap=name in ("happened", "available"), overflow="fold")
    for event in story.events[-MAX_EVENTS:]:
        table.add_row(*_event(event, columns))
    console.print(table)
    if len(story.events) > MAX_EVENTS:
        console.print(f"... and {len(story.events) - MAX_EVENTS:,} before; all of them: --json", style="dim")


def _event(event: KeyEvent, columns: list[str]) -> list[str]:
    place = "file" if event.partition < 0 else f"{event.partition}:{event.offset}"
    values: list[Logical] = [event.values[name] for name in columns]
    times = [iso(event.event_ts), iso(event.available_at), place, event.event_id]
    return [*times, *map(shown, values), *event.tiles.values(), ", ".join(event.notes)]
