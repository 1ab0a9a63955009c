"""Work that goes on in other threads: who acts there is who asked for it, or nobody."""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import multiprocessing.pool
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import wrapt
from asgiref.sync import sync_to_async
from opentelemetry import context as otel
from opentelemetry.sdk.trace import TracerProvider

from otel_audit.audit_context import (
    ContextFields,
    StarterScope,
    context,
    current_context,
    current_fields,
    enter_scope,
    leave_scope,
    moment,
    process_scope,
)
from otel_audit.audit_record import Actor, Origin, Request
from otel_audit.config.model import AuditConfig
from tests.capture.toy_instrumentor import ToyInstrumentor


class Visit:
    """A request, as an instrumentor of requests has one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ended = False

    def take_actor(self) -> object:
        return self.name

    def who(self) -> tuple[Actor, str]:
        return Actor(self.name, "user"), f"request of {self.name}"

    def fields(self, noticed: object = None) -> ContextFields:
        name = str(noticed or self.name)
        return ContextFields(actor=Actor(name, "user"), request=Request(id=f"request of {name}"))


@contextmanager
def visit(name: str) -> Iterator[Visit]:
    scope = Visit(name)
    token = enter_scope(scope)
    try:
        yield scope
    finally:
        scope.ended = True
        leave_scope(token)


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[ToyInstrumentor]:
    instrumentor = ToyInstrumentor()
    instrumentor.instrument(config=AuditConfig(), skip_dep_check=True)
    yield instrumentor
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


def who() -> str:
    return current_fields().actor.id


def in_thread(thread: threading.Thread) -> None:
    thread.start()
    thread.join()


def test_a_pool_warmed_by_one_user_acts_for_the_other() -> None:
    with ThreadPoolExecutor(1) as pool:
        with visit("ana"):
            assert pool.submit(who).result() == "ana"
        assert pool.submit(who).result() == process_scope.name
        with visit("ben"):
            assert pool.submit(who).result() == "ben"
            assert list(pool.map(str.__add__, "ab", "cd")) == ["ac", "bd"]
        assert pool.submit(current_context).result() is None


def test_a_call_handed_to_a_pool_keeps_its_user_after_the_request_and_through_a_login() -> None:
    begin = threading.Event()

    def later() -> tuple[str, str]:
        begin.wait(20)
        return moment().fields().actor.id, current_fields().reason

    with ThreadPoolExecutor(1) as pool:
        with visit("ana") as scope, context(reason="export"):
            job = pool.submit(later)
            scope.name = "ben"
        begin.set()
        assert job.result() == ("ana", "export")


def test_a_call_handed_to_a_pool_belongs_to_the_trace_of_the_request() -> None:
    tracer = TracerProvider().get_tracer("test")
    with ThreadPoolExecutor(1) as pool, visit("ana"), tracer.start_as_current_span("request") as span:
        assert pool.submit(lambda: moment().span).result() is span


def test_arguments_exceptions_and_names_reach_the_call_as_they_are() -> None:
    def call(fn: str, /, *, executor: str, context: str) -> tuple[str, str, str]:
        return fn, executor, context

    with ThreadPoolExecutor(1) as pool, visit("ana"):
        assert pool.submit(call, "f", executor="e", context="c").result() == ("f", "e", "c")
        with pytest.raises(ZeroDivisionError):
            pool.submit(lambda: 1 / 0).result()


def test_a_timer_keeps_the_context_it_was_started_in() -> None:
    seen: list[str] = []
    with visit("ana"):
        timer = threading.Timer(0.05, lambda: seen.append(who()))
        timer.start()
    timer.join()
    assert seen == ["ana"]


def test_asyncio_and_asgiref_carry_the_context_of_each_call() -> None:
    async def asked() -> list[str]:
        found = []
        for name in ("ana", "ben"):
            with visit(name):
                found.append(await asyncio.to_thread(who))
                found.append(await sync_to_async(who)())
                found.append(await sync_to_async(who, thread_sensitive=False)())
                found.append(await asyncio.get_running_loop().run_in_executor(None, who))
        found.append(await asyncio.get_running_loop().run_in_executor(None, who))
        return found

    assert asyncio.run(asked()) == ["ana"] * 4 + ["ben"] * 4 + [process_scope.name]


@pytest.mark.parametrize("kind", ["target", "subclass"])
def test_a_bare_thread_names_its_starter_only_while_that_request_lives(kind: str) -> None:
    ask, answered = threading.Semaphore(0), threading.Semaphore(0)
    answers: list[ContextFields] = []

    def work() -> None:
        for _ in range(2):
            ask.acquire()
            answers.append(moment().fields())
            answered.release()

    class Worker(threading.Thread):
        def run(self) -> None:
            work()

    thread = Worker() if kind == "subclass" else threading.Thread(target=work)
    with visit("ana"):
        thread.start()
        ask.release()
        answered.acquire()
    ask.release()
    thread.join()
    during, after = answers
    assert (during.actor, during.origin) == (Actor("ana", "user"), None)
    assert after.actor == process_scope.fields().actor
    assert after.origin == Origin("ana", "", "request of ana")
    assert after.request == Request()


def test_what_a_thread_wrote_during_the_request_stays_its_starters() -> None:
    taken = []
    with visit("ana"):
        in_thread(threading.Thread(target=lambda: taken.append(moment())))
    assert taken[0].fields().actor.id == "ana"


def test_a_thread_of_a_thread_has_the_same_origin_and_a_block_of_values_ends_as_a_request_does() -> None:
    answers: list[ContextFields] = []
    ended = threading.Event()

    def inner() -> None:
        ended.wait(20)
        answers.append(current_fields())

    def outer() -> None:
        thread = threading.Thread(target=inner)
        threads.append(thread)
        thread.start()

    threads: list[threading.Thread] = []
    for block in (visit("ana"), context(actor="ana")):
        ended.clear()
        with block:
            in_thread(threading.Thread(target=outer))
        ended.set()
        threads.pop().join()
    assert [answer.origin and answer.origin.actor for answer in answers] == ["ana", "ana"]
    assert {answer.actor for answer in answers} == {process_scope.fields().actor}


def test_a_thread_does_not_keep_the_request_alive() -> None:
    import weakref

    done = threading.Event()
    with visit("ana") as scope:
        gone = weakref.ref(scope)
        thread = threading.Thread(target=done.wait)
        thread.start()
    del scope
    try:
        assert gone() is None
    finally:
        done.set()
        thread.join()


def test_the_threads_of_other_pools_have_nobodys_context() -> None:
    with visit("ana"), multiprocessing.pool.ThreadPool(1) as pool:
        assert pool.apply(current_context) is None


def test_a_thread_that_could_not_be_started_runs_as_its_own_when_it_is_started_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("can't start new thread")

    seen: list[str] = []
    thread = threading.Thread(target=lambda: seen.append(who()))
    name = "_start_joinable_thread" if hasattr(threading, "_start_joinable_thread") else "_start_new_thread"
    with visit("ana"), monkeypatch.context() as patched:
        patched.setattr(threading, name, refuse)
        with pytest.raises(RuntimeError):
            thread.start()
    assert "run" not in vars(thread)
    in_thread(thread)
    assert seen == [process_scope.name]
    with visit("ana"), pytest.raises(RuntimeError):
        thread.start()
    assert "run" not in vars(thread)


def test_uninstrument_takes_everything_back_also_under_a_wrapper_of_others(
    instrumented: ToyInstrumentor, monkeypatch: pytest.MonkeyPatch
) -> None:
    instrumented.uninstrument()
    plain = threading.Thread.start, concurrent.futures.thread.ThreadPoolExecutor.submit
    assert [each.__module__ for each in plain] == ["threading", "concurrent.futures.thread"]
    instrumented.instrument(config=AuditConfig(), skip_dep_check=True)
    ours = threading.Thread.start
    assert ours is not plain[0]

    def theirs(thread: threading.Thread) -> None:
        ours(thread)

    monkeypatch.setattr(threading.Thread, "start", theirs)
    instrumented.uninstrument()
    assert threading.Thread.start is theirs
    seen: list[str] = []
    with visit("ana"):
        in_thread(threading.Thread(target=lambda: seen.append(who())))
    assert seen == [process_scope.name]
    monkeypatch.undo()
    threading.Thread.start = plain[0]  # type: ignore[method-assign]
    assert threading.Thread.start is plain[0]
    assert concurrent.futures.thread.ThreadPoolExecutor.submit is plain[1]


@contextmanager
def others_that_wrap_threads() -> Iterator[None]:
    """Wrap what OpenTelemetry's instrumentation of threads wraps, as it does: to carry its own context."""

    def submit(original: Any, pool: Any, args: Any, kwargs: Any) -> Any:
        here, (fn, *rest) = otel.get_current(), args
        return original(lambda *args, **kwargs: attached(here, fn, *args, **kwargs), *rest, **kwargs)

    def start(original: Any, thread: Any, args: Any, kwargs: Any) -> Any:
        thread.theirs = otel.get_current()
        return original(*args, **kwargs)

    def run(original: Any, thread: Any, args: Any, kwargs: Any) -> Any:
        return attached(thread.theirs, original, *args, **kwargs)

    def attached(here: Any, fn: Any, *args: Any, **kwargs: Any) -> Any:
        token = otel.attach(here)
        try:
            return fn(*args, **kwargs)
        finally:
            otel.detach(token)

    wrapped = {(ThreadPoolExecutor, "submit"): submit, (threading.Thread, "start"): start}
    wrapped[threading.Thread, "run"] = run
    before = {place: getattr(*place) for place in wrapped}
    for (owner, name), wrapper in wrapped.items():
        wrapt.wrap_function_wrapper(owner, name, wrapper)
    try:
        yield
    finally:
        for (owner, name), original in before.items():
            setattr(owner, name, original)


