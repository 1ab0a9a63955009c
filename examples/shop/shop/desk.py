"""The desk: what staff see. Customer care looks customers up, the manager makes prices."""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import F
from django.db.models.functions import Round
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET

import otel_audit
from shop.forms import CustomerForm, PriceForm, SaleForm
from shop.models import Card, Customer, Order, Product

Arguments = ParamSpec("Arguments")
View = Callable[Concatenate[HttpRequest, Arguments], HttpResponse]


def staff_only(view: View[Arguments]) -> View[Arguments]:
    """Refuse everyone else; that somebody was refused is recorded without our doing."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Arguments.args, **kwargs: Arguments.kwargs) -> HttpResponse:
        if not (request.user.is_authenticated and request.user.is_staff):
            raise PermissionDenied("This page is for staff.")
        return view(request, *args, **kwargs)

    return guarded


@require_GET
@staff_only
def customers(request: HttpRequest) -> HttpResponse:
    """List customers and open orders."""
    waiting = Order.objects.exclude(status__in=[Order.Status.SHIPPED, Order.Status.CANCELLED])
    return render(
        request,
        "shop/desk/customers.html",
        {
            "customers": Customer.objects.prefetch_related("orders"),
            "waiting": waiting.select_related("customer"),
        },
    )


@require_GET
@staff_only
def export(request: HttpRequest) -> HttpResponse:
    """Return all customers as CSV.

    A row that leaves the house is worth a record, but nothing about a SELECT says that it does: this event is
    the application's own, recorded by one call.
    """
    found = list(Customer.objects.values_list("name", "email", "address"))
    response = HttpResponse(content_type="text/csv")
    response["Content-Disposition"] = 'attachment; filename="customers.csv"'
    csv.writer(response).writerows(found)
    otel_audit.record(
        "shop.customers.export",
        "EXPORT",
        target=otel_audit.Target("shop.Customer"),
        attributes={"rows": len(found), "format": "csv"},
    )
    return response


@staff_only
def customer(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one customer, and change them."""
    found = get_object_or_404(Customer, pk=pk)
    form = CustomerForm(request.POST or None, instance=found)
    if request.method == "POST" and form.is_valid():
        form.save()
        messages.success(request, "Saved.")
        return redirect("desk-customer", pk=pk)
    return render(request, "shop/desk/customer.html", {"customer": found, "form": form})


@require_GET
@staff_only
def card(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a customer's card: reading it is what the trail must know about."""
    found = get_object_or_404(Card.objects.select_related("customer"), customer_id=pk)
    return render(request, "shop/desk/card.html", {"card": found})


@staff_only
def sale(request: HttpRequest) -> HttpResponse:
    """Lower the prices of all teas of a tag, by one UPDATE."""
    form = SaleForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with otel_audit.context(reason=form.cleaned_data["reason"]):
            count = Product.objects.filter(tags=form.cleaned_data["tag"]).update(
                price=Round(F("price") * form.factor, precision=2)
            )
        messages.success(request, f"{count} prices changed.")
        return redirect("desk-sale")
    return render(request, "shop/desk/sale.html", {"form": form, "products": Product.objects.all()})


@staff_only
def price(request: HttpRequest, slug: str) -> HttpResponse:
    """Change the price and stock of one tea."""
    found = get_object_or_404(Product, slug=slug)
    form = PriceForm(request.POST or None, instance=found)
    if request.method == "POST" and form.is_valid():
        form.save()
        messages.success(request, "Saved.")
        return redirect("desk-sale")
    return render(request, "shop/desk/price.html", {"product": found, "form": form})
