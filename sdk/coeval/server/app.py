"""The application: routes over the SDK. It knows FastAPI, which describes and routes; bodies are `wire`'s."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from coeval.access.tenants import Grant
from coeval.aio import aside
from coeval.errors import (
    AccessError,
    CoevalError,
    InfrastructureError,
    RequestError,
    UnknownFeatureError,
    UsageError,
)
from coeval.feast_words import divided
from coeval.manifests import PIN
from coeval.online.result import FeatureResult, Status
from coeval.server import openapi, wire
from coeval.server.audit import Audit
from coeval.server.doorkeeper import Doorkeeper, OpenDoor
from coeval.server.gate import Gate, Visit
from coeval.server.intake import Position, Producer, open_engine, records_of, source_of
from coeval.server.meters import Meters
from coeval.server.problems import OverloadedError, TooLargeError
from coeval.server.rooms import Room, Rooms
from coeval.service import Asked, ServicePlan
from coeval.serving_log import ServingLog
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import PII_CLASSES

_JSON = "application/json"
_MOST_ASKS = 20
_PRODUCERS = 8
_SHOWN = 256
"""Letters of a name in the audit trail."""
_HAVE_IT_GRANTED = "Have it granted: coeval tenants key."


class Server:
    """What the routes share. `open_tenant` lets everybody on this machine in, as that tenant."""

    def __init__(self, settings: Settings, open_tenant: str = "") -> None:
        self.settings = settings
        self.door = OpenDoor(settings, open_tenant) if open_tenant else Doorkeeper(settings)
        self.rooms = Rooms(settings)
        self.audit = Audit(settings.home / "audit")
        self.meters = Meters(lambda: [(room.name, room.store.slas) for room in self.rooms.opened()])
        self.log = self._serving_log()
        self.app = _application(self)
        self.gate = Gate(self.app, self.door, self.rooms, self.meters, self.audit, settings.server)
        # What waits for the broker waits in threads of its own: those of the loop are for what is short.
        self._producing = ThreadPoolExecutor(_PRODUCERS, thread_name_prefix="produce")
        self._producer: asyncio.Task[Producer] | None = None

    def _serving_log(self) -> ServingLog | None:
        share = self.settings.server.serving_log
        if share <= 0:
            return None
        counted = self.meters.logged
        return ServingLog(
            lambda: open_engine("serving_log", self.settings),
            share,
            lambda outcome, rows: counted.labels(outcome).inc(rows),
        )

    async def close(self) -> None:
        """Close what was opened."""
        await self.rooms.close()
        if self._producer is not None:
            with suppress(CoevalError):
                await asyncio.to_thread((await self._producer).close)
        self._producing.shutdown(wait=False)
        if self.log is not None:
            await asyncio.to_thread(self.log.close)
        self.audit.close()

    async def serve(self, visit: Visit, ask: wire.Ask, *, mixed: bool = False) -> tuple[FeatureResult, ServicePlan]:
        """The features that somebody asks for, if they may.

        `mixed`: request-time inputs stand among the entities.

        Raises:
            CoevalError: no; or they cannot be had.
        """
        room, grant = _entered(visit)
        # Before anything is looked at: to be refused is not free either.
        room.rows.take(max(1, ask.rows))
        visit.rows += ask.rows
        if visit.rows > self.settings.server.max_rows:
            raise TooLargeError("There are too many entities in one request.", "Ask for fewer at once.")
        manifest = room.store.manifest
        plan = _granted_plan(room, grant, manifest, ask.asked)
        visit.labels["service"] = plan.label
        personal = _personal(plan, manifest)
        _check_personal(grant, plan, personal)
        if mixed:
            ask = wire.Ask(ask.asked, *divided(ask.entities, plan))
        ask = wire.typed(ask, plan)
        result = await room.store.read(plan, ask.entities, request=ask.request, deadline=ask.deadline)
        await aside(len(result), self._keep, visit, plan, personal, result)
        lost = int((result.codes == Status.UNAVAILABLE).sum())
        if lost:
            self.meters.unavailable.labels(room.name, plan.label).inc(lost)
        return result, plan

    def _keep(self, visit: Visit, plan: ServicePlan, personal: Mapping[str, str], result: FeatureResult) -> None:
        """What has to be kept of an answer before it is given: the audit trail, the serving log."""
        assert visit.caller is not None
        tenant = visit.caller.tenant
        if personal:
            self.audit.read(tenant, visit.caller.name, plan.label, personal, result.entities, visit.id)
        if self.log is not None:
            self.log.offer(tenant, plan, result)

    async def produce(self, visit: Visit, name: str, body: bytes) -> dict[str, Any]:
        """Produce the events of a body, if the caller may.

        Raises:
            CoevalError: no; or they cannot be produced.
        """
        room, grant = _entered(visit)
        room.rows.take(max(1, body.count(b"\n")))
        if not grant.writes(name):
            raise AccessError("This credential may not write to that source.", _HAVE_IT_GRANTED, name[:_SHOWN])
        source = source_of(room.store.manifest, name, grant)
        visit.labels["source"] = name
        limits = self.settings.server
        records = await asyncio.to_thread(records_of, source, body, limits.max_rows)
        visit.rows = len(records)
        producer = await asyncio.shield(self._opened_producer())
        loop = asyncio.get_running_loop()
        positions: list[Position] = await loop.run_in_executor(
            self._producing, producer.send, source.topic, records, limits.max_seconds
        )
        self.meters.events.labels(room.name, name).inc(len(records))
        return {"source": name, "topic": source.topic, "positions": positions}

    def _opened_producer(self) -> asyncio.Task[Producer]:
        """The one producer of this server. Whoever comes first opens it; if that fails, the next one tries again."""
        task = self._producer
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):

            async def opened() -> Producer:
                loop = asyncio.get_running_loop()
                found: Producer = await loop.run_in_executor(self._producing, open_engine, "intake", self.settings)
                return found

            task = self._producer = asyncio.create_task(opened())
            # Whoever waited may have given up.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task


def _entered(visit: Visit) -> tuple[Room, Grant]:
    assert visit.room is not None
    assert visit.caller is not None
    return visit.room, visit.caller.grant


def _granted_plan(room: Room, grant: Grant, manifest: Manifest, asked: Asked) -> ServicePlan:
    """The plan of what may be read. What may not be, and what there is not, are refused alike."""
    if not isinstance(asked, str):
        _check_features(grant, manifest, asked)
        plan = room.store.plan(asked)
    else:
        name = asked.partition(PIN)[0]
        if not grant.reads(name):
            raise AccessError("This credential may not read that service.", _HAVE_IT_GRANTED, asked[:_SHOWN])
        try:
            plan = room.store.plan(asked)
        except UnknownFeatureError as error:
            known = ", ".join(item.name for item in manifest.services if grant.reads(item.name)) or "none"
            raise UnknownFeatureError(error.reason, f"This credential may read: {known}.") from error
    if plan.tenant != room.name:
        raise InfrastructureError("The definitions are another tenant's.", "Tell whoever runs the server.")
    return plan


def _check_features(grant: Grant, manifest: Manifest, names: Sequence[str]) -> None:
    """A list of features may be read where each of them is in a service that may be."""
    allowed = {
        f"{item.view}__{feature}"
        for service in manifest.services
        if grant.reads(service.name)
        for item in (*service.views, *service.derived)
        for feature in item.features
    }
    for name in names:
        if name.replace(":", "__", 1) not in allowed:
            raise AccessError(f"{name} is in no service that this credential may read.", _HAVE_IT_GRANTED, name)


def _personal(plan: ServicePlan, manifest: Manifest) -> Mapping[str, str]:
    """The personal features of a plan with their class: by its definitions or today's, whichever is stricter."""
    if plan.manifest_hash == manifest.hash:
        return plan.personal
    views = (*manifest.views.values(), *manifest.derived_views)
    now = {f"{view.name}__{field.name}": field.pii for view in views for field in view.features}
    rank = PII_CLASSES.index
    classes = {name: max(field.pii, now.get(name, "none"), key=rank) for name, field in plan.fields.items()}
    return {name: kind for name, kind in classes.items() if kind != "none"}


