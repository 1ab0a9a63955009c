"""The answer to a refused request: the application's view or template, a plain page, or JSON."""

from __future__ import annotations

import inspect
from typing import Any

from asgiref.sync import async_to_sync
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template import TemplateDoesNotExist, loader
from django.utils.cache import patch_vary_headers
from django.utils.translation import get_language, gettext

from otel_audit.contrib.throttling import answers
from otel_audit.contrib.throttling.rules import ThrottlingException
from otel_audit.contrib.throttling.work import Work
from otel_audit.interruptions import faults
from otel_audit.pipeline.application_function import imported


def answer(work: Work, refusal: ThrottlingException) -> HttpResponseBase:
    """Answer that a request is refused, and record it if nobody has."""
    throttle = work.throttle
    request: HttpRequest = work.asked.request
    throttle.record(refusal, work.asked.route)
    response: Any = None
    if throttle.section.failure_view:
        try:
            response = imported(throttle.section.failure_view)(request, refusal)
            if inspect.isawaitable(response):
                response = async_to_sync(_awaited)(response)
        except faults() as fault:
            throttle.failed(fault, "the failure view", "a plain answer is sent")
            response = None
    if not isinstance(response, HttpResponseBase):
        response = _plain(work, request, refusal)
    for name, value in answers.headers(refusal.retry_after).items():
        response.headers.setdefault(name, value)
    return response  # type: ignore[no-any-return]


async def _awaited(answer: Any) -> Any:
    return await answer


def _plain(work: Work, request: HttpRequest, refusal: ThrottlingException) -> HttpResponse:
    said = str(refusal)
    description = gettext(said) if said else ""
    if _wants_json(request):
        text, media = answers.data(description, refusal.retry_after), "application/json"
    else:
        text, media = _page(work, request, refusal, description), "text/html; charset=utf-8"
    response = HttpResponse(text, status=refusal.status, content_type=media)
    patch_vary_headers(response, ["Accept"])
    return response


def _wants_json(request: HttpRequest) -> bool:
    accept = request.headers.get("Accept", "")
    if answers.wants_json(accept, request.content_type or ""):
        return True
    match = request.resolver_match
    of_rest_framework = match is not None and hasattr(getattr(match.func, "cls", None), "check_throttles")
    return of_rest_framework and "html" not in accept


def _page(work: Work, request: HttpRequest, refusal: ThrottlingException, description: str) -> str:
    name = work.throttle.section.template
    try:
        context = {"description": description, "retry_after": refusal.retry_after, "exception": refusal}
        return loader.get_template(name).render(context, request)
    except TemplateDoesNotExist as missing:
        if str(missing) != name:
            work.throttle.failed(missing, f"the template {name}", "a plain page is sent")
    except faults() as fault:
        work.throttle.failed(fault, f"the template {name}", "a plain page is sent")
    return answers.page(gettext("Too many requests"), description, get_language() or "en")
