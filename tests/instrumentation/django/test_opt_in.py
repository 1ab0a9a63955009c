"""``__audit__`` beside a model and ``audit_models()`` in code decide what is recorded, as the file does."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, User
from django.db import connection, models
from django.db.models.sql.compiler import SQLCompiler
from django.test.utils import isolate_apps

import otel_audit
from otel_audit.capture import opt_in
from otel_audit.config.model import ModelConfig, RedactionConfig
from otel_audit.instrumentation.django.checks import audit_checks
from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.clinic.models import Patient, PatientOnFile, Ward
from tests.instrumentation.django.project import Instrumented
from tests.startup.agent import CONFIG, run

CLINIC = "tests.instrumentation.django.clinic"


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what other tests said, and afterwards what this one says."""
    monkeypatch.setattr(opt_in._State, "rules", ())
    monkeypatch.setattr(opt_in._State, "problems", {})


@pytest.fixture
def made(clinic: None) -> Iterator[Callable[..., Any]]:
    """Make model classes with a table each, in a registry of their own."""
    tables: list[Any] = []
    with isolate_apps(CLINIC):

        def make(name: str, /, *bases: type, **members: Any) -> Any:
            options = {"app_label": "clinic", **members.pop("meta", {})}
            fields = (
                {}
                if bases
                else {"name": models.CharField(max_length=20), "n": models.IntegerField(default=0)}
            )
            body = {"__module__": __name__, "Meta": type("Meta", (), options), **fields, **members}
            model: Any = type(name, bases or (models.Model,), body)
            if not (model._meta.abstract or model._meta.proxy):
                with connection.schema_editor() as editor:
                    editor.create_model(model)
                tables.append(model)
            return model

        yield make
        with connection.schema_editor() as editor:
            for model in reversed(tables):
                editor.delete_model(model)


def events(audit: CapturedAudit) -> list[str]:
    found = [record.event_name for record in audit.records]
    audit.clear()
    return found


# --- beside the model ------------------------------------------------------------------------------


def test_a_class_that_says_so_is_audited(instrumented: Instrumented, made: Callable[..., Any]) -> None:
    with instrumented() as audit:
        made("Silent").objects.create(name="a")
        card = made("Card", __audit__=True)
        one = card.objects.create(name="a")
        one.name = "b"
        one.save()
        with connection.cursor() as cursor:
            cursor.execute("UPDATE clinic_card SET n = 5")
        card.objects.all().delete()
        assert [record.completeness for record in audit.records] == ["full", "full", "statement", "full"]
        assert events(audit) == [f"clinic.card.{what}" for what in ("create", "update", "update", "delete")]


def test_it_may_say_how(instrumented: Instrumented, made: Callable[..., Any]) -> None:
    said = {"reads": True, "fields": {"name": "keep_last:2"}, "ignore": ["n"], "snapshot": True}
    with instrumented(ignore=["name"]) as audit:
        card = made("Card", __audit__=said | {"ignore": ["n", "!name"]})
        one = card.objects.create(name="123456")
        created = {change.field: change.new for change in audit.one(action="CREATE").changes}
        assert created["name"] == "[redacted]56"
        assert card.objects.get().name == "123456"
        assert audit.find(action="READ", target=f"clinic.Card/{one.pk}")
        audit.clear()
        card.objects.update(n=9)
        assert events(audit) == []
        card.objects.update(name="654321")
        [record] = audit.records
        assert record.changed_fields == ["name"]
        assert record.image["n"] == 9


def test_an_abstract_base_hands_it_down_and_a_child_may_say_otherwise(
    instrumented: Instrumented, made: Callable[..., Any]
) -> None:
    with instrumented() as audit:
        base = made("Base", meta={"abstract": True}, name=models.CharField(max_length=9), __audit__=True)
        made("Loud", base).objects.create(name="a")
        made("Quiet", base, __audit__=False).objects.create(name="a")
        made("Undecided", base, __audit__=None).objects.create(name="a")
        assert events(audit) == ["clinic.loud.create"]


