"""Addresses of the shop, and of the page that leaks."""

from django.urls import path
from shop.urls import urlpatterns as shop_urls

from leaky.views import leak

urlpatterns = [path("leak/", leak), *shop_urls]
