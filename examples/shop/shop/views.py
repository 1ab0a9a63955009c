"""The shop: the shelf, a product, the basket, buying, and a customer's own orders."""

from __future__ import annotations

from decimal import Decimal

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

import otel_audit
from shop import basket, checkout, fulfilment
from shop.forms import OrderForm, QuantityForm
from shop.models import Customer, Order, Product, Tag


def customer_of(request: HttpRequest) -> Customer:
    """Find the customer behind the account that is logged in; staff have none."""
    if not request.user.is_authenticated:
        raise PermissionDenied
    customer = Customer.objects.filter(user_id=request.user.pk).first()
    if customer is None:
        raise PermissionDenied("This account has no customer.")
    return customer


@require_GET
def shelf(request: HttpRequest) -> HttpResponse:
    """Show all teas, or those of one tag."""
    tag = get_object_or_404(Tag, slug=request.GET["tag"]) if request.GET.get("tag") else None
    products = tag.products.all() if tag else Product.objects.all()
    return render(
        request,
        "shop/shelf.html",
        {"products": products.prefetch_related("tags"), "tags": Tag.objects.all(), "chosen": tag},
    )


@require_GET
def product(request: HttpRequest, slug: str) -> HttpResponse:
    """Show one tea."""
    return render(request, "shop/product.html", {"product": get_object_or_404(Product, slug=slug)})


@require_GET
def show_basket(request: HttpRequest) -> HttpResponse:
    """Show the basket."""
    lines = basket.lines(request)
    return render(
        request,
        "shop/basket.html",
        {"lines": lines, "total": sum((line.total for line in lines), Decimal(0))},
    )


@require_POST
def put_in_basket(request: HttpRequest, slug: str) -> HttpResponse:
    """Set how many of a tea are in the basket."""
    form = QuantityForm(request.POST)
    if form.is_valid():
        basket.put(request, get_object_or_404(Product, slug=slug), form.cleaned_data["quantity"])
    return redirect("basket")


@require_POST
@login_required
def buy(request: HttpRequest) -> HttpResponse:
    """Turn the basket into an order; where that fails, nothing of it stays."""
    lines = basket.lines(request)
    if not lines:
        return redirect("basket")
    try:
        order = checkout.place(customer_of(request), lines, request.POST.get("note", ""))
    except checkout.CheckoutError as error:
        messages.error(request, f"{error} Nothing was ordered.")
        return redirect("basket")
    otel_audit.relate(order)  # the request stands in the history of the order
    basket.empty(request)
    messages.success(request, "Thank you. The kettle is on.")
    return redirect(order)


@require_GET
@login_required
def orders(request: HttpRequest) -> HttpResponse:
    """Show a customer's own orders."""
    found = Order.objects.filter(customer=customer_of(request)).prefetch_related("lines__product")
    return render(request, "shop/orders.html", {"orders": found})


@login_required
def order(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one order, and change its address and note as long as it is not packed."""
    found = get_object_or_404(Order, pk=pk, customer=customer_of(request))
    form = OrderForm(request.POST or None, instance=found)
    if request.method == "POST" and found.open and form.is_valid():
        fulfilment.send(form.save())
        messages.success(request, "Saved.")
        return redirect(found)
    lines = found.lines.select_related("product")
    return render(request, "shop/order.html", {"order": found, "lines": lines, "form": form})


@require_POST
@login_required
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """Cancel an order that is not packed."""
    found = get_object_or_404(Order, pk=pk, customer=customer_of(request))
    if found.open:
        checkout.cancel(found)
        messages.success(request, "The order is cancelled and the tea is back on the shelf.")
    return redirect(found)
