package offline

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"github.com/hearthstore/hearth/feature"
)

// factDict is factRow with its columns encoded by dictionary, factPlain without.
type (
	factDict struct {
		K1      *string `parquet:"k1,optional,dict"`
		K2      *int64  `parquet:"k2,optional,dict"`
		Event   *int64  `parquet:"event,optional,dict,timestamp(microsecond)"`
		Created *int64  `parquet:"created,optional,dict,timestamp(microsecond)"`
		Deleted *bool   `parquet:"deleted,optional"`
		A       *int64  `parquet:"a,optional,dict"`
		B       *string `parquet:"b,optional,dict"`
	}
	factPlain struct {
		K1      *string `parquet:"k1,optional,plain"`
		K2      *int64  `parquet:"k2,optional,plain"`
		Event   *int64  `parquet:"event,optional,plain,timestamp(microsecond)"`
		Created *int64  `parquet:"created,optional,plain,timestamp(microsecond)"`
		Deleted *bool   `parquet:"deleted,optional"`
		A       *int64  `parquet:"a,optional,plain"`
		B       *string `parquet:"b,optional,plain"`
	}
)

// writeAs writes facts under another encoding of the same columns.
func writeAs[T factRow | factDict | factPlain](options ...parquet.WriterOption) func(*testing.T, string, []factRow) {
	return func(t *testing.T, path string, facts []factRow) {
		t.Helper()
		rows := make([]T, len(facts))
		for i, f := range facts {
			rows[i] = T(f)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := parquet.WriteFile(path, rows, options...); err != nil {
			t.Fatal(err)
		}
	}
}

// However the files of a source are encoded, whatever statistics they have, and whether they
// all are alike or not, each label has the row that the reference finds, for every plan.
// Seen red with the upper bound for pruning 100 microseconds too low, and with ties broken by the
// number of the row, or by created time alone.
func TestEncodingsEqualReference(t *testing.T) {
	t.Parallel()
	without := make([]parquet.WriterOption, 0, 7)
	for _, c := range []string{"k1", "k2", "event", "created", "deleted", "a", "b"} {
		without = append(without, parquet.SkipPageBounds(c), parquet.SkipPageStatistics(c))
	}
	small := parquet.MaxRowsPerRowGroup(700)
	writers := map[string]func(*testing.T, string, []factRow){
		"plain":      writeAs[factPlain](small),
		"dictionary": writeAs[factDict](small, parquet.Compression(&parquet.Zstd)),
		// A dictionary that grows too big: the first pages of a column have it, the others are plain.
		"dictionary, then plain": writeAs[factDict](parquet.DictionaryMaxBytes(256), parquet.PageBufferSize(512), parquet.DataPageVersion(1)),
		"delta, pages of version 2": writeAs[factRow](small, parquet.DataPageVersion(2), parquet.Compression(&parquet.Snappy),
			parquet.DefaultEncodingFor(parquet.Int64, &parquet.DeltaBinaryPacked), parquet.DefaultEncodingFor(parquet.ByteArray, &parquet.DeltaByteArray)),
		"no statistics":             writeAs[factPlain](append(without, small)...),
		"dictionary, no statistics": writeAs[factDict](append(without, small)...),
	}
	s := newSetting(t, 6_000, 1_500)
	e := openEngine(t)
	if err := os.RemoveAll(filepath.Join(s.dir, "facts")); err != nil {
		t.Fatal(err)
	}
	var digest string
	check := func(name, path string) {
		t.Helper()
		s.view.Source.Path = path
		s.req.Selection = selectionOf(t, []*feature.View{s.view}, ref(t, "facts:*"))
		for _, plan := range []Plan{PlanIndex, PlanASOF, PlanHash, PlanBucket} {
			m := s.build(t, e, func(r *DatasetRequest) { r.Plan = plan })
			if digest == "" {
				checkJoined(t, readJoined(t, s.req.Output), s.labels, s.facts, s.view.TTL, false)
				digest = m.Digest
			}
			if m.Digest != digest {
				t.Errorf("%s, plan %s: digest %s, want %s", name, plan, m.Digest, digest)
			}
		}
	}
	mixed, n := filepath.Join(s.dir, "mixed"), 0
	part := len(s.facts) / (len(writers) + 1)
	for name, write := range writers {
		path := filepath.Join(s.dir, fmt.Sprint("all", n), "p.parquet")
		write(t, path, s.facts)
		check(name, path)
		write(t, filepath.Join(mixed, fmt.Sprint(n, ".parquet")), s.facts[n*part:(n+1)*part])
		n++
	}
	// The engine's own newer encodings, from a file that has all rows.
	rest := filepath.Join(s.dir, "rest", "p.parquet")
	writeAs[factPlain]()(t, rest, s.facts[n*part:])
	op, err := e.session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = op.Exec(t.Context(), fmt.Sprintf("COPY (FROM '%s') TO '%s' (FORMAT parquet, PARQUET_VERSION v2, ROW_GROUP_SIZE 2048)", rest, filepath.Join(mixed, "v2.parquet")))
	if err != nil {
		t.Fatal(err)
	}
	var encodings string
	err = op.QueryRow(t.Context(), fmt.Sprintf("SELECT string_agg(DISTINCT encodings || CASE WHEN stats_min_value IS NULL THEN ' -' ELSE '' END, '; ') FROM parquet_metadata('%s/*.parquet')", mixed), &encodings)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"PLAIN, RLE;", "PLAIN, RLE -", "PLAIN, RLE, RLE_DICTIONARY;", "PLAIN, RLE, RLE_DICTIONARY -", "DELTA_BINARY_PACKED", "DELTA_BYTE_ARRAY"} {
		if !strings.Contains(encodings+";", want) {
			t.Errorf("no file has %q ('-' is without statistics): %s", want, encodings)
		}
	}
	if err := op.close(); err != nil {
		t.Fatal(err)
	}
	check("all of them, mixed", mixed)
}