def test_each_table_of_a_model_in_several_follows_its_own_class(
    instrumented: Instrumented, made: Callable[..., Any]
) -> None:
    with instrumented() as audit:
        parent = made("Parent", __audit__=True)
        child = made("Child", parent, bed=models.IntegerField(default=0))
        quiet = made("QuietChild", parent, __audit__=False, bed=models.IntegerField(default=0))
        child.objects.create(name="a")
        assert events(audit) == ["clinic.parent.create", "clinic.child.create"]
        quiet.objects.create(name="a")
        assert events(audit) == ["clinic.parent.create"]


def test_a_proxy_may_speak_for_a_model_that_says_nothing(
    instrumented: Instrumented, made: Callable[..., Any]
) -> None:
    with instrumented() as audit:
        model = made("Foreign")
        model.objects.create(name="before")
        proxy = made("Own", model, meta={"proxy": True}, __audit__=True)
        proxy.objects.create(name="a")
        model.objects.create(name="b")
        with connection.cursor() as cursor:
            cursor.execute("UPDATE clinic_foreign SET n = 5")
        assert events(audit) == ["clinic.foreign.create"] * 2 + ["clinic.foreign.update"]
        decided = made("Decided", __audit__=False)
        made("Loud", decided, meta={"proxy": True}, __audit__=True).objects.create(name="a")
        assert events(audit) == []


def test_the_table_of_a_relation_follows_the_class_that_declares_it(
    instrumented: Instrumented, made: Callable[..., Any]
) -> None:
    with instrumented() as audit:
        tag = made("Label")
        card = made("Card", __audit__=True, tags=models.ManyToManyField(tag))
        through = made(
            "Link",
            card=models.ForeignKey(card, models.CASCADE),
            tag=models.ForeignKey(tag, models.CASCADE),
        )
        other = made("Other", __audit__=True, tags=models.ManyToManyField(tag, through=through))
        del other
        one, label = card.objects.create(name="a"), tag.objects.create(name="t")
        audit.clear()
        one.tags.add(label)
        through.objects.create(card=one, tag=label, name="l")  # a model of its own, which says nothing
        assert events(audit) == ["clinic.card_tags.create"]


def test_the_configuration_wins_over_the_class(instrumented: Instrumented, made: Callable[..., Any]) -> None:
    options = {"models": ["!clinic.Card", "clinic.Quiet"], "model": {"clinic.Loud": ModelConfig(reads=False)}}
    with instrumented(**options) as audit:
        made("Card", __audit__=True).objects.create(name="a")
        made("Quiet", __audit__=False).objects.create(name="a")
        loud = made("Loud", __audit__={"reads": True})
        loud.objects.create(name="a")
        assert list(loud.objects.all())
        assert events(audit) == ["clinic.quiet.create", "clinic.loud.create"]


