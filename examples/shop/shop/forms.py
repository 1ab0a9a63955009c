"""What visitors and staff may type."""

from __future__ import annotations

from decimal import Decimal

from django import forms

from shop.models import Customer, Order, Product, Tag


class QuantityForm(forms.Form):
    """How many of a product."""

    quantity = forms.IntegerField(min_value=0, max_value=99)


class OrderForm(forms.ModelForm):
    """What a customer may change of an order that is not packed yet."""

    class Meta:
        model = Order
        fields = ("address", "note")


class CustomerForm(forms.ModelForm):
    """What customer care may change of a customer."""

    class Meta:
        model = Customer
        fields = ("name", "email", "phone", "address")


class SaleForm(forms.Form):
    """A sale: which teas, how much off, and why."""

    tag = forms.ModelChoiceField(Tag.objects.all(), empty_label=None)
    percent = forms.IntegerField(min_value=1, max_value=90, initial=10)
    reason = forms.CharField(max_length=100, initial="Autumn sale")

    @property
    def factor(self) -> Decimal:
        """What prices are multiplied by."""
        return 1 - Decimal(self.cleaned_data["percent"]) / 100


class PriceForm(forms.ModelForm):
    """The price and stock of one tea."""

    class Meta:
        model = Product
        fields = ("price", "stock")
