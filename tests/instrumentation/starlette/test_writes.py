"""What a FastAPI service writes with SQLAlchemy, under uvicorn: each row says who, through which route."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import StreamingResponse
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from websockets.sync.client import connect

import otel_audit
from otel_audit.audit_record import Actor, AuditRecord, Origin
from otel_audit.config.model import AuditConfig, ContextConfig, SQLAlchemyConfig
from otel_audit.instrumentation.http_clients import HttpClientsAuditInstrumentor
from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor
from otel_audit.instrumentation.starlette import StarletteAuditInstrumentor
from otel_audit.testing import CapturedAudit, capture_audit
from tests.instrumentation.starlette.serving import serving

ALICE = Actor("alice", "user")
PATIENCE = 30


class Base(DeclarativeBase):
    """Models of these tests."""


class Haul(Base):
    __tablename__ = "parcels"
    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(default="packed")


@contextmanager
def audited(**context: Any) -> Iterator[CapturedAudit]:
    """Everything that a service of this kind has switched on."""
    config = AuditConfig(
        sqlalchemy=SQLAlchemyConfig(models=["*parcels", "*.Haul"]), context=ContextConfig(**context)
    )
    instrumentors = (
        StarletteAuditInstrumentor(),
        SQLAlchemyAuditInstrumentor(),
        HttpClientsAuditInstrumentor(),
    )
    with capture_audit(config) as captured:
        for each in instrumentors:
            each.instrument()
        try:
            yield captured
        finally:
            for each in reversed(instrumentors):
                each.uninstrument()


class Service:
    """An application over one database, by both of SQLAlchemy's kinds of engine."""

    def __init__(self, path: Path) -> None:
        self.sync = sa.create_engine(f"sqlite:///{path}")
        self.asynchronous: AsyncEngine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        Base.metadata.create_all(self.sync)
        with Session(self.sync) as session:
            session.add_all([Haul(id=number) for number in range(1, 20)])
            session.commit()

    def ship(self, number: int, state: str = "shipped") -> None:
        with Session(self.sync) as session:
            session.get_one(Haul, number).state = state
            session.commit()

    async def ship_async(self, number: int, state: str = "shipped") -> None:
        async with AsyncSession(self.asynchronous) as session:
            (await session.get_one(Haul, number)).state = state
            await session.commit()

    def state(self, number: int) -> str:
        with Session(self.sync) as session:
            return session.get_one(Haul, number).state


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path / "parcels.sqlite3")
    yield made
    made.sync.dispose()
    asyncio.run(made.asynchronous.dispose())


async def authenticate(request: Request) -> None:
    otel_audit.set_actor(request.headers.get("x-user"))


AUTHENTICATED: Any = [Depends(authenticate)]
HEADERS = {"X-User": "alice"}


def written(audit: CapturedAudit) -> list[AuditRecord]:
    return [record for record in audit if record.action in ("CREATE", "UPDATE", "DELETE")]


def application(service: Service) -> FastAPI:
    """Every way in which a request may come to write."""
    app = FastAPI(dependencies=AUTHENTICATED)

    @app.post("/async/{number}")
    async def in_a_coroutine(number: int) -> None:
        await service.ship_async(number)

    @app.post("/sync/{number}")
    def in_the_thread_pool(number: int) -> None:
        service.ship(number)

    @app.post("/pool/{number}")
    async def by_run_in_threadpool(number: int) -> None:
        await run_in_threadpool(service.ship, number)

    @app.post("/background/{number}")
    async def in_a_background_task(number: int, tasks: BackgroundTasks) -> None:
        tasks.add_task(service.ship_async, number)

    @app.post("/sync-background/{number}")
    def in_a_background_thread(number: int, tasks: BackgroundTasks) -> None:
        tasks.add_task(service.ship, number)

    @app.post("/stream/{number}")
    async def in_a_stream(number: int) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"a"
            await service.ship_async(number)
            yield b"b"

        return StreamingResponse(body())

    @app.post("/sync-stream/{number}")
    def in_a_stream_of_a_thread(number: int) -> StreamingResponse:
        def body() -> Iterator[bytes]:
            yield b"a"
            service.ship(number)

        return StreamingResponse(body())

    async def session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(service.asynchronous) as session, session.begin():
            yield session

    @app.post("/dependency/{number}")
    async def at_the_end_of_a_dependency(
        number: int, session: Annotated[AsyncSession, Depends(session)]
    ) -> None:
        (await session.get_one(Haul, number)).state = "shipped"

    @app.post("/task/{number}")
    async def in_a_task(number: int) -> None:
        await asyncio.create_task(service.ship_async(number))

    below = FastAPI()

    @below.post("/parcels/{number}")
    async def mounted(number: int, request: Request) -> None:
        await authenticate(request)
        await service.ship_async(number)

    app.mount("/below", below)
    return app


