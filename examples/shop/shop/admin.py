"""The Django admin of the shop."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from shop import fulfilment
from shop.models import Card, Customer, Order, OrderLine, Product, Tag

admin.site.site_header = "Kettle & Leaf"
admin.site.site_title = "Kettle & Leaf"


class OrderLineInline(admin.TabularInline):
    """The lines, inside their order."""

    model = OrderLine
    extra = 0


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    """Orders, with an action that ships many at once."""

    list_display = ("id", "customer", "status", "total", "placed_at")
    list_filter = ("status",)
    inlines = (OrderLineInline,)
    actions = ("ship",)

    @admin.action(description="Mark as shipped")
    def ship(self, request: HttpRequest, queryset: QuerySet[Order]) -> None:
        """Set the status of all chosen orders by one UPDATE."""
        count = queryset.update(status=Order.Status.SHIPPED)
        self.message_user(request, f"{count} orders shipped.")

    def delete_model(self, request: HttpRequest, obj: Order) -> None:
        """Delete an order, and have nothing sent for it."""
        fulfilment.cancel(obj.pk)
        super().delete_model(request, obj)


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):
    """Teas; price and stock can be changed in the list."""

    list_display = ("name", "price", "stock")
    list_editable = ("price", "stock")
    list_filter = ("tags",)
    prepopulated_fields = {"slug": ("name",)}
    filter_horizontal = ("tags",)


@admin.register(Customer)
class CustomerAdmin(admin.ModelAdmin):
    """Customers, without their cards: those have a page of their own."""

    list_display = ("name", "email", "since")
    search_fields = ("name", "email")


@admin.register(Tag)
class TagAdmin(admin.ModelAdmin):
    """Tags."""

    prepopulated_fields = {"slug": ("name",)}


admin.site.register(Card)
