"""Models by field: what a field's value is compared and recorded as, planned once per model."""

from otel_audit.instrumentation.django.plan.field_plan import ModelFieldPlan as ModelFieldPlan
from otel_audit.instrumentation.django.plan.model_plan import NOT_AUDITED as NOT_AUDITED
from otel_audit.instrumentation.django.plan.model_plan import ModelPlan as ModelPlan
from otel_audit.instrumentation.django.plan.model_policy import HISTORICAL as HISTORICAL
from otel_audit.instrumentation.django.plan.model_policy import ModelPolicy as ModelPolicy
from otel_audit.instrumentation.django.plan.model_policy import concrete_of as concrete_of
from otel_audit.instrumentation.django.plan.model_policy import may_name as may_name
from otel_audit.instrumentation.django.plan.model_policy import speaks_for as speaks_for
from otel_audit.instrumentation.django.plan.model_policy import subject as subject
