"""Calls by SOAP, through zeep and suds: recorded where their transports send them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import suds
import suds.client
import zeep

import otel_audit
from otel_audit.audit_record import Target
from otel_audit.config.sections.policy import PolicyRule
from tests.instrumentation.http_clients.conftest import recording
from tests.instrumentation.http_clients.soap_service import serving_soap

BOTH = PolicyRule(kind="outgoing", path="*", level="request_response")


@pytest.fixture
def soap() -> Iterator[str]:
    """The address of the description of a service."""
    with serving_soap() as address:
        yield address


def by_zeep(wsdl: str, order: int) -> Any:
    clients: Any = zeep
    return clients.Client(wsdl).service.ship(order, "s3cret")


def by_zeep_async(wsdl: str, order: int) -> Any:
    clients: Any = zeep
    transports: Any = zeep.transports

    async def call() -> Any:
        description = httpx.Client(trust_env=False)
        transport = transports.AsyncTransport(
            client=httpx.AsyncClient(trust_env=False), wsdl_client=description
        )
        client = clients.AsyncClient(wsdl, transport=transport)
        try:
            return await client.service.ship(order, "s3cret")
        finally:
            await transport.aclose()

    return asyncio.run(call())


def by_suds(wsdl: str, order: int) -> Any:
    return str(suds.client.Client(wsdl, cache=None).service.ship(order, "s3cret"))


Soap = Callable[[str, int], Any]
each_library = pytest.mark.parametrize(
    "library", [by_zeep, by_zeep_async, by_suds], ids=lambda each: each.__name__
)


@each_library
def test_a_call_by_soap_is_recorded_with_what_it_was_for(library: Soap, soap: str) -> None:
    with recording(BOTH) as captured, otel_audit.context(slug="ship", related=["shop.Order/7"]):
        assert library(soap, 7) == "shipped 7"
        description, call = captured.records
        assert description.attributes["http.request.method"] == "GET"
        assert (call.outcome, call.slug) == ("success", "ship")
        assert call.related == [Target("shop.Order", "7")]
        assert call.attributes["http.request.method"] == "POST"
        assert "ship" in call.attributes["http.request.header.soapaction"]
        assert "order" in call.attributes["request.body"]
        assert "shipped 7" in call.attributes["response.body"]
        captured.assert_no_secrets("s3cret")


@each_library
def test_a_fault_is_a_failure(library: Soap, soap: str) -> None:
    with recording() as captured:
        with pytest.raises((zeep.exceptions.Fault, suds.WebFault)):
            library(soap, -1)
        call = captured.records[-1]
        assert (call.outcome, call.error) == ("failure", "500")
