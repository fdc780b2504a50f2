"""`coeval serve` and `coeval sla`: the feature server, and what its services promise and keep."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any

import typer

from coeval.cli.get import age_text
from coeval.errors import InfrastructureError, UsageError


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.command("serve")(serve)
    app.command("sla")(sla)


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen at.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen at.")] = None,
    open_door: Annotated[
        bool, typer.Option("--open", help="No credentials: everybody on this machine may read and write everything.")
    ] = False,
) -> None:
    """Serve features over HTTP until stopped. API description: /openapi.json, /docs.

    Who may ask is in the file of tenants (coeval tenants). One process uses one processor: run several behind a load
    balancer, which looks at /ready. Settings: COEVAL_SERVER__HOST, PORT, MAX_ROWS, CONCURRENCY, DRAIN_SECONDS, ...;
    metrics for Prometheus at COEVAL_METRICS__SERVER_PORT.

    Example: coeval serve --open --port 8080
    """
    from coeval.logs import configure_logging
    from coeval.server.run import run
    from coeval.settings import load_settings

    settings = load_settings()
    changes = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = settings.model_copy(update={"server": settings.server.model_copy(update=changes)})
    # A server's log is what it is for: every request, unless less is asked for in so many words.
    if "log_level" not in settings.model_fields_set:
        configure_logging("info")
    where = settings.server
    print(f"Serves at http://{where.host}:{where.port} (API: /docs). Stop: Ctrl-C", file=sys.stderr)
    run(settings, open_door=open_door)


def sla(
    url: Annotated[str, typer.Option(help="The feature server.")] = "http://127.0.0.1:8080",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Print what the services of a feature server promise (in the catalog) and what they kept, with error budgets.

    A burn of 1 uses up an error budget exactly; above, it will not last. Freshness is the age of the newest event that
    was served: what was promised, and what was seen. The key of an administrator is taken from COEVAL_API_KEY.
    """
    document = _asked(f"{url.rstrip('/')}/v1/sla")
    if as_json:
        json.dump(document, sys.stdout, indent=2)
        print()
    else:
        _print(document)


def _asked(url: str) -> dict[str, Any]:
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{url} is not the address of a server.", "Give --url http://HOST:PORT.")
    key = os.environ.get("COEVAL_API_KEY", "")
    request = Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})  # noqa: S310  looked at above
    try:
        with urlopen(request, timeout=10) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
            return found
    except HTTPError as error:
        problem = json.loads(error.read() or b"{}")
        raise UsageError(
            f"{url}: {error.code} {problem.get('reason', error.reason)}", problem.get("instruction", "")
        ) from error
    except (URLError, OSError, ValueError) as error:
        raise InfrastructureError(
            f"{url} does not answer: {error}.", "Start it (coeval serve), or give --url."
        ) from error


def _print(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", title=f"tenant {document['tenant']}", title_justify="left")
    for name in ("service", "window", "requests", "p50", "p99", "promised", "burn", "failed", "burn"):
        table.add_column(name, justify="left" if name in ("service", "window") else "right")
    # No more than a bound: whoever was asked for may have done nothing of late. So nothing is called broken here.
    newest = Table("view", "newest event served", "promised freshness", box=None, header_style="bold")
    for item in document["services"]:
        promise = item["promise"]
        for number, (window, kept) in enumerate(item["kept"].items()):
            table.add_row(
                item["service"] if not number else "",
                window,
                str(kept["requests"]),
                _ms(kept["p50_seconds"]),
                _ms(kept["p99_seconds"]),
                _ms(promise["p99_seconds"] or None),
                _burn(kept["latency_burn"]),
                str(kept["failed"]),
                _burn(kept["availability_burn"]),
            )
        for view, seconds in item["newest"].items():
            newest.add_row(
                f"{item['service']}: {view}", f"{age_text(seconds)} old", age_text(promise["freshness"][view])
            )
    Console(width=None if sys.stdout.isatty() else 160).print(table, "", newest)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.3g} ms"


def _burn(burn: float | None) -> str:
    return "-" if burn is None else f"{burn:.2f}{' !' if burn > 1 else ''}"
