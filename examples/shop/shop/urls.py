"""Addresses of the shop, the desk and the admin."""

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import path

from shop import desk, views

urlpatterns = [
    path("", views.shelf, name="shelf"),
    path("tea/<slug:slug>/", views.product, name="product"),
    path("tea/<slug:slug>/basket/", views.put_in_basket, name="put-in-basket"),
    path("basket/", views.show_basket, name="basket"),
    path("basket/buy/", views.buy, name="buy"),
    path("orders/", views.orders, name="orders"),
    path("orders/<int:pk>/", views.order, name="order"),
    path("orders/<int:pk>/cancel/", views.cancel, name="cancel"),
    path("desk/", desk.customers, name="desk"),
    path("desk/customers.csv", desk.export, name="desk-export"),
    path("desk/customers/<int:pk>/", desk.customer, name="desk-customer"),
    path("desk/customers/<int:pk>/card/", desk.card, name="desk-card"),
    path("desk/sale/", desk.sale, name="desk-sale"),
    path("desk/tea/<slug:slug>/", desk.price, name="desk-price"),
    path("login/", LoginView.as_view(), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("admin/", admin.site.urls),
    *staticfiles_urlpatterns(),
]