def _check_personal(grant: Grant, plan: ServicePlan, personal: Mapping[str, str]) -> None:
    missing = sorted(set(personal.values()) - grant.pii)
    if missing:
        example = next(name for name, kind in personal.items() if kind == missing[0])
        raise AccessError(
            f"This credential may not read features of the class {missing[0]}, such as {example}.",
            f"Have it granted: coeval tenants key --pii {missing[0]}.",
            plan.label,
        )


def _application(server: Server) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await server.close()

    app = FastAPI(title="Coeval", lifespan=lifespan, redoc_url=None, **openapi.ABOUT)
    described = app.openapi
    app.openapi = lambda: _with_schemes(described())  # type: ignore[method-assign]
    limits = server.settings.server

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, CoevalError)
        status, headers, body = server.gate.refusal(request.scope["state"]["visit"], error)
        answer = Response(body, status)
        answer.raw_headers = headers
        return answer

    async def unrouted(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        problem = UsageError(f"{request.method} {request.url.path}: {error.detail}.", "/docs shows what there is.")
        _, headers, body = server.gate.refusal(request.scope["state"]["visit"], problem)
        answer = Response(body, error.status_code)
        answer.raw_headers = [*headers, *((k.encode(), v.encode()) for k, v in (error.headers or {}).items())]
        return answer

    app.add_exception_handler(CoevalError, refused)
    app.add_exception_handler(HTTPException, unrouted)

    @app.post("/v1/features", **openapi.FEATURES)
    async def features(request: Request) -> Response:
        ask = wire.ask_of(wire.document_of(await request.body()), limits.max_rows)
        result, plan = await server.serve(_visit(request), ask)
        if wire.ARROW in request.headers.get("accept", ""):
            return await _written(wire.to_arrow, result, plan.label, wire.ARROW)
        return await _written(wire.to_json, result, plan.label, _JSON)

    @app.post("/v1/batch", **openapi.BATCH)
    async def batch(request: Request) -> Response:
        asks = wire.asks_of(wire.document_of(await request.body()), _MOST_ASKS)
        visit = _visit(request)
        return _answer({"results": await asyncio.gather(*(_one(server, visit, ask, limits.max_rows) for ask in asks))})

    @app.post("/get-online-features", **openapi.FEAST)
    async def get_online_features(request: Request) -> Response:
        document = wire.document_of(await request.body())
        ask = wire.feast_ask_of(document, limits.max_rows)
        result, plan = await server.serve(_visit(request), ask, mixed=True)
        full = document.get("full_feature_names") is True
        return await _written(lambda found, _: wire.dumps(wire.to_feast(plan, found, full)), result, "", _JSON)

    @app.post("/v1/events/{source}", **openapi.EVENTS)
    async def events(request: Request) -> Response:
        name = request.path_params["source"]
        return _answer(await server.produce(_visit(request), name, await request.body()))

    @app.get("/v1/services", **openapi.SERVICES)
    async def services(request: Request) -> Response:
        room, grant = _entered(_visit(request))
        manifest = room.store.manifest
        found = [openapi.described(room.store.plan(item.name)) for item in manifest.services if grant.reads(item.name)]
        return _answer({"tenant": room.name, "manifest": manifest.hash, "services": found})

    @app.get("/v1/manifest", **openapi.MANIFEST)
    async def manifest(request: Request) -> Response:
        return Response(_administered(request).store.manifest.to_json(), media_type=_JSON)

    @app.get("/v1/sla", **openapi.SLA)
    async def sla(request: Request) -> Response:
        room = _administered(request)
        return _answer({"tenant": room.name, "services": [asdict(item) for item in room.store.slas.report()]})

    @app.get("/health", **openapi.HEALTH)
    async def health() -> Response:
        return _answer({"status": "up"})

    @app.get("/ready", **openapi.READY)
    async def ready() -> Response:
        if server.gate.draining:
            raise OverloadedError("The server is about to stop.", "Ask another one.", retry_after=1.0)
        tenants = server.door.tenants
        problems = await server.rooms.problems(tenants)
        for name in tenants.tenants:
            server.meters.ready.labels(name).set(name not in problems)
        # One tenant's trouble is no reason to take the server from the others; the log and metrics tell.
        if problems and len(problems) == len(tenants.tenants):
            raise OverloadedError("No tenant can be served.", "See the server's log.", 1.0)
        return _answer({"status": "ready"})

    return app


def _with_schemes(document: dict[str, Any]) -> dict[str, Any]:
    document.setdefault("components", {})["securitySchemes"] = openapi.SCHEMES
    return document


def _visit(request: Request) -> Visit:
    found: Visit = request.scope["state"]["visit"]
    return found


def _administered(request: Request) -> Room:
    room, grant = _entered(_visit(request))
    if not grant.admin:
        raise AccessError("This takes a credential of an administrator.", "Make one: coeval tenants key --admin.")
    return room


def _answer(document: object) -> Response:
    return Response(wire.dumps(document), media_type=_JSON)


async def _written(
    write: Callable[[FeatureResult, str], bytes], result: FeatureResult, label: str, media_type: str
) -> Response:
    return Response(await aside(len(result), write, result, label), media_type=media_type)


async def _one(server: Server, visit: Visit, document: Any, max_rows: int) -> dict[str, Any]:
    """One of several requests: its result, or its error in the words of a request of its own."""
    try:
        if not isinstance(document, dict):
            raise RequestError("It is not a JSON object.", "Send requests as to /v1/features.")
        result, plan = await server.serve(visit, wire.ask_of(document, max_rows))
    except CoevalError as error:
        status, _, body = server.gate.refusal(visit, error)
        return {"status": status, "error": wire.document_of(body)}
    return {"status": 200, "result": wire.to_document(result, plan.label)}
