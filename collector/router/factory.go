// Package router hands audit records to the pipeline that bears the name of their log.
//
// Of the components there are, only filters could do that here: a filter for each log, in front of each a copy of
// every batch. Here a batch that is of one log, as ours are, is handed on as it is.
package router

import (
	"context"
	"errors"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/connector"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pipeline"
)

// Config says where a record names its log, and where those go whose log has no pipeline.
type Config struct {
	Attribute string      `mapstructure:"attribute"`
	Otherwise pipeline.ID `mapstructure:"otherwise"`
}

// Validate is called by the Collector before it starts, and by `validate`.
func (c *Config) Validate() error {
	if c.Attribute == "" {
		return errors.New("attribute: which attribute of a record names its log?")
	}
	if c.Otherwise == (pipeline.ID{}) {
		return errors.New("otherwise: which pipeline takes the records whose log has none?")
	}
	return nil
}

// NewFactory gives the connector to the Collector.
func NewFactory() connector.Factory {
	return connector.NewFactory(
		component.MustNewType("audit_router"),
		func() component.Config { return &Config{} },
		connector.WithLogsToLogs(create, component.StabilityLevelStable),
	)
}

func create(
	_ context.Context, _ connector.Settings, config component.Config, next consumer.Logs,
) (connector.Logs, error) {
	return newRouter(config.(*Config), next.(connector.LogsRouterAndConsumer))
}
