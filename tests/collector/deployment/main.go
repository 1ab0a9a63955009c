// Command deployment reads the files of collector/ with the code of those who will run them, and prints what
// it understood as JSON: kustomize and the Kubernetes API's own types, Compose's loader, BuildKit's parser,
// and the ClickHouse client that Grafana's data source is built on. It says nothing about whether the content
// is good; the tests do.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
)

var commands = map[string]func(context.Context, []string) (any, error){
	"kubernetes":    kubernetes,
	"compose":       compose,
	"containerfile": containerfile,
	"query":         query,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: deployment kubernetes DIRECTORY | compose FILE [PROFILE…] | containerfile FILE | query <JSON")
		os.Exit(2)
	}
	found, err := commands[os.Args[1]](context.Background(), os.Args[2:])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(found)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
