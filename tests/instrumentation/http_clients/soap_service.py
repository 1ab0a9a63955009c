"""A service by SOAP 1.1: its description and one operation. spyne does not run on Python 3.13."""

from __future__ import annotations

import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_NAMESPACE = "urn:fulfilment"
_ENVELOPE = "http://schemas.xmlsoap.org/soap/envelope/"
_WSDL = f"""<?xml version="1.0"?>
<definitions name="Fulfilment" targetNamespace="{_NAMESPACE}" xmlns="http://schemas.xmlsoap.org/wsdl/"
    xmlns:soap="http://schemas.xmlsoap.org/wsdl/soap/" xmlns:tns="{_NAMESPACE}"
    xmlns:xs="http://www.w3.org/2001/XMLSchema">
  <types>
    <xs:schema targetNamespace="{_NAMESPACE}" elementFormDefault="qualified">
      <xs:element name="ship"><xs:complexType><xs:sequence>
        <xs:element name="order" type="xs:int"/><xs:element name="password" type="xs:string"/>
      </xs:sequence></xs:complexType></xs:element>
      <xs:element name="shipResponse"><xs:complexType><xs:sequence>
        <xs:element name="result" type="xs:string"/>
      </xs:sequence></xs:complexType></xs:element>
    </xs:schema>
  </types>
  <message name="ship"><part name="parameters" element="tns:ship"/></message>
  <message name="shipResponse"><part name="parameters" element="tns:shipResponse"/></message>
  <portType name="Fulfilment">
    <operation name="ship"><input message="tns:ship"/><output message="tns:shipResponse"/></operation>
  </portType>
  <binding name="Fulfilment" type="tns:Fulfilment">
    <soap:binding style="document" transport="http://schemas.xmlsoap.org/soap/http"/>
    <operation name="ship">
      <soap:operation soapAction="{_NAMESPACE}/ship"/>
      <input><soap:body use="literal"/></input><output><soap:body use="literal"/></output>
    </operation>
  </binding>
  <service name="Fulfilment">
    <port name="Fulfilment" binding="tns:Fulfilment"><soap:address location="ADDRESS"/></port>
  </service>
</definitions>
"""
_ANSWER = f"""<?xml version="1.0"?>
<e:Envelope xmlns:e="{_ENVELOPE}"><e:Body>CONTENT</e:Body></e:Envelope>
"""
_SHIPPED = f'<shipResponse xmlns="{_NAMESPACE}"><result>shipped ORDER</result></shipResponse>'
_FAULT = "<e:Fault><faultcode>e:Client</faultcode><faultstring>no such order</faultstring></e:Fault>"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(200, _WSDL.replace("ADDRESS", f"http://{self.headers['Host']}/soap"))

    def do_POST(self) -> None:
        envelope = ElementTree.fromstring(self.rfile.read(int(self.headers["Content-Length"])))
        order = envelope.findtext(f"{{{_ENVELOPE}}}Body/{{{_NAMESPACE}}}ship/{{{_NAMESPACE}}}order") or ""
        if self.headers["SOAPAction"] != f'"{_NAMESPACE}/ship"' or int(order) < 0:
            self._answer(500, _ANSWER.replace("CONTENT", _FAULT))
        else:
            self._answer(200, _ANSWER.replace("CONTENT", _SHIPPED.replace("ORDER", order)))

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/xml; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: Any) -> None:
        return


@contextmanager
def serving_soap() -> Iterator[str]:
    """Serve until the block ends; the address of the description."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/?wsdl"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
