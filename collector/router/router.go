package router

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/connector"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
)

type router struct {
	component.StartFunc
	component.ShutdownFunc
	attribute string
	routes    map[string]*route // by the name of the pipeline, which is that of the log
	otherwise *route
}

type route struct{ next consumer.Logs }

func newRouter(config *Config, next connector.LogsRouterAndConsumer) (*router, error) {
	made := &router{attribute: config.Attribute, routes: map[string]*route{}}
	for _, id := range next.PipelineIDs() {
		pipeline, err := next.Consumer(id)
		if err != nil {
			return nil, err
		}
		made.routes[id.Name()] = &route{pipeline}
		if id == config.Otherwise {
			made.otherwise = made.routes[id.Name()]
		}
	}
	if made.otherwise == nil {
		return nil, fmt.Errorf("otherwise: %q is no pipeline that receives from this connector", config.Otherwise)
	}
	return made, nil
}

// Capabilities tells the receiver that nobody needs a copy on our account.
func (r *router) Capabilities() consumer.Capabilities { return consumer.Capabilities{} }

// ConsumeLogs returns when every pipeline concerned has taken its part, with the errors of those that have not.
func (r *router) ConsumeLogs(ctx context.Context, logs plog.Logs) error {
	if only, all := r.only(logs); all {
		return only.next.ConsumeLogs(ctx, logs)
	}
	var failed error
	for _, part := range r.split(logs) {
		failed = errors.Join(failed, part.to.next.ConsumeLogs(ctx, part.logs))
	}
	return failed
}

// only gives the route of the first record, and whether all take it.
func (r *router) only(logs plog.Logs) (*route, bool) {
	var first *route
	for _, resource := range logs.ResourceLogs().All() {
		for _, scope := range resource.ScopeLogs().All() {
			for _, record := range scope.LogRecords().All() {
				switch found := r.route(record); first {
				case nil:
					first = found
				case found:
				default:
					return nil, false
				}
			}
		}
	}
	if first == nil { // no records at all
		first = r.otherwise
	}
	return first, true
}

func (r *router) route(record plog.LogRecord) *route {
	if log, named := record.Attributes().Get(r.attribute); named && log.Type() == pcommon.ValueTypeStr {
		if found, known := r.routes[log.Str()]; known {
			return found
		}
	}
	return r.otherwise
}

// part is what one route gets of a request. It copies, because the mirror may read the same request.
type part struct {
	to       *route
	logs     plog.Logs
	resource plog.ResourceLogs
	records  plog.LogRecordSlice
	// Of what `resource` and `records` are the part: the place of a resource in the request, and of a scope in that.
	ofResource, ofScope int
}

func (r *router) split(logs plog.Logs) []*part {
	var parts []*part
	of := map[*route]*part{}
	for i, resource := range logs.ResourceLogs().All() {
		for j, scope := range resource.ScopeLogs().All() {
			for _, record := range scope.LogRecords().All() {
				to := r.route(record)
				if of[to] == nil {
					of[to] = &part{to: to, logs: plog.NewLogs(), ofResource: -1}
					parts = append(parts, of[to])
				}
				of[to].add(record, i, resource, j, scope)
			}
		}
	}
	return parts
}

func (p *part) add(record plog.LogRecord, i int, resource plog.ResourceLogs, j int, scope plog.ScopeLogs) {
	if p.ofResource != i {
		p.resource = p.logs.ResourceLogs().AppendEmpty()
		p.resource.SetSchemaUrl(resource.SchemaUrl())
		resource.Resource().CopyTo(p.resource.Resource())
		p.ofResource, p.ofScope = i, -1
	}
	if p.ofScope != j {
		own := p.resource.ScopeLogs().AppendEmpty()
		own.SetSchemaUrl(scope.SchemaUrl())
		scope.Scope().CopyTo(own.Scope())
		p.records, p.ofScope = own.LogRecords(), j
	}
	record.CopyTo(p.records.AppendEmpty())
}