@pytest.mark.parametrize(
    "said", ["yes", {"raeds": True}, {"fields": 7, "ignore": 8, "old_values": 9}, object()]
)
def test_a_bad_value_costs_no_record_and_is_named_once(
    instrumented: Instrumented, made: Callable[..., Any], said: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with instrumented() as audit:
        card = made("Card", __audit__=said)
        for _ in range(3):
            card.objects.create(name="a")
        assert events(audit) == ["clinic.card.create"] * 3
        messages = caplog.messages
        assert messages
        assert len(messages) == len(set(messages))
        assert {message.id for message in audit_checks() if "Card" in message.msg} == {"otel_audit.W007"}


def test_classes_of_one_name_may_say_different_things(instrumented: Instrumented, clinic: None) -> None:
    def card(said: bool) -> Any:
        with isolate_apps(CLINIC):
            meta = type("Meta", (), {"app_label": "clinic", "db_table": "clinic_ward"})
            body = {
                "__module__": __name__,
                "Meta": meta,
                "__audit__": said,
                "name": models.CharField(max_length=9),
            }
            return type("Card", (models.Model,), body)

    kept: list[weakref.ref[Any]] = []
    with instrumented() as audit:
        for said in (True, False, True, False):
            model = card(said)
            model.objects.create(name="a")
            kept.append(weakref.ref(model))
            assert events(audit) == (["clinic.card.create"] if said else [])
            otel_audit.audit_models(model, changes=not said)
            model.objects.create(name="a")
            assert events(audit) == ([] if said else ["clinic.card.create"])
            del model


# --- from code -------------------------------------------------------------------------------------


def test_code_names_models_before_audit_is_started(instrumented: Instrumented) -> None:
    otel_audit.audit_models(User, "clinic.Ward", f"{CLINIC}.models.Patient")
    with instrumented() as audit:
        User.objects.create(username="a")
        Ward.objects.create(name="a")
        Patient.objects.create(name="a")
        Group.objects.create(name="a")
        assert events(audit) == ["auth.user.create", "clinic.ward.create", "clinic.patient.create"]


def test_code_names_models_while_audit_runs_and_takes_them_back(instrumented: Instrumented) -> None:
    with instrumented() as audit:
        ward = Ward.objects.create(name="a")
        otel_audit.audit_models(Ward)
        ward.name = "b"
        ward.save()
        with connection.cursor() as cursor:
            cursor.execute("UPDATE clinic_ward SET name = 'c'")
        assert events(audit) == ["clinic.ward.update"] * 2
        loaded = Ward.objects.get()
        loaded.name = "d"
        loaded.save()
        assert audit.records[0].changed_fields == ["name"]
        audit.clear()
        otel_audit.audit_models("!clinic.*")
        loaded.name = "e"
        loaded.save()
        Ward.objects.update(name="f")
        with connection.cursor() as cursor:
            cursor.execute("UPDATE clinic_ward SET name = 'g'")
        assert events(audit) == []


def test_nothing_of_it_is_left_when_the_instrumentor_goes(instrumented: Instrumented) -> None:
    plain = SQLCompiler.execute_sql
    with instrumented():
        otel_audit.audit_models(Ward, reads=True)
        assert SQLCompiler.execute_sql is not plain
        assert "from_db" in vars(Ward)
    assert SQLCompiler.execute_sql is plain
    assert "from_db" not in vars(Ward)
    otel_audit.audit_models(Group, reads=True)
    assert SQLCompiler.execute_sql is plain
    assert "from_db" not in vars(Group)


def test_an_abstract_class_stands_for_what_inherits_from_it(
    instrumented: Instrumented, made: Callable[..., Any]
) -> None:
    with instrumented() as audit:
        base = made("Base", meta={"abstract": True}, name=models.CharField(max_length=9))
        otel_audit.audit_models(base)
        made("Inheriting", base).objects.create(name="a")
        made("Other").objects.create(name="a")
        assert events(audit) == ["clinic.inheriting.create"]


def test_a_proxy_stands_for_its_concrete_model(instrumented: Instrumented) -> None:
    with instrumented() as audit:
        otel_audit.audit_models(PatientOnFile)
        Patient.objects.create(name="a")
        assert events(audit) == ["clinic.patient.create"]


def test_the_table_of_a_relation_follows_code_too(instrumented: Instrumented) -> None:
    with instrumented() as audit:
        patient, tag = Patient.objects.create(name="a"), apps.get_model("clinic.Tag").objects.create(name="t")
        otel_audit.audit_models(Patient)
        patient.tags.add(tag)
        assert events(audit) == ["clinic.patient_tags.create"]
        otel_audit.audit_models("!clinic.Patient_tags", Patient)
        patient.tags.clear()
        assert events(audit) == []


def test_classes_that_code_named_are_freed(instrumented: Instrumented) -> None:
    with instrumented():
        kept = []
        for _ in range(3):
            with isolate_apps(CLINIC):
                meta = type("Meta", (), {"app_label": "clinic"})
                made: Any = type("Made", (models.Model,), {"__module__": __name__, "Meta": meta})
            otel_audit.audit_models(made, reads=True)
            kept.append(weakref.ref(made))
            del made, meta
        gc.collect()
        assert [found() for found in kept[:-1]] == [None] * 2


# --- reads -----------------------------------------------------------------------------------------


def test_reads_cost_nothing_until_somebody_asks_for_them(
    instrumented: Instrumented, made: Callable[..., Any]
) -> None:
    plain = SQLCompiler.execute_sql
    with instrumented(models=["clinic.*"]):
        made("Card", __audit__=True)
        otel_audit.audit_models(Ward)
        assert SQLCompiler.execute_sql is plain
    with instrumented(reads=["!clinic.*"]):
        assert SQLCompiler.execute_sql is plain


@pytest.mark.parametrize("way", ["class", "code", "code before", "file"])
def test_reads_are_recorded_whoever_asks_for_them(
    instrumented: Instrumented, made: Callable[..., Any], way: str
) -> None:
    model: Any = Ward
    if way == "code before":
        otel_audit.audit_models(Ward, changes=False, reads=True)
    with instrumented(reads=["clinic.Ward"] if way == "file" else []) as audit:
        if way == "class":
            model = made("Card", __audit__={"changes": False, "reads": True})
        elif way == "code":
            otel_audit.audit_models(Ward, changes=False, reads=True)
        model.objects.create(name="a")
        assert len(model.objects.all()) == 1
        assert len(model.objects.raw(f"SELECT * FROM {model._meta.db_table}")) == 1
        assert Group.objects.count() == 0
        name = model._meta.label_lower
        assert events(audit) == [f"{name}.read"] * 2


# --- what is said of it ----------------------------------------------------------------------------


def told() -> list[str]:
    return [f"{message.id} {message.msg} {message.hint}" for message in audit_checks()]


def test_models_that_classes_or_code_name_are_audited_models(
    instrumented: Instrumented, made: Callable[..., Any]
) -> None:
    with instrumented():
        assert "W006" in told()[0]
        otel_audit.audit_models(Ward)
        assert told() == []


@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        ("clinic.Wrad", {}, "which matches no installed model. Did you mean 'clinic.Ward'?"),
        ("clinic.models.Ward", {}, f"Did you mean '{CLINIC}.models.Ward'?"),
        (int, {}, "names the class int, and it is not a model"),
        ("clinic.PatientOnFile", {}, "is a proxy: its rows are recorded as clinic.Patient"),
        (Ward, {"fields": {"nmae": "mask"}}, "none of its models has such a field. Did you mean 'name'?"),
        (Patient, {"ignore": ["ward_id"]}, "none of its models has such a field. Did you mean 'ward'?"),
        (
            "clinic.Inpatient",
            {"fields": {"name": "mask"}},
            "It is a field of clinic.Patient: write it there.",
        ),
        (
            Patient,
            {"fields": {"tags": "mask"}},
            "It is a relation: its rows are those of clinic.Patient_tags.",
        ),
        (Ward, {"fields": {"name": "hmac"}}, "is hmac, and there is no key: it is masked"),
        (Ward, {"changes": False, "snapshot": True}, "has snapshot, and none of its models is audited"),
    ],
)
def test_names_that_fit_nothing_are_named_with_the_line_and_the_nearest(
    instrumented: Instrumented, model: Any, options: dict[str, Any], expected: str
) -> None:
    otel_audit.audit_models(model, **options)
    with instrumented(models=["clinic.Tag"]):
        [message] = told()
    assert expected in message
    assert "test_opt_in.py:" in message


