package materializer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/hearthstore/hearth/feature"
)

// maxLine is the longest NDJSON line: a value at DynamoDB's limit with room for JSON.
const maxLine = 4 << 20

// ParseNDJSON reads rows of a view from JSON objects, one per line, and gives each to fn.
// The members are the join keys and the features of the view by name, `event_timestamp`
// (required; RFC 3339 or as feature.ParseTime reads), `created_timestamp` and `deleted`. A
// view whose own names for the two timestamps are among the members may use those instead.
// An absent feature is null. A deleted row needs no features. Empty lines are skipped.
//
// The first wrong line ends the reading with an error matching feature.ErrInvalid that
// names its number, as does the first error of fn; rows before it have been given to fn.
func ParseNDJSON(v *feature.View, r io.Reader, fn func(feature.Row) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), maxLine)
	d := newRowDecoder(v)
	line := 0
	for s.Scan() {
		line++
		text := bytes.TrimSpace(s.Bytes())
		if line == 1 {
			text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
		}
		if len(text) == 0 {
			continue
		}
		row, err := d.decode(text)
		if err == nil {
			err = fn(row)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("line %d: %w", line+1, err)
	}
	return nil
}

type rowDecoder struct {
	view     *feature.View
	fields   []feature.Field
	features map[string]int
	keys     map[string]feature.JoinKey
	event    []string // the names that the event time may have
	created  []string
	deleted  []string
	values   []feature.Value
}

func newRowDecoder(v *feature.View) *rowDecoder {
	d := &rowDecoder{view: v, fields: v.Fields(), features: map[string]int{}, keys: map[string]feature.JoinKey{},
		event: []string{"event_timestamp"}, created: []string{"created_timestamp"}, deleted: []string{"deleted"}}
	for i, f := range d.fields {
		d.features[f.Name] = i
	}
	for _, jk := range v.JoinKeys {
		d.keys[jk.Name] = jk
	}
	for _, extra := range []struct {
		names *[]string
		name  string
	}{{&d.event, v.Source.TimestampField}, {&d.created, v.Source.CreatedTimestampColumn}, {&d.deleted, v.Source.DeletedColumn}} {
		if extra.name != "" && extra.name != (*extra.names)[0] {
			*extra.names = append(*extra.names, extra.name)
		}
	}
	return d
}

// decode reads one object. A name is a feature or join key first: the meta names give way.
func (d *rowDecoder) decode(text []byte) (feature.Row, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var object map[string]any
	if err := dec.Decode(&object); err != nil {
		return feature.Row{}, fmt.Errorf("%w: not a JSON object: %v", feature.ErrInvalid, jsonError(err))
	}
	if _, err := dec.Token(); err != io.EOF {
		return feature.Row{}, fmt.Errorf("%w: more than one JSON value on the line", feature.ErrInvalid)
	}
	row := feature.Row{Event: feature.NoTime, Created: feature.NoTime}
	d.values = append(d.values[:0], make([]feature.Value, len(d.fields))...)
	keys := make(map[string]string, len(d.keys))
	for name, x := range object {
		if err := d.member(&row, keys, name, x); err != nil {
			return feature.Row{}, err
		}
	}
	if row.Event == feature.NoTime {
		return feature.Row{}, fmt.Errorf("%w: %q is missing", feature.ErrInvalid, d.event[0])
	}
	var err error
	if row.Key, err = d.view.Key(keys); err != nil {
		return feature.Row{}, err
	}
	if !row.Deleted {
		if row.Features, err = feature.AppendFeatures(nil, d.fields, d.values); err != nil {
			return feature.Row{}, err
		}
	}
	return row, nil
}

func (d *rowDecoder) member(row *feature.Row, keys map[string]string, name string, x any) error {
	if jk, ok := d.keys[name]; ok {
		text, err := keyText(jk, x)
		if err != nil {
			return err
		}
		keys[name] = text
		return nil
	}
	if i, ok := d.features[name]; ok {
		v, err := feature.ValueOf(d.fields[i].Type, x)
		if err != nil {
			// The cause would quote the value, and values do not belong into errors.
			return fmt.Errorf("feature %q: %w: the value is no %s", name, feature.ErrInvalid, d.fields[i].Type)
		}
		d.values[i] = v
		return nil
	}
	switch {
	case is(d.event, name):
		return setTime(&row.Event, name, x, false)
	case is(d.created, name):
		return setTime(&row.Created, name, x, true)
	case is(d.deleted, name):
		b, ok := x.(bool)
		if !ok && x != nil {
			return fmt.Errorf("%w: %q must be true or false", feature.ErrInvalid, name)
		}
		row.Deleted = b
		return nil
	}
	names := append([]string{d.event[0], d.created[0], d.deleted[0]}, joinKeyNames(d.view)...)
	for _, f := range d.fields {
		names = append(names, f.Name)
	}
	return fmt.Errorf("%w: view %s has no %q; it takes %s", feature.ErrInvalid, d.view.ID(), name, strings.Join(names, ", "))
}

func is(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

func joinKeyNames(v *feature.View) []string {
	names := make([]string, len(v.JoinKeys))
	for i, jk := range v.JoinKeys {
		names[i] = jk.Name
	}
	return names
}

// keyText takes a join key as a JSON value of its type, or as text.
func keyText(jk feature.JoinKey, x any) (string, error) {
	if s, ok := x.(string); ok {
		return s, nil // View.Key checks it
	}
	v, err := feature.ValueOf(jk.Type, x)
	if err != nil {
		return "", fmt.Errorf("join key %q: %w: not a %s", jk.Name, feature.ErrInvalid, jk.Type)
	}
	text, err := v.KeyText(jk.Type)
	if err != nil {
		return "", fmt.Errorf("join key %q: %w", jk.Name, err)
	}
	return text, nil
}

func setTime(to *feature.Micros, name string, x any, nullable bool) error {
	if x == nil && nullable {
		return nil
	}
	s, ok := x.(string)
	if !ok {
		return fmt.Errorf("%w: %q must be a time as text, for example \"2021-08-25T12:00:00Z\"", feature.ErrInvalid, name)
	}
	at, err := feature.ParseTime(s)
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	*to = at
	return nil
}

// jsonError drops what could quote the input.
func jsonError(err error) string {
	var (
		syntax *json.SyntaxError
		wrong  *json.UnmarshalTypeError
	)
	if errors.As(err, &syntax) {
		return fmt.Sprintf("syntax error at byte %d", syntax.Offset)
	}
	if errors.As(err, &wrong) {
		return "the line is a JSON " + wrong.Value
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return "the line is cut off"
	}
	return "cannot be read"
}
