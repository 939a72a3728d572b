package offline

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tinylib/msgp/msgp"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/offline/internal/duck"
	"github.com/hearthstore/hearth/sql"
)

// Timestamp is an instant that is null in JSON when there is none.
type Timestamp struct{ feature.Micros }

// MarshalJSON writes RFC 3339, or null.
func (t Timestamp) MarshalJSON() ([]byte, error) {
	if t.Micros == feature.NoTime {
		return []byte("null"), nil
	}
	return []byte(`"` + t.String() + `"`), nil
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (t *Timestamp) UnmarshalJSON(b []byte) error {
	text := strings.Trim(string(b), `"`)
	if text == "null" {
		t.Micros = feature.NoTime
		return nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return fmt.Errorf("time %q: %w", text, err)
	}
	t.Micros = feature.MicrosOf(at)
	return nil
}

// maxExactQuantiles bounds the rows whose ages are sorted in memory for exact quantiles.
const maxExactQuantiles = 20_000_000

const (
	ageBins = 40
	// skewedAges is how many times the mean the greatest age may be in a histogram of even bins.
	skewedAges = 8
)

// ErrLeak marks a training set that failed its own audit. Nothing was published.
var ErrLeak = errors.New("a feature is newer than its label, or older than its TTL")

// errOtherRows marks a training set whose rows are not the spine's, in its order.
var errOtherRows = errors.New("the written rows are not the spine's, in the spine's order")

// audit reads the written files again and compares them with the winners: every label has
// its row, and no row has a feature from after its label. It fills the manifest.
func (d *dataset) audit(ctx context.Context, dir string) error {
	d.begin("audit")
	written := &spine{types: map[string]string{}, timeCol: d.spine.timeCol}
	files := make([]located, len(d.manifest.Files))
	for i, f := range d.manifest.Files {
		files[i].local = filepath.Join(dir, f.Path)
	}
	written.from = readParquet(files, false)
	if err := d.countRows(ctx, written, files); err != nil {
		return err
	}
	if written.total != d.spine.total {
		return fmt.Errorf("%d rows were written for %d labels; nothing was published", written.total, d.spine.total)
	}
	types, err := d.describe(ctx, written.from)
	if err != nil {
		return err
	}
	written.types = types
	at, ok := micros(sql.Ident(d.spine.timeCol), types[d.spine.timeCol], "")
	if !ok {
		return fmt.Errorf("the written label time has type %s", types[d.spine.timeCol])
	}
	written.time = at
	if err := d.sameSpine(ctx, written); err != nil {
		return err
	}
	if err := d.auditViews(ctx, "written"); err != nil {
		return err
	}
	if err := d.Exec(ctx, "DROP TABLE written"); err != nil {
		return err
	}
	return d.digest(ctx, written)
}

// sameSpine checks that the written rows are the spine's, in its order: sums over row
// number, time and keys of both are equal. It leaves numbers and times of the written rows in
// table written.
func (d *dataset) sameSpine(ctx context.Context, written *spine) error {
	seen := map[string]bool{}
	var keys []string
	for _, g := range d.req.Selection.Groups {
		exprs, problems := d.spine.keys(&d.req, g)
		if len(problems) > 0 {
			return problems
		}
		for _, e := range exprs {
			if !seen[e] {
				seen[e] = true
				keys = append(keys, e)
			}
		}
	}
	sum := "coalesce(sum(h::HUGEINT), 0)::VARCHAR"
	rows := func(s *spine) string {
		return fmt.Sprintf("SELECT %s AS row_id, %s AS t, hash(%s, %s, %s) AS h FROM %s", s.rowID, s.time, s.rowID, s.time, strings.Join(keys, ", "), s.from)
	}
	var sums [2]string
	if err := d.QueryRow(ctx, "SELECT "+sum+" FROM ("+rows(d.spine)+")", &sums[0]); err != nil {
		return err
	}
	if err := d.Exec(ctx, "CREATE OR REPLACE TEMP TABLE written AS "+rows(written)); err != nil {
		return err
	}
	if err := d.QueryRow(ctx, "SELECT "+sum+" FROM written", &sums[1]); err != nil {
		return err
	}
	if sums[0] != sums[1] {
		return fmt.Errorf("%w; nothing was published. This is a fault of Hearth: please report it", errOtherRows)
	}
	return nil
}

// auditViews compares the winners' times with the labels' and measures the ages.
func (d *dataset) auditViews(ctx context.Context, labels string) error {
	var first, last *int64
	if err := d.QueryRow(ctx, "SELECT min(t), max(t) FROM "+labels, &first, &last); err != nil {
		return err
	}
	m := d.manifest
	m.Spine.First, m.Spine.Last = Timestamp{feature.NoTime}, Timestamp{feature.NoTime}
	if first != nil && last != nil {
		m.Spine.First, m.Spine.Last = Timestamp{feature.Micros(*first)}, Timestamp{feature.Micros(*last)}
		if err := d.timeline(ctx, labels, *first, *last); err != nil {
			return err
		}
	}
	for i := range m.Views {
		v := &m.Views[i]
		ttl := int64(d.req.Selection.Groups[i].View.TTL / time.Microsecond)
		leak, stale := "ev > t OR t IS NULL", "false"
		if d.req.KnownAt {
			leak += " OR cr > t"
		}
		if ttl > 0 {
			stale = fmt.Sprintf("t::HUGEINT - ev > %d", ttl)
		}
		// Once, into a narrow table that all that follows reads.
		joined := "ages"
		query := fmt.Sprintf("CREATE OR REPLACE TEMP TABLE ages AS (SELECT (t::HUGEINT - ev) / 1e6 AS age, (%s) AS leak, (%s) AS stale FROM %s)", leak, stale, d.eventsOf(i, labels))
		if err := d.Exec(ctx, query); err != nil {
			return err
		}
		var low, high, mean *float64
		if err := d.QueryRow(ctx, "SELECT count(*), count(*) FILTER (leak), count(*) FILTER (stale), min(age), max(age), avg(age) FROM "+joined,
			&v.Matched, &v.Leaks, &v.Stale, &low, &high, &mean); err != nil {
			return err
		}
		if m.Rows > 0 {
			v.MatchRate = float64(v.Matched) / float64(m.Rows)
		}
		m.Leaks += v.Leaks
		if v.Leaks > 0 || v.Stale > 0 {
			return fmt.Errorf("%w: view %s: %d rows newer, %d too old; nothing was published. This is a fault of Hearth: please report it with the manifest of the inputs", ErrLeak, v.Alias, v.Leaks, v.Stale)
		}
		if low == nil || high == nil || mean == nil {
			continue
		}
		v.Age.Min, v.Age.Max = *low, *high
		if err := d.ages(ctx, joined, v, *mean); err != nil {
			return err
		}
	}
	return nil
}

// ages fills the histogram and the quantiles of a view. The bins are even where the ages are
// of one order, else powers of two of seconds.
func (d *dataset) ages(ctx context.Context, joined string, v *ViewManifest, mean float64) error {
	low, step := v.Age.Min, (v.Age.Max-v.Age.Min)/ageBins
	bin := fmt.Sprintf("least(floor((age - %g) / %g)::BIGINT, %d)", low, step, ageBins-1)
	edges := func(n int64) AgeBin { return AgeBin{From: low + float64(n)*step, To: low + float64(n+1)*step} }
	v.AgeScale = "linear"
	switch {
	case v.Age.Max > skewedAges*mean:
		v.AgeScale, bin = "log2", "CASE WHEN age < 1 THEN -1 ELSE floor(log2(age))::BIGINT END"
		edges = func(n int64) AgeBin {
			if n < 0 {
				return AgeBin{From: 0, To: 1}
			}
			return AgeBin{From: float64(int64(1) << n), To: float64(int64(2) << n)}
		}
	case step < 1e-6: // all of one age
		bin, edges = "0::BIGINT", func(int64) AgeBin { return AgeBin{From: low, To: low + 1} }
	}
	next := int64(math.MaxInt64)
	err := d.Each(ctx, "SELECT "+bin+" AS bin, count(*) FROM "+joined+" GROUP BY bin ORDER BY bin", func(scan func(dest ...any) error) error {
		var n, rows int64
		err := scan(&n, &rows)
		for ; next < n; next++ { // empty bins too, so that the bins are even
			v.Ages = append(v.Ages, edges(next))
		}
		next = n + 1
		b := edges(n)
		b.Count = rows
		v.Ages = append(v.Ages, b)
		return err
	})
	if err != nil {
		return err
	}
	// The exact quantiles hold every age in memory, which does not spill.
	if v.Matched > maxExactQuantiles || v.Matched*16 > duckMemory(d.engine.config.MemoryBytes)/4 {
		v.Age.P50, v.Age.P90, v.Age.P99 = quantile(v, 0.5), quantile(v, 0.9), quantile(v, 0.99)
		return nil
	}
	return d.QueryRow(ctx, "SELECT q[1], q[2], q[3] FROM (SELECT quantile_disc(age, [0.5, 0.9, 0.99]) AS q FROM "+joined+")", &v.Age.P50, &v.Age.P90, &v.Age.P99)
}

// quantile reads a quantile off the histogram: the upper end of its bin.
func quantile(v *ViewManifest, q float64) float64 {
	var seen int64
	for _, b := range v.Ages {
		if seen += b.Count; float64(seen) >= q*float64(v.Matched) {
			return min(b.To, v.Age.Max)
		}
	}
	return v.Age.Max
}

const timelineBins = 48

func (d *dataset) timeline(ctx context.Context, labels string, first, last int64) error {
	width := (uint64(last)-uint64(first))/timelineBins + 1
	if width > 1<<62 {
		return nil
	}
	return d.Each(ctx, fmt.Sprintf("SELECT (t - %d) // %d AS bin, count(*) FROM %s WHERE t IS NOT NULL GROUP BY bin ORDER BY bin", first, width, labels),
		func(scan func(dest ...any) error) error {
			var bin, n int64
			err := scan(&bin, &n)
			from := feature.Micros(first + bin*int64(width))
			d.manifest.Spine.Timeline = append(d.manifest.Spine.Timeline, TimelineBin{Timestamp{from}, Timestamp{from + feature.Micros(width)}, n})
			return err
		})
}

// digest computes the content digest of the written rows and counts their NULLs.
//
// The digest is SHA-256 over the columns' names and types, the number of rows, and the sum
// modulo 2^128 over all rows of the first 16 bytes of SHA-256(row number, row): so it
// depends on content and order, and not on how the rows are laid out in files, row groups
// and pages, nor on the order in which they are read here.
func (d *dataset) digest(ctx context.Context, written *spine) error {
	d.begin("digest")
	var names []string
	err := d.Each(ctx, "SELECT column_name FROM (DESCRIBE SELECT * FROM "+written.from+")", func(scan func(dest ...any) error) error {
		var name string
		err := scan(&name)
		names = append(names, name)
		return err
	})
	if err != nil {
		return err
	}
	total := sha256.New()
	columns := make([]string, len(names))
	for i, name := range names {
		kind := written.types[name]
		d.manifest.Columns = append(d.manifest.Columns, Column{Name: name, Type: kind})
		_, _ = fmt.Fprintf(total, "%q %s\n", name, kind)
		columns[i] = sql.Ident(name)
		if !plain(kind) {
			columns[i] += "::VARCHAR"
		}
	}
	sum, nulls, err := d.sumRows(ctx, written.rowID, columns, written.from)
	if err != nil {
		return err
	}
	_ = binary.Write(total, binary.BigEndian, written.total)
	_, _ = total.Write(sum[:])
	d.manifest.Digest = hex.EncodeToString(total.Sum(nil))
	at := map[string]int64{}
	for i, name := range names {
		at[name] = nulls[i]
	}
	for i := range d.manifest.Views {
		for j := range d.manifest.Views[i].Features {
			f := &d.manifest.Views[i].Features[j]
			f.Nulls = at[f.Column]
			if d.manifest.Rows > 0 {
				f.NullRate = float64(f.Nulls) / float64(d.manifest.Rows)
			}
		}
	}
	return nil
}

// sumRows adds up rows by number and columns, all of them expressions over a table. Its sums do not
// depend on the order of the rows, so that DuckDB's threads add up what each of them reads.
func (s *session) sumRows(ctx context.Context, number string, columns []string, from string) (sum [16]byte, nulls []int64, err error) {
	var (
		mu   sync.Mutex
		idle []*rowSum
	)
	take := func() *rowSum {
		mu.Lock()
		defer mu.Unlock()
		if n := len(idle); n > 0 {
			part := idle[n-1]
			idle = idle[:n-1]
			return part
		}
		return &rowSum{nulls: make([]int64, len(columns))}
	}
	call := duck.Register(func(rows *duck.Chunk, out *duck.Result) {
		part := take()
		part.add(rows)
		out.Fill(1)
		mu.Lock()
		defer mu.Unlock()
		idle = append(idle, part)
	})
	defer call.Free()
	var rows int64
	query := "SELECT sum(" + call.SQL(append([]string{number}, columns...)...) + ") FROM " + from
	if err := s.QueryRow(ctx, query, &rows); err != nil {
		return sum, nil, err
	}
	var total rowSum
	nulls = make([]int64, len(columns))
	for _, part := range idle {
		total.plus(part.hi, part.lo)
		for c, n := range part.nulls {
			nulls[c] += n
		}
	}
	binary.BigEndian.PutUint64(sum[:8], total.hi)
	binary.BigEndian.PutUint64(sum[8:], total.lo)
	return sum, nulls, nil
}

// rowSum is the sum modulo 2^128 of the hashes of some rows, and their NULLs per column.
type rowSum struct {
	hi, lo uint64
	nulls  []int64
	kinds  []duck.Family // of the columns of a chunk
	buf    []byte
}

func (s *rowSum) plus(hi, lo uint64) {
	var carry uint64
	s.lo, carry = bits.Add64(s.lo, lo, 0)
	s.hi, _ = bits.Add64(s.hi, hi, carry)
}

func (s *rowSum) add(rows *duck.Chunk) {
	s.kinds = s.kinds[:0]
	for c := range s.nulls {
		s.kinds = append(s.kinds, rows.Column(c+1).Kind())
	}
	for i := range rows.Len() {
		s.buf = binary.BigEndian.AppendUint64(s.buf[:0], uint64(rows.Column(0).Int(i)))
		for c, kind := range s.kinds {
			col := rows.Column(c + 1)
			switch {
			case col.Null(i):
				s.nulls[c]++
				s.buf = msgp.AppendNil(s.buf)
			case kind == duck.KindFloat64: // most of what training sets are made of
				s.buf = msgp.AppendFloat64(s.buf, col.Float64(i))
			default:
				s.buf = appendAny(s.buf, col, i)
			}
		}
		h := sha256.Sum256(s.buf)
		s.plus(binary.BigEndian.Uint64(h[0:8]), binary.BigEndian.Uint64(h[8:16]))
	}
}

// plain reports whether appendAny knows the DuckDB type; others are digested as text.
func plain(kind string) bool {
	switch kind {
	case "BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT", "DOUBLE",
		"VARCHAR", "BLOB", "DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE":
		return true
	}
	elem, ok := strings.CutSuffix(kind, "[]")
	return ok && plain(elem)
}

// appendAny appends row i of a plain column as MessagePack, by the type it is stored in.
func appendAny(dst []byte, c *duck.Column, i int) []byte {
	switch {
	case c.Null(i):
		return msgp.AppendNil(dst)
	case c.Child != nil:
		offset, n := c.List(i)
		dst = msgp.AppendArrayHeader(dst, uint32(n))
		for j := range n {
			dst = appendAny(dst, c.Child, offset+j)
		}
		return dst
	}
	switch c.Kind() {
	case duck.KindBool:
		return msgp.AppendBool(dst, c.Bool(i))
	case duck.KindFloat32:
		return msgp.AppendFloat32(dst, c.Float32(i))
	case duck.KindFloat64:
		return msgp.AppendFloat64(dst, c.Float64(i))
	case duck.KindBytes:
		return msgp.AppendBytes(dst, c.Bytes(i))
	}
	return msgp.AppendInt64(dst, c.Int(i))
}

// sumFiles records size and hash of the output files.
func (d *dataset) sumFiles(ctx context.Context, dir string) error {
	for i := range d.manifest.Files {
		f := &d.manifest.Files[i]
		var err error
		if f.Bytes, f.SHA256, err = sumFile(ctx, filepath.Join(dir, f.Path)); err != nil {
			return fmt.Errorf("read output: %w", err)
		}
	}
	return nil
}

// untilDone reads until the context ends.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	return u.r.Read(p)
}

func sumFile(ctx context.Context, path string) (size int64, sum string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	h := sha256.New()
	size, err = io.Copy(h, untilDone{ctx, f})
	return size, hex.EncodeToString(h.Sum(nil)), errors.Join(err, f.Close())
}
