"""Two pages that update one row: a form as Django documents it, and hardly more than a save."""

from __future__ import annotations

from django.contrib.auth.mixins import LoginRequiredMixin
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from django.views.generic import UpdateView

from benchmarks.bench.models import Article
from benchmarks.bench.rows import change


class ArticleForm(LoginRequiredMixin, UpdateView):
    model = Article
    fields = "__all__"
    success_url = "/"


@csrf_exempt
@require_POST
def update(request: HttpRequest, pk: int) -> HttpResponse:
    if not request.user.is_authenticated:
        return HttpResponse(status=403)
    article = get_object_or_404(Article, pk=pk)
    change(article)
    article.save()
    return JsonResponse({"price": str(article.price)})


urlpatterns = [
    path("forms/<int:pk>/", ArticleForm.as_view(), name="form"),
    path("articles/<int:pk>/", update, name="update"),
]
