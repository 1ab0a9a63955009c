"""What is counted, in one process per kind: ``python -m benchmarks.instructions.work KIND [JOB…]``.

Each job is done twice uncounted, then three times counted. No thread sends: it would be counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from http.cookies import SimpleCookie
from typing import Any, NamedTuple

from benchmarks.instructions.counter import Counter
from benchmarks.pipelines import without_sender
from otel_audit.config.model import DjangoConfig

_WARM = 2
_COUNTED = 3
FEW = 50
MANY = 1000
LISTED = 100


class Job(NamedTuple):
    """Something to count: ``prepare`` runs before, uncounted, and returns what is counted."""

    prepare: Callable[[], Callable[[], object]]
    each: int
    """How often it is done in one count."""


def _jobs() -> dict[str, Job]:
    from django.db import transaction

    from benchmarks.bench.models import Article, Category, Product
    from benchmarks.bench.rows import change, product, products

    number = 0

    def in_transaction(call: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            with transaction.atomic():
                call()

        return run

    def unique() -> str:
        nonlocal number
        number += 1
        return f"name {number:06}"

    def loaded(model: Any, count: int) -> list[Any]:
        return list(model.objects.order_by("pk")[:count])

    def save() -> Callable[[], object]:
        rows = loaded(Product, FEW)
        for row in rows:
            row.name = unique()
        return in_transaction(lambda: [row.save() for row in rows])

    def save_without_json() -> Callable[[], object]:
        rows = loaded(Article, FEW)
        for row in rows:
            change(row)
        return in_transaction(lambda: [row.save() for row in rows])

    def create() -> Callable[[], object]:
        rows = [product(number) for number in range(FEW)]
        return in_transaction(lambda: [Product.objects.create(**values) for values in rows])

    def create_alone() -> Callable[[], object]:
        rows = [product(number) for number in range(FEW)]
        return lambda: [Product.objects.create(**values) for values in rows]

    def delete() -> Callable[[], object]:
        keys = [row.pk for row in Product.objects.bulk_create(products(FEW))]
        rows = list(Product.objects.filter(pk__in=keys))
        return in_transaction(lambda: [row.delete() for row in rows])

    def bulk_create() -> Callable[[], object]:
        rows = products(MANY)
        return in_transaction(lambda: Product.objects.bulk_create(rows))

    def only(count: int) -> Any:
        Product.objects.all().delete()
        Product.objects.bulk_create(products(count))
        return Product.objects.all()

    def update() -> Callable[[], object]:
        rows, name = only(MANY), unique()
        return in_transaction(lambda: rows.update(name=name))

    def queryset_delete() -> Callable[[], object]:
        rows = only(MANY)
        return in_transaction(rows.delete)

    def list_of_100() -> Callable[[], object]:
        only(LISTED)
        return lambda: list(Product.objects.all())

    def get() -> Callable[[], object]:
        keys = [row.pk for row in loaded(Article, FEW)]
        return lambda: [Article.objects.get(pk=key) for key in keys]

    def unaudited() -> Callable[[], object]:
        return lambda: [Category.objects.get(pk=1) for _ in range(FEW)]

    return {
        "save": Job(save, FEW),
        "save without JSON": Job(save_without_json, FEW),
        "create": Job(create, FEW),
        "create alone": Job(create_alone, FEW),
        "delete": Job(delete, FEW),
        "bulk_create": Job(bulk_create, 1),
        "QuerySet.update": Job(update, 1),
        "QuerySet.delete": Job(queryset_delete, 1),
        "list": Job(list_of_100, 1),
        "get": Job(get, FEW),
        "unaudited": Job(unaudited, FEW),
        "POST": Job(_post(), 10),
    }


def _post() -> Callable[[], Callable[[], object]]:
    """Return a job that posts to the page that updates one row, as one user with a session."""
    from django.contrib.auth import get_user_model
    from django.core.wsgi import get_wsgi_application
    from django.test import Client, RequestFactory

    user, _ = get_user_model().objects.get_or_create(username="ana", defaults={"password": "!"})
    client = Client()
    client.force_login(user)
    application = get_wsgi_application()

    def prepare() -> Callable[[], object]:
        cookies: SimpleCookie = client.cookies
        cookie = "; ".join(f"{morsel.key}={morsel.value}" for morsel in cookies.values())
        factory = RequestFactory(headers={"cookie": cookie})
        requests = [factory.post(f"/articles/{key}/").environ for key in range(1, 11)]

        def post() -> None:
            for environ in requests:
                statuses: list[str] = []
                response = application(environ, lambda status, headers: statuses.append(status))  # noqa: B023
                list(response)
                response.close()
                if statuses != ["200 OK"]:
                    raise RuntimeError(f"the page answered {statuses}")

        return post

    return prepare


def _count(names: list[str]) -> None:
    counter = Counter()
    jobs = _jobs()
    for name in names:
        job = jobs[name]
        for repeat in range(_WARM + _COUNTED):
            call = job.prepare()
            if repeat < _WARM:
                call()
            else:
                counter(name, call)


def main(kind: str, names: list[str]) -> None:
    """Count the jobs ``names`` in a process of one ``kind``."""
    import django

    django.setup()

    from benchmarks.bench import models, rows

    rows.fill([models.Article], LISTED)
    models.Category.objects.create(name="tea")
    models.Product.objects.bulk_create(rows.products(LISTED))
    if kind.startswith("otel"):
        from opentelemetry import trace
        from opentelemetry.instrumentation.django import DjangoInstrumentor
        from opentelemetry.sdk.trace import TracerProvider

        trace.set_tracer_provider(TracerProvider())
        DjangoInstrumentor().instrument()
    if kind in ("plain", "otel"):
        _count(names)
        return
    audited = ["bench.Article", "bench.Product"]
    reads = audited if kind == "reads" else []
    django = DjangoConfig(models=[] if kind == "reads" else audited, reads=reads)
    with without_sender(django=django) as pipeline:
        before = pipeline.status().bytes
        _count(names)
        if names != ["list"] and pipeline.status().bytes <= before:
            raise RuntimeError("nothing was recorded: what was counted is no figure")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
