"""Pages that write, read, fail and refuse."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

import otel_audit
from benchmarks.corpus.models import Article, Plain, Watched


@csrf_exempt
def change(request: HttpRequest, pk: int) -> HttpResponse:
    with transaction.atomic():
        article = get_object_or_404(Article, pk=pk)
        article.name = request.POST["name"]
        article.stock += 1
        article.save()
        Plain.objects.create(name=request.POST["name"], count=pk)
    return HttpResponse("changed")


@csrf_exempt
def fail(request: HttpRequest, pk: int) -> HttpResponse:
    with transaction.atomic():
        Plain.objects.create(name=request.POST["name"], count=pk)
        raise RuntimeError("the page fails")


@csrf_exempt
@transaction.atomic
def nested(request: HttpRequest, pk: int) -> HttpResponse:
    with otel_audit.context(reason=request.POST["name"], ticket=pk):
        Plain.objects.filter(pk=pk).update(count=pk)
        with otel_audit.context(actor=str(pk), on_behalf_of="9", tenant="b"):
            Plain.objects.create(name="inside", count=pk)
        Plain.objects.create(name="outside", count=pk)
    return HttpResponse("nested")


def show(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"names": list(Watched.objects.order_by("pk").values_list("name", flat=True)[:20])})


def refuse(request: HttpRequest) -> HttpResponse:
    raise PermissionDenied


@login_required
def members(request: HttpRequest) -> HttpResponse:
    return HttpResponse(Watched.objects.order_by("pk")[0].name)


_pages: dict[str, Any] = {
    "articles/<int:pk>/": change,
    "fail/<int:pk>/": fail,
    "nested/<int:pk>/": nested,
    "watched/": show,
    "refused/": refuse,
    "members/": members,
}
urlpatterns = [path(route, view) for route, view in _pages.items()]
