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


def made_in(
    number: str, event: str = "e", *, span: str = "", parent: str = "", at: int = 0, name: str = ""
) -> AuditEntry:
    return AuditEntry(
        id=name or f"{number}.{event}.{at}", timestamp=at, event_name=event, action="A", outcome="success",
        span_id=span, request_id=number, parent=parent,
    )  # fmt: skip


def shape(node: SpanNode) -> tuple[str, list[object], list[str]]:
    name = node.work.request_id if node.work else node.span.id if node.span else ""
    return name, [shape(each) for each in node.children], [each.event_name for each in node.entries]


def test_what_happened_in_a_piece_of_work_is_below_its_record() -> None:
    """Without any span: a request, the command it called, and the task that the command published."""
    trace = tree(
        "t",
        [],
        [
            made_in("r", "http.server.request", at=1),
            made_in("r", "change", at=2),
            made_in("c", "command.start", parent="r", at=3),
            made_in("c", "task.publish", parent="r", at=4),
            made_in("t", "task.run", parent="c", at=5),
            made_in("t", "change", parent="c", at=6),
            made_in("c", "command.run", parent="r", at=3),
            made_in("x", "other", at=7),
        ],
    )
    task = ("t", [], ["change"])
    command = ("c", [task], ["command.start", "task.publish"])
    assert [shape(root) for root in trace.roots] == [("r", [command], ["change"]), ("", [], ["other"])]
    assert trace.entries == 8


def test_records_in_spans_stay_there_and_those_of_the_same_span_go_below_its_work() -> None:
    trace = tree(
        "t",
        [a_span("server"), a_span("insert", "server", 1)],
        [
            made_in("r", "http.server.request", span="server", at=1),
            made_in("r", "read", span="server", at=2),
            made_in("r", "change", span="insert", at=3),
            made_in("r", "unsampled", span="lost", at=4),
            made_in("t", "task.run", span="worker", parent="r", at=5),
        ],
    )
    work = ("r", [], ["read", "unsampled", "task.run"])
    assert [shape(root) for root in trace.roots] == [
        ("server", [("insert", [], ["change"]), work], []),
    ]


def test_work_without_anything_inside_is_an_entry() -> None:
    trace = tree("t", [a_span("a")], [made_in("r", "http.server.request", span="a")])
    assert [shape(root) for root in trace.roots] == [("a", [], ["http.server.request"])]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("http.server.request", "task.run", "command.start", "command.run", "e")),
            st.integers(0, 4), st.integers(0, 4), st.integers(0, 3),
        ),
        max_size=14,
    )
)  # fmt: skip
def test_no_record_is_lost_whatever_its_parents_say(made: list[tuple[str, int, int, int]]) -> None:
    """Also where they form a circle."""
    entries = [
        made_in(str(own), event, parent=str(parent), span=str(where), at=at, name=str(at))
        for at, (event, own, parent, where) in enumerate(made)
    ]
    trace = tree("t", [a_span("1"), a_span("2", "1")], entries)
    found = [each.id for node in nodes(trace.roots) for each in node.entries]
    found += [node.work.id for node in nodes(trace.roots) if node.work is not None]
    assert sorted(found) == sorted(each.id for each in entries)


def test_kind_and_status_are_read_as_either_exporter_writes_them() -> None:
    row = {
        "id": "a", "parent_id": "", "name": "n", "kind": "SPAN_KIND_SERVER", "service": "s", "start": 1,
        "duration": 2, "status": "STATUS_CODE_ERROR", "status_message": "", "attributes": {}, "events": [],
    }  # fmt: skip
    assert (span(row).kind, span(row).status) == ("server", "error")
    assert span(row | {"kind": "Client", "status": "Unset"}).kind == "client"