@pytest.mark.parametrize("first", [False, True])
def test_another_instrumentation_of_threads_goes_together_with_ours(
    instrumented: ToyInstrumentor, first: bool
) -> None:
    tracer = TracerProvider().get_tracer("test")
    if first:
        instrumented.uninstrument()
    with others_that_wrap_threads():
        if first:
            instrumented.instrument(config=AuditConfig(), skip_dep_check=True)
        with ThreadPoolExecutor(1) as pool:
            for name in ("ana", "ben"):
                with visit(name), tracer.start_as_current_span("request") as span:
                    asked = pool.submit(lambda: (who(), moment().span))
                    assert asked.result() == (name, span)
                    seen: list[object] = []
                    in_thread(threading.Thread(target=lambda: seen.append((who(), moment().span))))  # noqa: B023
                    assert seen == [(name, span)]
        if first:
            instrumented.uninstrument()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_call_handed_to_another_process_takes_along_who_asked_for_it(method: str) -> None:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        with visit("ana"), context(reason="export"):
            fields = pool.submit(current_fields).result()
            assert (fields.actor, fields.reason) == (Actor("ana", "user"), "export")
        assert pool.submit(current_context).result() is None
        with visit("ben"):
            assert list(pool.map(who_of, [1])) == ["ben"]


