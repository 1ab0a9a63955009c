package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/compose-spec/compose-go/v2/cli"
)

// compose loads a Compose file with the environment of this process: checked against the specification's
// schema, variables filled in, references between its parts resolved.
func compose(ctx context.Context, arguments []string) (any, error) {
	if len(arguments) < 1 {
		return nil, fmt.Errorf("compose takes a FILE, and the PROFILEs that are on")
	}
	options, err := cli.NewProjectOptions(
		arguments[:1], cli.WithOsEnv, cli.WithProfiles(arguments[1:]), cli.WithResolvedPaths(true),
	)
	if err != nil {
		return nil, err
	}
	project, err := options.LoadProject(ctx)
	if err != nil {
		return nil, err
	}
	text, err := project.MarshalJSON()
	return json.RawMessage(text), err
}
