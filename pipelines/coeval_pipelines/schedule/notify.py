"""Telling: a notice to every webhook and to Alertmanager. It knows HTTP; what cannot be told now is told next time."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import requests
import structlog

from coeval.settings import NotifySettings
from coeval_pipelines.schedule.notices import Notice, alert, webhook

_SECONDS = 10.0
_LOG = structlog.get_logger(service="schedule")


def tell_alertmanager(notify: NotifySettings, notice: Notice) -> None:
    """Tell Alertmanager, where there is one. It is told after every run, so nothing is lost if it is away."""
    if notify.alertmanager:
        _post(f"{notify.alertmanager.rstrip('/')}/api/v2/alerts", [alert(notice)])


def tell_webhooks(notify: NotifySettings, notice: Notice) -> bool:
    """Tell every webhook; whether any took it, or there is none. One that fails hinders no other."""
    told = [_post(address.get_secret_value(), webhook(notice)) for address in notify.webhooks]
    return any(told) or not told


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
