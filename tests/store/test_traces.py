"""A trace as a tree: nothing lost, nothing twice, also where parents are missing or spans lie."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from otel_audit.store.entries import AuditEntry
from otel_audit.store.traces import Span, SpanNode, span, tree


def a_span(number: str, parent: str = "", start: int = 0) -> Span:
    return Span(
        id=number, parent_id=parent, name=number, kind="internal", service="shop", start=start, duration=1,
        status="unset", status_message="", attributes={}, events=[],
    )  # fmt: skip


def an_entry(span_id: str, at: int = 0) -> AuditEntry:
    return AuditEntry(
        id=f"e{at}", timestamp=at, event_name="e", action="A", outcome="success", span_id=span_id
    )


def nodes(roots: list[SpanNode]) -> Iterator[SpanNode]:
    for root in roots:
        yield root
        yield from nodes(root.children)


def test_spans_hang_below_their_parents_and_records_below_their_spans_in_the_order_of_time() -> None:
    trace = tree(
        "t",
        [a_span("late", "root", 5), a_span("root"), a_span("early", "root", 1)],
        [an_entry("late", 7), an_entry("late", 6)],
    )
    [root] = trace.roots
    assert root.span is not None
    assert [node.span.id for node in root.children if node.span] == ["early", "late"]
    assert [entry.timestamp for entry in root.children[1].entries] == [6, 7]
    assert (trace.spans, trace.entries) == (3, 2)


def test_a_span_whose_parent_is_elsewhere_is_a_root() -> None:
    trace = tree("t", [a_span("a", "not here"), a_span("b", "a")], [])
    assert [node.span.id for node in trace.roots if node.span] == ["a"]


def test_records_without_a_stored_span_are_kept_apart() -> None:
    trace = tree("t", [], [an_entry("sampled-out")])
    [root] = trace.roots
    assert root.span is None
    assert len(root.entries) == 1


def test_an_empty_trace_is_false() -> None:
    assert not tree("t", [], [])


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_every_span_and_record_is_there_once_even_in_circles(edges: list[tuple[int, int]]) -> None:
    spans = list({str(child): a_span(str(child), str(parent)) for child, parent in edges}.values())
    entries = [an_entry(str(child), at) for at, (child, _) in enumerate(edges)]
    trace = tree("t", spans, entries)
    found = [node.span.id for node in nodes(trace.roots) if node.span is not None]
    assert sorted(found) == sorted(each.id for each in spans)
    assert sum(len(node.entries) for node in nodes(trace.roots)) == len(entries)


def test_kind_and_status_are_read_as_either_exporter_writes_them() -> None:
    row = {
        "id": "a", "parent_id": "", "name": "n", "kind": "SPAN_KIND_SERVER", "service": "s", "start": 1,
        "duration": 2, "status": "STATUS_CODE_ERROR", "status_message": "", "attributes": {}, "events": [],
    }  # fmt: skip
    assert (span(row).kind, span(row).status) == ("server", "error")
    assert span(row | {"kind": "Client", "status": "Unset"}).kind == "client"