def of_ward(**options: Any) -> dict[str, Any]:
    return {"model": {"clinic.Ward": ModelConfig(**options)}}


def test_what_fits_is_not_worth_a_word(instrumented: Instrumented) -> None:
    otel_audit.audit_models(Patient, fields={"name": "hmac", "ward": "mask"}, ignore=["*name", "!NAME"])
    otel_audit.audit_models("!nowhere.*", PatientOnFile)
    key = RedactionConfig(hmac_key="0123456789abcdef")
    model = {"clinic.Patient": ModelConfig(snapshot=True, fields={"email": "mask"}, ignore=["balance"])}
    with instrumented(ignore=["card"], model=model, redaction=key):
        assert told() == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"ignore": ["nmae"]},
            "django.ignore has 'nmae', and no audited model has such a field. Did you mean",
        ),
        (of_ward(fields={"nam": "mask"}), "[django.model.\"clinic.Ward\"] says in fields how 'nam'"),
        (of_ward(ignore=["!nam"]), "[django.model.\"clinic.Ward\"] ignores '!nam'"),
        ({"model": {"auth.Group": ModelConfig(snapshot=True)}}, '[django.model."auth.Group"] has snapshot'),
        ({"models": ["clinic.Ward", f"{CLINIC}.models.Wrad"]}, f"Did you mean '{CLINIC}.models.Ward'?"),
    ],
)
def test_so_are_those_of_the_configuration(
    instrumented: Instrumented, options: dict[str, Any], expected: str
) -> None:
    with instrumented(**{"models": ["clinic.Ward"], **options}):
        [message] = told()
    assert expected in message


