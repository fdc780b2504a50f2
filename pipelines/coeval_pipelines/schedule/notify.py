"""Telling: a notice to every webhook and to Alertmanager. It knows HTTP; what cannot be told now is told next time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import requests
import structlog

from coeval.settings import NotifySettings
from coeval_pipelines.schedule.notices import Notice, alert, webhook

_SECONDS = 10.0
_LOG = structlog.get_logger(service="schedule")


def tell(notify: NotifySettings, notice: Notice, *, webhooks: bool) -> bool:
    """Tell Alertmanager, and the webhooks if asked to; whether all took it. An address that fails hinders no other."""
    told = [_post(address, document) for address, document in _messages(notify, notice, webhooks)]
    return all(told)


def _messages(notify: NotifySettings, notice: Notice, webhooks: bool) -> Iterator[tuple[str, Any]]:
    if notify.alertmanager:
        yield f"{notify.alertmanager.rstrip('/')}/api/v2/alerts", [alert(notice)]
    for address in notify.webhooks if webhooks else []:
        yield address.get_secret_value(), webhook(notice)


def _post(address: str, document: Any) -> bool:
    host = urlsplit(address).netloc.rpartition("@")[2]
    try:
        answer = requests.post(address, json=document, timeout=_SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        # Not the error's text: it has the address, which is a secret.
        _LOG.warning("cannot notify", host=host, error=type(error).__name__)
        return False
    if not answer.ok:
        _LOG.warning("cannot notify", host=host, status=answer.status_code)
    return answer.ok
