"""``[sqlalchemy]``: what is recorded in SQLAlchemy."""

from typing import Annotated, Literal

from msgspec import Meta

from otel_audit.config.sections.capture import CaptureSection


class SQLAlchemyConfig(CaptureSection, frozen=True):
    models: Annotated[
        list[str],
        Meta(
            description="Models whose changes are recorded: package and name of a mapped class "
            "(`fulfilment.Shipment`), its path (`fulfilment.db.models.Shipment`), or the name of a table "
            "(`shipment`, `stock.shipment`), with `*` and `?`; a leading `!` excludes. The last pattern that "
            "matches decides. Classes (`__audit__`) and code (`audit_models()`) may name more."
        ),
    ] = []
    keys: Annotated[
        Literal["auto", "always", "never"],
        Meta(
            description="Keys that the database makes for many rows inserted by one statement that does not "
            "return them. `always`: ask for them, at the cost of a slower insert (twice the time with "
            "psycopg 3); `auto`: ask for those of up to 100 rows, and of more where the driver sends them "
            "together anyway (psycopg2, MariaDB); `never`: record how many rows were inserted."
        ),
    ] = "auto"