def who_of(number: int) -> str:
    return who()


def test_a_process_forked_in_a_request_is_the_services_and_says_who_began_it() -> None:
    def in_child(pipe: Any) -> None:
        pipe.send(current_fields())

    mine, theirs = multiprocessing.Pipe()
    with visit("ana"), context(reason="export"):
        process = multiprocessing.get_context("fork").Process(target=in_child, args=(theirs,))
        process.start()
        fields: ContextFields = mine.recv()
        process.join()
        assert who() == "ana"
    assert fields.actor == process_scope.fields().actor
    assert (fields.origin, fields.reason) == (Origin("ana", "", "request of ana"), "")


def test_celery_is_not_imported_for_its_tasks() -> None:
    code = (
        "import sys; from otel_audit.config.model import AuditConfig\n"
        "from tests.capture.toy_instrumentor import ToyInstrumentor\n"
        "ToyInstrumentor().instrument(config=AuditConfig(), skip_dep_check=True)\n"
        "assert not [name for name in sys.modules if name.partition('.')[0] == 'celery']\n"
        "import celery\n"
        "from otel_audit.audit_context import current_fields\n"
        "app = celery.Celery('shop', broker='memory://')\n"
        "@app.task(name='shop.bill')\n"
        "def bill(): return current_fields().actor\n"
        "print(bill.apply().get().id, current_fields().actor.id)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert answer.stdout.split() == ["shop.bill", "unknown_service"], answer.stderr


def test_a_task_acts_by_its_name_and_one_called_eagerly_is_its_callers() -> None:
    import celery

    app = celery.Celery("shop", broker="memory://", set_as_current=False)

    @app.task(name="shop.fail")  # type: ignore[untyped-decorator]
    def fail() -> None:
        raise ZeroDivisionError(current_fields().actor.type, current_fields().actor.id)

    with pytest.raises(ZeroDivisionError) as raised:
        fail.apply(throw=True)
    assert raised.value.args == ("system", "shop.fail")
    assert current_context() is None
    with visit("ana"), pytest.raises(ZeroDivisionError) as raised:
        fail.apply(throw=True)
    assert raised.value.args == ("user", "ana")


def test_a_scope_with_slots_of_its_own_may_start_threads() -> None:
    class Slotted:
        __slots__ = ()

        def fields(self) -> ContextFields:
            return ContextFields(actor=Actor("ana", "user"))

    token = enter_scope(Slotted())
    seen: list[object] = []
    in_thread(threading.Thread(target=lambda: seen.append(current_context())))
    leave_scope(token)
    (inside,) = seen
    assert isinstance(getattr(inside, "scope", None), StarterScope)
