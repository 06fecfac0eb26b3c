"""One serving process: everything a request meets, composed on one event loop.

1. Open the deployment, take a lease, seed the rate limits from the ledger, ask the location, connect to the engines.
2. Listen. From then on nothing waits for a disk on the thread of the loop.
3. On SIGTERM or SIGINT: stop accepting, let what is in work end, finish captures, write the ledger, give the lease up.

Leaves out: other processes (serve). As a program (`python -m keepless.app.worker`) it reads its plan from its standard
input.
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import uvloop
from starlette.applications import Starlette

from keepless import log
from keepless.accounts.appeared import appeared
from keepless.accounts.fence import Fence
from keepless.accounts.lease import Lease
from keepless.accounts.principal import PolicyInForce
from keepless.accounts.store import policy_in_force
from keepless.admin.app import routes as admin_routes
from keepless.admin.services import Services
from keepless.app.audio_urls import fetcher_of
from keepless.app.batches import book_of
from keepless.app.compose import Deployment, open_deployment
from keepless.app.harden import silence_loop
from keepless.app.health import checks_of, metrics_of
from keepless.app.housekeeping import Housekeeping
from keepless.app.life import born
from keepless.app.on_demand import open_id_provider
from keepless.app.plan import Plan, decode
from keepless.app.tuned import tuned_models
from keepless.app.tunings import book_of as tunings_of
from keepless.app.tunings import ending_of, file_deleted
from keepless.app.webhooks import endpoints_of
from keepless.batches.book import Book
from keepless.batches.expiring import Expiring
from keepless.config import EMBEDDED, Settings
from keepless.console.app import routes as console_routes
from keepless.console.door import by_key, by_session, first_of
from keepless.console.entrance import Entrance, federation_of
from keepless.console.entrance import routes as entrance_routes
from keepless.console.services import Services as ConsoleServices
from keepless.errors import ConfigError
from keepless.gateway.batches import routes as batch_routes
from keepless.gateway.endpoints import body_limits, fast_paths, handlers, other_methods
from keepless.gateway.files import FORM_BYTES
from keepless.gateway.files import routes as file_routes
from keepless.gateway.models import routes as model_routes
from keepless.gateway.refused import on_refused
from keepless.gateway.response_routes import routes as response_routes
from keepless.gateway.server import Server
from keepless.gateway.tuned import TunedModels
from keepless.gateway.tunings import model_deletion
from keepless.gateway.tunings import routes as tuning_routes
from keepless.gateway.uploads import routes as upload_routes
from keepless.gateway.watch import Watch
from keepless.governance.access import Access
from keepless.governance.cases import CaseDecisions
from keepless.governance.change import Office
from keepless.governance.controls import DataControls
from keepless.governance.erasure import Erasure
from keepless.governance.exports import Exports
from keepless.governance.governed import Governed
from keepless.governance.holds import Holds
from keepless.governance.openings import Openings
from keepless.governance.organizations import Organizations
from keepless.governance.people import People
from keepless.governance.refusals import Refusals
from keepless.governance.sign_in import SignIn
from keepless.http import problems
from keepless.http.auth import authenticate
from keepless.http.limits import RateLimits
from keepless.http.sessions import Sessions
from keepless.http.visitors import Visitors
from keepless.ids import Id
from keepless.incidents.abuse import Detector, Suspicion
from keepless.incidents.afterwards import Afterwards
from keepless.incidents.cases import CaseBook
from keepless.incidents.origin import Origins
from keepless.incidents.reliability import Reliability
from keepless.inference.checks import HealthChecks
from keepless.inference.embedded.fleet import backend_of
from keepless.inference.embedded.pulse import Pulses
from keepless.inference.router import Route, Router
from keepless.inference.upstream import upstream_backends
from keepless.log import Event
from keepless.pipeline import Way
from keepless.tuning.served import read_served
from keepless.usage.ledger import Ledger

__all__ = ["run"]

_DRAIN_S: Final = 15.0
_SWITCH_S: Final = 0.0005  # how long another thread may keep the interpreter from the event loop
_CAPTURE_THREADS: Final = 4


def run(plan: Plan, *, on_ready: Callable[[], None]) -> int:
    """Serve until a signal comes; 0 when everything that was in work ended in time."""
    deployment = open_deployment(plan.settings)
    try:
        return uvloop.run(_Worker(plan, deployment).serve(on_ready))
    finally:
        deployment.close()


class _Worker:
    """The parts of one serving process. Made before its event loop runs."""

    def __init__(self, plan: Plan, deployment: Deployment) -> None:
        settings, db, clock = plan.settings, deployment.db, deployment.clock
        self._plan: Final = plan
        self._deployment: Final = deployment
        self._settings: Final = settings
        self._lease: Final = Lease(db, clock, read_tuned=read_served)
        self._tuned: TunedModels | None = None
        self._refusals: Final = Refusals(db, clock, deployment.log)
        self._ledger: Final = Ledger(db, max_rows=settings.limits.ledger_rows, refused=self._refusals.note_requests)
        self._executor: Final = ThreadPoolExecutor(_CAPTURE_THREADS, thread_name_prefix="capture")
        self._housekeeping: Final = Housekeeping(deployment, sweeps=plan.sweeps)
        self._rate_limits: Final = RateLimits(
            clock, plan.counters if plan.counters >= 0 else None, alone=settings.workers == 1
        )
        self._cases: Final = CaseBook(
            db,
            clock,
            deployment.log,
            deployment.vault,
            self._policy_now,
            max_bytes=settings.limits.capture_bytes,
            auto_capture=settings.abuse_auto_capture,
        )
        self._watch: Final = Watch(Detector(clock, self._suspect), Origins(settings.trusted_proxies, clock))

    async def serve(self, on_ready: Callable[[], None]) -> int:
        """See `run`."""
        loop = asyncio.get_running_loop()
        silence_loop(loop)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        router = Router(self._routes())
        way = self._way()
        self._lease.on_swap = self._serving_tuned(router, way)
        await asyncio.to_thread(self._lease.start, loop)
        self._ledger.start()
        await asyncio.to_thread(self._housekeeping.start)
        await asyncio.to_thread(self._cases.start)
        self._watch.start(loop)
        checks = HealthChecks(target for route in router.routes() for target in route.targets)
        checks.start(loop)
        server = self._server(router, way)
        _settle_down()
        listening = socket.socket(fileno=os.dup(self._plan.listening))
        await server.listen(listening, _tls(self._settings))
        log.emit(Event.SERVER_STARTED)
        # Announcing may print to a slow terminal: not on the loop's thread.
        announced = loop.run_in_executor(None, on_ready)
        await stop.wait()
        log.emit(Event.SERVER_STOPPING)
        await announced
        await server.drain(_DRAIN_S)
        self._watch.stop()
        checks.stop()
        await router.close()
        if self._tuned is not None:
            await self._tuned.close()
        # In two steps: what the last captures conclude is recorded by the loop, before the ledger is written.
        await asyncio.to_thread(self._executor.shutdown)
        await asyncio.to_thread(self._stop)
        log.emit(Event.SERVER_STOPPED)
        return 0

    def _stop(self) -> None:
        self._cases.close()
        self._ledger.close()
        self._housekeeping.stop()
        self._lease.stop()

    def _routes(self) -> list[Route]:
        plan = self._plan
        pulses = Pulses(len(plan.engines), plan.pulses if plan.pulses >= 0 else None)
        engines = {engine.model: (engine, pulses[number]) for number, engine in enumerate(plan.engines)}
        routes = []
        for model in self._settings.models:
            if model.engine in EMBEDDED:
                at, pulse = engines[model.id]
                routes.append(Route(model, backend_of(model, Path(at.socket), at.key), pulse=pulse))
            else:
                routes.append(Route(model, *upstream_backends(model)))
        return routes

    def _serving_tuned(self, router: Router, way: Way) -> Callable[[], None]:
        """Find tuned models, where there is a host for them; what is done after every change of policy."""
        if self._plan.tuned is None:
            return way.enforce
        tuned = self._tuned = tuned_models(
            self._deployment, self._plan.tuned, lease=self._lease, router=router, executor=self._executor
        )

        def swapped() -> None:
            way.enforce()
            tuned.enforce()

        return swapped

    def _way(self) -> Way:
        deployment, settings = self._deployment, self._settings
        reliability = Reliability(
            deployment.db, deployment.vault, self._policy_now, max_bytes=settings.limits.capture_bytes
        )
        afterwards = Afterwards(deployment.clock, self._executor, reliability, self._cases)
        return Way(self._lease, self._ledger, deployment.clock, afterwards, capture_bytes=settings.limits.capture_bytes)

    def _suspect(self, suspicion: Suspicion) -> None:
        self._executor.submit(self._cases.suspect, suspicion)

    def _policy_now(self, organization_id: Id, project_id: Id) -> PolicyInForce | None:
        with self._deployment.db.read() as tx:
            return policy_in_force(tx, organization_id, project_id)

    def _entrance(self, office: Office) -> Entrance:
        """Where people sign in."""
        sign_in = SignIn(office.db, office.clock, office.log)
        return Entrance(
            sessions=Sessions(sign_in, self._settings),
            people=People(office, sign_in),
            federation=federation_of(self._settings.oidc, os.environ, open_id_provider),
            visitors=Visitors(Origins(self._settings.trusted_proxies, office.clock), office.clock),
        )

    def _server(self, router: Router, way: Way) -> Server:
        deployment, lease, ledger = self._deployment, self._lease, self._ledger
        db, clock, keeping = deployment.db, deployment.clock, deployment.log
        office = Office(db, clock, Fence(db, clock, lease.refresh_soon), keeping)
        limits = self._settings.limits
        answering = handlers(
            limits,
            lease=lease,
            router=router,
            way=way,
            ledger=ledger,
            clock=clock,
            rates=self._rate_limits,
            watch=self._watch,
            fetcher=fetcher_of(self._settings),
            tuned=self._tuned,
        )
        entrance = self._entrance(office)
        servers: list[Server] = []  # its numbers are asked only once it exists
        services = Services(
            settings=self._settings,
            db=db,
            clock=clock,
            lease=lease,
            log=keeping,
            organizations=Organizations(office),
            access=Access(office),
            people=entrance.people,
            sign_in=entrance.sessions.sign_in,
            controls=DataControls(office, lambda _: self._housekeeping.nudge()),
            sweeper=deployment.sweeper,
            holds=Holds(db, clock, keeping, deployment.sweeper),
            cases=CaseDecisions(db, clock, keeping),
            openings=Openings(db, clock, keeping, deployment.vault),
            refusals=self._refusals,
            erasure=Erasure(db, clock, keeping),
            webhooks=endpoints_of(deployment),
            location=deployment.location,
            checks=checks_of(deployment, ledger, router),
            metrics=lambda: metrics_of(servers[0], way, ledger, lease, router),
        )
        book, tunings = book_of(deployment), tunings_of(deployment, office.fence)
        deleted, ends = file_deleted(deployment, tunings), ending_of(deployment, office.fence)
        application = Starlette(
            routes=[
                *other_methods(),
                *model_routes(
                    lease,
                    router,
                    self._tuned,
                    model_deletion(lease, ends, ledger, clock),
                    appeared=appeared(db, [model.id for model in self._settings.models], clock.now_ms()),
                ),
                *response_routes(lease),
                *file_routes(
                    deployment.files,
                    lease=lease,
                    ledger=ledger,
                    clock=clock,
                    uploads=limits.uploads,
                    on_delete=deleted,
                    on_downloaded=Expiring(db, clock, deployment.vault).downloaded,
                ),
                *upload_routes(deployment.uploads, lease=lease, ledger=ledger, clock=clock, at_a_time=limits.uploads),
                *batch_routes(lease, book, ledger, clock, json_depth=limits.json_depth),
                *tuning_routes(
                    lease,
                    tunings,
                    ends,
                    ledger,
                    clock,
                    json_depth=limits.json_depth,
                ),
                *admin_routes(services),
                *entrance_routes(entrance),
                *console_routes(
                    _console(
                        services, deployment, book, entrance, file_deleted=deleted, tunings=tunings, tuning_ends=ends
                    )
                ),
            ],
            exception_handlers=dict(problems.handlers()),
        )
        # A path with a slash too many is unknown, as it is with OpenAI: a redirect would repeat the Host that was sent.
        application.router.redirect_slashes = False
        server = Server(
            fast_paths(answering),
            problems.Guard(application),
            limits,
            body_limits=body_limits(limits),
            upload_bytes=limits.file_bytes + FORM_BYTES,
            on_refused=on_refused(ledger, clock),
            gate=lambda request: authenticate(lease, request.fields.get(b"authorization")).organization.id,
        )
        servers.append(server)
        return server


def _console(
    services: Services, deployment: Deployment, book: Book, entrance: Entrance, **more: Any
) -> ConsoleServices:
    """The console stands on what the admin API stands on, and on what customers' files and batches are."""
    shared: dict[str, Any] = {one.name: getattr(services, one.name) for one in fields(Governed)}
    return ConsoleServices(
        **shared,
        exports=Exports(services.db, services.clock, services.log, deployment.vault),
        files=deployment.files,
        batches=book,
        doorkeeper=first_of(by_key(services.lease), by_session(entrance.sessions)),
        **more,
    )


def _settle_down() -> None:
    """Spare answers two pauses: looking again at objects that stay for good, and waiting for other threads."""
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_SWITCH_S)


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError):
        raise ConfigError("tls_cert and tls_key cannot be loaded") from None
    return context


def _main() -> int:
    plan = decode(born())

    def ready() -> None:
        with socket.socket(fileno=plan.ready) as supervisor, contextlib.suppress(OSError):
            supervisor.send(b"1")  # it may not listen any more

    try:
        return run(plan, on_ready=ready)
    except Exception as error:  # the interpreter would print its text
        log.failure(Event.SERVER_FAILED, error)
        return 2


if __name__ == "__main__":
    sys.exit(_main())
