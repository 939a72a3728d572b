package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/hearthstore/hearth/feature"
)

// columns is a column-oriented JSON object, in the order in which it was written.
type columns []column

type column struct {
	name   string
	values []any
}

// UnmarshalJSON keeps the order of the members and the text of numbers.
func (c *columns) UnmarshalJSON(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return errors.New("want an object of columns: {\"name\": [value, …]}")
	}
	*c = nil
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		col := column{}
		col.name, _ = t.(string)
		if seen[col.name] {
			return fmt.Errorf("column %q is given twice", col.name)
		}
		seen[col.name] = true
		if err := dec.Decode(&col.values); err != nil {
			return fmt.Errorf("column %q: want a list of values", col.name)
		}
		*c = append(*c, col)
	}
	return nil
}

// length is the number of rows, which all columns share.
func (c columns) length() (int, error) {
	if len(c) == 0 {
		return 0, fmt.Errorf("%w: no column is given", feature.ErrInvalid)
	}
	n := len(c[0].values)
	for _, col := range c {
		if len(col.values) != n {
			return 0, fmt.Errorf("%w: column %q has %d values, column %q has %d", feature.ErrInvalid, col.name, len(col.values), c[0].name, n)
		}
	}
	return n, nil
}

// rows turns entity columns into the reader's entities.
func (c columns) rows(limit int) ([]map[string]string, error) {
	n, err := c.length()
	if err != nil {
		return nil, fmt.Errorf("entities: %w", err)
	}
	if n > limit {
		return nil, tooMany("entities", n, limit)
	}
	rows := make([]map[string]string, n)
	for i := range rows {
		rows[i] = make(map[string]string, len(c))
	}
	for _, col := range c {
		for i, v := range col.values {
			// What is no scalar is no join key: the row lacks it, and the reader says so if a view
			// wants it.
			if text, ok := keyText(v); ok {
				rows[i][col.name] = text
			}
		}
	}
	return rows, nil
}

// keyText is the text of a join key's value.
func keyText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		return strconv.FormatBool(v), true
	}
	return "", false
}

// entities is a list of entities, or an object of columns: {"zipcode": [76104, 94107]}.
type entities struct {
	list []map[string]any
	cols columns
}

// UnmarshalJSON takes either.
func (e *entities) UnmarshalJSON(b []byte) error {
	*e = entities{}
	if b = bytes.TrimSpace(b); len(b) > 0 && b[0] == '{' {
		return e.cols.UnmarshalJSON(b)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := dec.Decode(&e.list); err != nil {
		return errors.New(`entities: want a list of objects, or an object of columns: [{"name": value}, …] or {"name": [value, …]}`)
	}
	return nil
}

// rows turns the entities into the reader's.
func (e entities) rows(limit int) ([]map[string]string, error) {
	if e.cols != nil {
		return e.cols.rows(limit)
	}
	if len(e.list) > limit {
		return nil, tooMany("entities", len(e.list), limit)
	}
	rows := make([]map[string]string, len(e.list))
	for i, entity := range e.list {
		rows[i] = make(map[string]string, len(entity))
		for name, v := range entity {
			text, ok := keyText(v)
			if !ok {
				return nil, fmt.Errorf("entity %d: %s: %w: a join key is a string, a whole number or a bool", i, name, feature.ErrInvalid)
			}
			rows[i][name] = text
		}
	}
	return rows, nil
}

func tooMany(what string, n, limit int) error {
	return fmt.Errorf("%s: %w: %d of them, the limit is %d", what, feature.ErrInvalid, n, limit)
}

// decode reads one JSON document. A body that is no such document is 400. A strict one
// refuses members that it does not know: a misspelt limit must not be a limit not set.
func decode(body io.Reader, doc any, strict bool) error {
	dec := json.NewDecoder(body)
	dec.UseNumber()
	if strict {
		dec.DisallowUnknownFields()
	}
	err := dec.Decode(doc)
	if err == nil {
		if _, extra := dec.Token(); extra == nil {
			err = errors.New("something follows the document")
		} else if !errors.Is(extra, io.EOF) {
			err = extra
		}
	}
	var tooBig *http.MaxBytesError
	if err == nil || errors.As(err, &tooBig) {
		return err
	}
	return problem{http.StatusBadRequest, "BadRequest", "the body is not the JSON that this path takes: " + err.Error()}
}