WAYS = {
    "async": "/async/{number}",
    "sync": "/sync/{number}",
    "pool": "/pool/{number}",
    "background": "/background/{number}",
    "sync-background": "/sync-background/{number}",
    "stream": "/stream/{number}",
    "sync-stream": "/sync-stream/{number}",
    "dependency": "/dependency/{number}",
    "task": "/task/{number}",
    "below/parcels": "/below/parcels/{number}",
}


def test_a_row_says_who_wrote_it_and_through_which_route_whatever_way_it_went(service: Service) -> None:
    with audited() as audit:
        with serving(application(service)) as address, httpx.Client(base_url=f"http://{address}") as client:
            for number, way in enumerate(WAYS, 1):
                client.post(f"/{way}/{number}", headers=HEADERS).raise_for_status()
        found = written(audit)  # some when the answer was sent already
    assert {record.target.id: record.request.route for record in found if record.target} == {
        str(number): route for number, route in enumerate(WAYS.values(), 1)
    }
    assert len(found) == len(WAYS)
    assert {record.actor for record in found} == {ALICE}
    assert {record.outcome for record in found} == {"success"}
    assert len({record.request.id for record in found}) == len(WAYS)
    assert {record.source.id for record in found} == {"127.0.0.1"}


def test_what_a_websocket_writes_is_written_by_who_connected(service: Service) -> None:
    app = FastAPI()

    @app.websocket("/parcels/{number}/states")
    async def states(socket: WebSocket, number: int) -> None:
        otel_audit.set_actor(socket.headers["x-user"])
        await socket.accept()
        async for state in socket.iter_text():
            await service.ship_async(number, state)
            await socket.send_text("done")

    with audited() as audit:
        with (
            serving(app) as address,
            connect(f"ws://{address}/parcels/3/states", additional_headers=HEADERS) as socket_,
        ):
            for state in ("loaded", "shipped"):
                socket_.send(state)
                assert socket_.recv(PATIENCE) == "done"
        first, second = written(audit)
    assert first.actor == second.actor == ALICE
    assert first.request == second.request
    assert (first.request.method, first.request.route) == ("GET", "/parcels/{number}/states")


def test_what_is_written_at_start_and_end_is_the_systems(service: Service) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.ship_async(1)
        loop = asyncio.create_task(service.ship_async(2))
        yield
        await loop
        await run_in_threadpool(service.ship, 3)

    with audited() as audit:
        with serving(FastAPI(lifespan=lifespan)):
            pass
        found = written(audit)
    assert {record.target.id for record in found if record.target} == {"1", "2", "3"}
    assert {record.actor for record in found} == {Actor("lifespan", "system")}
    assert all(record.request.view.endswith(".lifespan") for record in found)


