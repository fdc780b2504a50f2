"""What may be a name. Pure. Names become columns, topics, directories, Redis keys, in engines that differ on case."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from coeval_pipelines.catalog.errors import DefinitionError

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_TENANT = re.compile(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,200}")


def check_name(where: str, name: str) -> str:
    """The name, if it may be one.

    Raises:
        DefinitionError: it is not lower-case words joined by single underscores.
    """
    if not _NAME.fullmatch(name):
        # A double underscore parts view and feature: view__feature must read in one way only.
        fix = "Use lower-case letters, digits and single underscores, a letter first: card_spend."
        raise DefinitionError(where, f"{name!r} cannot be a name", fix)
    return name


def check_names(where: str, names: Iterable[str]) -> None:
    """Check several names.

    Raises:
        DefinitionError: one of them cannot be a name.
    """
    for name in names:
        check_name(where, name)


def check_tenant(where: str, tenant: str) -> str:
    """The tenant, if it may be one: the first part of every online key and of every changelog topic.

    Raises:
        DefinitionError: it holds something else than lower-case letters, digits, underscores and hyphens.
    """
    if not _TENANT.fullmatch(tenant):
        fix = "Use lower-case letters, digits, underscores and hyphens."
        raise DefinitionError(where, f"{tenant!r} cannot be a tenant", fix)
    return tenant


def check_topic(where: str, topic: str) -> str:
    """The topic, if Kafka takes it.

    Raises:
        DefinitionError: it is empty, too long, or holds a character that Kafka refuses.
    """
    if not topic:
        raise DefinitionError(where, "it names no topic", f'Add topic="{where.rpartition(" ")[2]}".')
    if not _TOPIC.fullmatch(topic):
        raise DefinitionError(where, f"{topic!r} cannot be a topic", "Use letters, digits, '.', '_' and '-'.")
    return topic


def nearest(name: str, known: Iterable[str]) -> str:
    """What to write instead of a name that is not known."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"Did you mean {near[0]}?" if near else f"Known are {', '.join(names) or 'none'}."
