"""Code as it should not be: secrets in spans, exceptions, rows and records."""

from __future__ import annotations

import datetime

from django.contrib.auth import get_user_model
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode
from shop.models import Card, Customer

import otel_audit

tracer = trace.get_tracer("leaky")


@csrf_exempt
def leak(request: HttpRequest) -> HttpResponse:
    """Leak each secret of the form through the path it is named after, then fail with the last one."""
    secret = request.POST
    with tracer.start_as_current_span(f"GET /callback?access_token={secret['span_name']}") as span:
        span.set_attribute("db.query.text", f"UPDATE auth_user SET password='{secret['sql']}' WHERE id = 1")
        span.set_attribute("user.password", secret["attribute"])
        span.set_attribute("http.request.header.authorization", [f"Bearer {secret['list_attribute']}"])
        span.set_attribute(
            "url.full", f"https://pay:{secret['userinfo']}@bank.example/?api_key={secret['key']}"
        )
        span.add_event(
            "calling the bank", {"api_key": secret["event"], "url.query": f"token={secret['query']}"}
        )
        span.set_status(Status(StatusCode.ERROR, f"login failed: password={secret['status']}"))
    link = trace.Link(span.get_span_context(), {"client_secret": secret["link"]})
    with tracer.start_as_current_span("retry", links=[link]):
        pass

    customer = Customer.objects.get(pk=1)
    customer.notes = secret["dropped_field"]
    customer.phone = secret["masked_field"]
    customer.save()
    Card.objects.filter(customer=customer).update(card_number=secret["bulk_update"])
    get_user_model().objects.filter(username="noor").update(password=secret["password_column"])
    Card.objects.filter(customer_id=2).delete()
    Card.objects.bulk_create(
        [
            Card(
                customer_id=2,
                holder="Noor",
                card_number=secret["bulk_create"],
                expires=datetime.date(2030, 1, 31),
            )
        ]
    )
    with otel_audit.context(reason=f"customer read password={secret['reason']} over the phone"):
        otel_audit.record(
            "shop.card.verified",
            "EXECUTE",
            target=otel_audit.Target("shop.Card", "1"),
            message=f"token={secret['message']}",
            changes=[otel_audit.Change("pin", old=secret["old_value"], new=secret["new_value"])],
            attributes={"password": secret["own_attribute"], "bank": {"api_key": secret["nested"]}},
        )
    raise ValueError(f"the bank refused card {secret['card_in_exception']}, password={secret['exception']}")
