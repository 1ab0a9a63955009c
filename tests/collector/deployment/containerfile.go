package main

import (
	"context"
	"fmt"
	"os"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

type command struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

type stage struct {
	Name     string    `json:"name"`
	Base     string    `json:"base"`
	Commands []command `json:"commands"`
}

type container struct {
	Arguments []command `json:"arguments"`
	Stages    []stage   `json:"stages"`
}

// containerfile parses a container file: its arguments before the first stage, and its stages.
func containerfile(_ context.Context, arguments []string) (any, error) {
	if len(arguments) != 1 {
		return nil, fmt.Errorf("containerfile takes one FILE")
	}
	file, err := os.Open(arguments[0])
	if err != nil {
		return nil, err
	}
	defer file.Close()
	parsed, err := parser.Parse(file)
	if err != nil {
		return nil, err
	}
	if len(parsed.Warnings) > 0 {
		return nil, fmt.Errorf("%s: %s", arguments[0], parsed.Warnings[0].Short)
	}
	stages, global, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		return nil, err
	}
	found := container{Arguments: []command{}, Stages: []stage{}}
	for _, each := range global {
		found.Arguments = append(found.Arguments, command{each.Name(), each.String()})
	}
	for _, each := range stages {
		one := stage{each.Name, each.BaseName, []command{}}
		for _, instruction := range each.Commands {
			text := instruction.Name()
			if spelled, ok := instruction.(fmt.Stringer); ok {
				text = spelled.String()
			}
			one.Commands = append(one.Commands, command{instruction.Name(), text})
		}
		found.Stages = append(found.Stages, one)
	}
	return found, nil
}
