"""Patients in the admin."""

from __future__ import annotations

from django.contrib import admin

from tests.instrumentation.django.clinic.models import Patient, Visit


class VisitInline(admin.TabularInline):  # type: ignore[type-arg]
    model = Visit
    extra = 0


@admin.register(Patient)
class PatientAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("name", "email")
    inlines = (VisitInline,)