def _ask_and_leave(address: str, path: str, meanwhile: threading.Event) -> None:
    """Ask, and go away as soon as the service says that it is in the middle."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nX-User: alice\r\n\r\n".encode())
        assert meanwhile.wait(PATIENCE)


@pytest.mark.parametrize("middleware", [[], [Middleware(BaseHTTPMiddleware, dispatch=lambda r, n: n(r))]])
def test_a_client_that_goes_away_while_a_row_commits_is_who_wrote_it(
    service: Service, middleware: list[Middleware]
) -> None:
    app = FastAPI(dependencies=AUTHENTICATED, middleware=middleware)
    meanwhile, gone, over = threading.Event(), threading.Event(), threading.Event()

    @app.post("/parcels/{number}")
    async def ship(number: int) -> None:
        try:
            async with AsyncSession(service.asynchronous) as session:
                (await session.get_one(Haul, number)).state = "shipped"
                await session.flush()
                meanwhile.set()
                assert await asyncio.to_thread(gone.wait, PATIENCE)
                await session.commit()
        finally:
            over.set()

    with audited() as audit:
        with serving(app) as address:
            _ask_and_leave(address, "/parcels/3", meanwhile)
            gone.set()
            assert over.wait(PATIENCE)
        [record] = written(audit)
    assert service.state(3) == "shipped"
    assert (record.outcome, record.actor, record.request.route) == ("success", ALICE, "/parcels/{number}")


def test_a_stream_that_is_cancelled_leaves_what_is_true(service: Service) -> None:
    app = FastAPI(dependencies=AUTHENTICATED)
    meanwhile, over = threading.Event(), threading.Event()

    @app.post("/parcels/{number}")
    async def ship(number: int) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            try:
                await service.ship_async(number + 1)
                async with AsyncSession(service.asynchronous) as session:
                    (await session.get_one(Haul, number)).state = "shipped"
                    await session.flush()
                    yield b"flushed"
                    meanwhile.set()
                    await asyncio.Event().wait()  # cancelled by Starlette: the client is gone
                    await session.commit()
            finally:
                over.set()

        return StreamingResponse(body())

    with audited() as audit:
        with serving(app) as address:
            _ask_and_leave(address, "/parcels/3", meanwhile)
            assert over.wait(PATIENCE)
        committed, cancelled = written(audit)
    assert (service.state(4), service.state(3)) == ("shipped", "packed")
    assert (committed.outcome, cancelled.outcome) == ("success", "failure")
    assert committed.actor == cancelled.actor == ALICE
    assert committed.request == cancelled.request


def test_what_is_refused_in_the_middle_is_rolled_back_and_says_who_tried(service: Service) -> None:
    app = FastAPI(dependencies=AUTHENTICATED)

    @app.post("/parcels/{number}")
    async def ship(number: int) -> None:
        async with AsyncSession(service.asynchronous) as session, session.begin():
            (await session.get_one(Haul, number)).state = "shipped"
            await session.flush()
            raise HTTPException(403)

    with audited() as audit:
        with serving(app) as address:
            assert httpx.post(f"http://{address}/parcels/3", headers=HEADERS).status_code == 403
        [write] = written(audit)
        denied = audit.one(event_name="http.request.denied")
    assert service.state(3) == "packed"
    assert (write.outcome, write.actor) == ("failure", ALICE)
    assert (denied.actor, denied.request) == (ALICE, write.request)


def test_a_service_that_calls_itself_is_two_requests_which_one_person_began(
    service: Service,
) -> None:
    app = FastAPI(dependencies=AUTHENTICATED)
    addresses: list[str] = []

    @app.post("/orders/{number}")
    async def order(number: int) -> None:
        await service.ship_async(number, "ordered")
        async with httpx.AsyncClient() as client:
            url = f"http://{addresses[0]}/parcels/{number}"
            (await client.post(url, headers={"X-User": "orders"})).raise_for_status()
        await service.ship_async(number, "paid")

    @app.post("/parcels/{number}")
    def ship(number: int) -> None:
        service.ship(number)

    keys = {"k1": "a secret that only this service knows"}
    with audited(keys=keys, propagate_to=["127.0.0.1"], audience=["127.0.0.1"]) as audit:
        with serving(app) as address:
            addresses.append(address)
            httpx.post(f"http://{address}/orders/3", headers=HEADERS).raise_for_status()
        first, inner, last = written(audit)
    assert first.actor == last.actor == ALICE
    assert first.request == last.request
    assert (inner.actor.id, inner.actor.on_behalf_of) == ("orders", "alice")
    assert inner.origin == Origin("alice", "", first.request.id)
    assert inner.request.route == "/parcels/{number}"
    assert inner.request.id != first.request.id