# --- at the start of an application ----------------------------------------------------------------

SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "library.apps.Library"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
"""
MODELS = """
from django.db import models
CALL

class Book(models.Model):
    title = models.CharField(max_length=20)
    __audit__ = {"reads": True, "field": 1}

class Shelf(models.Model):
    name = models.CharField(max_length=20)
"""
APPS = """
from django.apps import AppConfig

class Library(AppConfig):
    name = "library"

    def ready(self):
        READY
"""
PROGRAM = """
from django.core.management import call_command
call_command("migrate", run_syncdb=True, verbosity=0)
from library.models import Book, Shelf
Book.objects.create(title="a")
Shelf.objects.create(name="a")
list(Book.objects.all())
"""
SET_UP = "import otel_audit\notel_audit.setup()\n"
DJANGO = "import django\ndjango.setup()\n"
NAMES = "import otel_audit; otel_audit.audit_models('library.Shelf', 'library.Bok')"


@pytest.mark.parametrize(
    ("start", "call"),
    [
        ("agent", "in models"),
        ("agent", "in ready"),
        ("before", "in models"),
        ("before", "first of all"),
        ("after", "in ready"),
        ("after", "first of all"),
        ("while", "in models"),
    ],
)
def test_it_makes_no_difference_when_audit_was_started(tmp_path: Path, start: str, call: str) -> None:
    (tmp_path / "library").mkdir()
    ready = {"while": "import otel_audit; otel_audit.setup()"}.get(start, "pass")
    for name, content in {
        "__init__": "",
        "apps": APPS.replace("READY", NAMES if call == "in ready" else ready),
        "models": MODELS.replace("CALL", NAMES if call == "in models" else ""),
        "settings": SETTINGS,
    }.items():
        (tmp_path / "library" / f"{name}.py").write_text(content)
    begin = {"before": SET_UP + DJANGO, "after": DJANGO + SET_UP}.get(start, DJANGO)
    program = (f"{NAMES}\n" if call == "first of all" else "") + begin + PROGRAM
    done = run(
        tmp_path,
        program,
        config=CONFIG,
        environ={"DJANGO_SETTINGS_MODULE": "library.settings"},
        agent=start == "agent",
    )
    assert done.status == 0, done.errors
    assert (
        done.errors.count("'library.Bok', which matches no installed model. Did you mean 'library.Book'?")
        == 1
    )
    spool = b"".join(file.read_bytes() for file in (tmp_path / "spool").rglob("*") if file.is_file())
    for event in (b"library.book.create", b"library.book.read", b"library.shelf.create"):
        assert event in spool, event
    assert done.errors.count("'field' is not an option; did you mean 'fields'?") == 1
