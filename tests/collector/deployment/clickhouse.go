package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"reflect"

	"github.com/ClickHouse/clickhouse-go/v2"
)

type question struct {
	Address  string   `json:"address"`
	Database string   `json:"database"`
	User     string   `json:"user"`
	Password string   `json:"password"`
	Queries  []string `json:"queries"`
}

type column struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

type answer struct {
	Columns []column `json:"columns"`
	Rows    [][]any  `json:"rows"`
	Error   string   `json:"error"`
}

// query runs statements over HTTP with the driver of Grafana's data source; each has an answer or an error.
func query(ctx context.Context, _ []string) (any, error) {
	var asked question
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	database := clickhouse.OpenDB(&clickhouse.Options{
		Addr:        []string{asked.Address},
		Protocol:    clickhouse.HTTP,
		Auth:        clickhouse.Auth{Database: asked.Database, Username: asked.User, Password: asked.Password},
		Compression: &clickhouse.Compression{Method: clickhouse.CompressionGZIP},
	})
	defer database.Close()
	if err := database.PingContext(ctx); err != nil {
		return nil, err
	}
	answers := []answer{}
	for _, each := range asked.Queries {
		found, err := run(ctx, database, each)
		if err != nil {
			found.Error = err.Error()
		}
		answers = append(answers, found)
	}
	return answers, nil
}

func run(ctx context.Context, database *sql.DB, statement string) (answer, error) {
	found := answer{Columns: []column{}, Rows: [][]any{}}
	rows, err := database.QueryContext(ctx, statement)
	if err != nil {
		return found, err
	}
	defer rows.Close()
	types, err := rows.ColumnTypes()
	if err != nil {
		return found, err
	}
	for _, each := range types {
		found.Columns = append(found.Columns, column{each.Name(), each.DatabaseTypeName()})
	}
	for rows.Next() {
		values := make([]any, len(types))
		for index, each := range types {
			values[index] = reflect.New(each.ScanType()).Interface()
		}
		if err := rows.Scan(values...); err != nil {
			return found, err
		}
		found.Rows = append(found.Rows, values)
	}
	return found, rows.Err()
}
