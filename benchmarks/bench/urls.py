"""One page: it updates one row."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import path
from django.views.decorators.http import require_POST

from benchmarks.bench.models import Article
from benchmarks.bench.rows import change


@require_POST
def update(request: HttpRequest, pk: int) -> HttpResponse:
    if not request.user.is_authenticated:
        return HttpResponse(status=403)
    article = get_object_or_404(Article, pk=pk)
    change(article)
    article.save()
    return JsonResponse({"price": str(article.price)})


urlpatterns = [path("articles/<int:pk>/", update, name="update")]
