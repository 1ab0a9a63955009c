package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/connector"
	"go.opentelemetry.io/collector/connector/connectortest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pipeline"
)

const attribute = "otel_audit.log"

func id(name string) pipeline.ID { return pipeline.NewIDWithName(pipeline.SignalLogs, name) }

func connected(t *testing.T, pipelines map[pipeline.ID]consumer.Logs) connector.Logs {
	t.Helper()
	factory := NewFactory()
	made, err := factory.CreateLogsToLogs(
		context.Background(),
		connectortest.NewNopSettings(factory.Type()),
		&Config{Attribute: attribute, Otherwise: id("other")},
		connector.NewLogsRouter(pipelines),
	)
	if err != nil {
		t.Fatal(err)
	}
	if err := made.Start(context.Background(), componenttest.NewNopHost()); err != nil {
		t.Fatal(err)
	}
	return made
}

// request has two resources of two scopes each, in each scope a record of each log, in turn.
func request(logs ...any) plog.Logs {
	made := plog.NewLogs()
	for i := range 2 {
		resource := made.ResourceLogs().AppendEmpty()
		resource.SetSchemaUrl(fmt.Sprint("resource schema ", i))
		resource.Resource().Attributes().PutInt("resource", int64(i))
		for j := range 2 {
			scope := resource.ScopeLogs().AppendEmpty()
			scope.SetSchemaUrl(fmt.Sprint("scope schema ", j))
			scope.Scope().SetName(fmt.Sprint("scope ", j))
			for k, log := range logs {
				record := scope.LogRecords().AppendEmpty()
				record.Body().SetStr(fmt.Sprint(i, j, k))
				record.Attributes().PutStr("before", "it")
				if log != nil {
					_ = record.Attributes().PutEmpty(attribute).FromRaw(log)
				}
			}
		}
	}
	return made
}

// seen lists where each record stands, and its body.
func seen(all []plog.Logs) (found []string) {
	for _, logs := range all {
		for _, resource := range logs.ResourceLogs().All() {
			of, _ := resource.Resource().Attributes().Get("resource")
			for _, scope := range resource.ScopeLogs().All() {
				for _, record := range scope.LogRecords().All() {
					found = append(found, fmt.Sprint(
						resource.SchemaUrl(), of.Int(), scope.SchemaUrl(), scope.Scope().Name(), record.Body().Str(),
					))
				}
			}
		}
	}
	return found
}

func TestARequestOfOneLogIsHandedOnAsItIs(t *testing.T) {
	var got plog.Logs
	audit, _ := consumer.NewLogs(func(_ context.Context, logs plog.Logs) error { got = logs; return nil })
	sent := request("audit", "audit")
	sent.MarkReadOnly() // as when the mirror gets the same
	made := connected(t, map[pipeline.ID]consumer.Logs{id("audit"): audit, id("other"): consumertest.NewErr(errors.New("not here"))})
	if err := made.ConsumeLogs(context.Background(), sent); err != nil {
		t.Fatal(err)
	}
	if got != sent || made.Capabilities().MutatesData {
		t.Error("it was copied")
	}
}

func TestEachRecordOfAMixedRequestGoesToTheLogItNames(t *testing.T) {
	audit, activity, other := new(consumertest.LogsSink), new(consumertest.LogsSink), new(consumertest.LogsSink)
	made := connected(t, map[pipeline.ID]consumer.Logs{id("audit"): audit, id("activity"): activity, id("other"): other})
	logs := []any{"audit", "activity", "audit", "export", nil, 7, "other", ""}
	sent := request(logs...)
	sent.MarkReadOnly()
	if err := made.ConsumeLogs(context.Background(), sent); err != nil {
		t.Fatal(err)
	}
	for name, sink := range map[string]*consumertest.LogsSink{"audit": audit, "activity": activity, "other": other} {
		var wanted []string
		for position, record := range seen([]plog.Logs{sent}) {
			log := logs[position%len(logs)]
			if log == name || name == "other" && log != "audit" && log != "activity" {
				wanted = append(wanted, record)
			}
		}
		if found := seen(sink.AllLogs()); !slices.Equal(found, wanted) {
			t.Errorf("%s got\n%q, not\n%q", name, found, wanted)
		}
		for _, got := range sink.AllLogs() {
			if got.ResourceLogs().Len() != 2 || got.ResourceLogs().At(1).ScopeLogs().Len() != 2 {
				t.Errorf("%s: a resource or scope for each record", name)
			}
		}
	}
}

func TestARequestOneLogRefusesIsRefusedAndTheOthersHaveTheirs(t *testing.T) {
	full, other := errors.New("full"), new(consumertest.LogsSink)
	made := connected(t, map[pipeline.ID]consumer.Logs{id("audit"): consumertest.NewErr(full), id("other"): other})
	if err := made.ConsumeLogs(context.Background(), request("audit", "export")); !errors.Is(err, full) {
		t.Errorf("not refused: %v", err)
	}
	if other.LogRecordCount() != 4 {
		t.Error("the log that is not full has not got its records")
	}
}

func TestWhatIsMissingIsSaid(t *testing.T) {
	if (&Config{Otherwise: id("other")}).Validate() == nil || (&Config{Attribute: attribute}).Validate() == nil {
		t.Error("an incomplete configuration is valid")
	}
	_, err := newRouter(
		&Config{Attribute: attribute, Otherwise: id("other")},
		connector.NewLogsRouter(map[pipeline.ID]consumer.Logs{id("audit"): consumertest.NewNop()}).(connector.LogsRouterAndConsumer),
	)
	if err == nil {
		t.Error("records without a log of theirs would have nowhere to go")
	}
}
