package materializer_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/sim"
	"github.com/hearthstore/hearth/materializer"
)

// chunked makes every file a chunk: a file of a simulated source has a byte per row.
func chunked(w *world) { w.tune = func(c *materializer.Config) { c.ChunkBytes = 4 } }

// taken returns the paths that are recorded as taken.
func (w *world) taken() []string {
	w.t.Helper()
	files, err := w.state.Files(w.t.Context(), materializer.Slot{View: w.view.ID()}, materializer.FilesTaken)
	if err != nil {
		w.t.Fatal(err)
	}
	var paths []string
	for _, f := range files {
		paths = append(paths, f.Path)
	}
	slices.Sort(paths)
	return paths
}

// TestResumeReadsTheRest: a run that is killed at its n-th call, for every n, leaves at most
// the chunk that was under way to be read again. Red when chunks are not recorded, and when
// only the files that are behind are.
func TestResumeReadsTheRest(t *testing.T) {
	const files, perFile = 6, 5
	ended := false
	for n := 1; !ended; n++ {
		w := setup(t)
		chunked(w)
		for i := range files {
			w.source.Write(fmt.Sprint("f", i), int64(i+1), rows(i*perFile, (i+1)*perFile, 5, 1)...)
		}
		k := sim.NewKiller(n, func(n int) int { return n })
		w.inject(k.Inject)
		_, err := w.materialize(nil)
		w.inject(nil)
		ended = err == nil
		begun := 0
		for _, op := range k.Calls()[:min(n, len(k.Calls()))] {
			if op == "source.latest" {
				begun++
			}
		}
		whole := max(begun-1, 0) // the others were done when the last one began
		if ended {
			whole = files
		}
		again := w.must(nil).Views[0]
		if most := int64((files - whole) * perFile); again.RowsRead > most || again.Files > files-whole {
			t.Fatalf("killed at call %d, in chunk %d of %d: the next run read %d files and %d rows, want at most %d", n, begun, files, again.Files, again.RowsRead, most)
		}
		if got := len(w.backing.Snapshot()); got != files*perFile {
			t.Fatalf("killed at call %d: %d values", n, got)
		}
		w.expectEqual()
	}
}

// TestChunksAreRunsOfTheirOwn: a run in chunks gives what a run for each of its files gives,
// also where rows have equal times. Red when the younger files come first, when the chunks
// share a run number, and when what was passed counts equal times as older.
func TestChunksAreRunsOfTheirOwn(t *testing.T) {
	files := [][]feature.Row{
		rows(0, 8, 5, 9),
		append(rows(2, 6, 5, 2), rows(6, 8, 4, 2)...),
		append(rows(4, 8, 5, 1), gone(0, 6)),
		append(rows(0, 4, 4, 7), row(7, 5, 3)),
	}
	apart, together := setup(t), setup(t)
	chunked(together)
	for i, rows := range files {
		// By name the order is another one than by age.
		path := fmt.Sprint("f", len(files)-i)
		apart.source.Write(path, int64(i+1), rows...)
		together.source.Write(path, int64(i+1), rows...)
		apart.must(nil)
	}
	r := together.must(nil)
	if v := r.Views[0]; v.Chunks != len(files) || v.ChunksRecorded != len(files) || v.Files != len(files) || v.Pending != nil || !r.MarkedWarm {
		t.Errorf("%+v", v)
	}
	if got, want := together.content(), apart.content(); got != want {
		t.Errorf("in chunks:\n%s\nfile by file:\n%s", got, want)
	}
	together.expect(4, "h5 n=1")
	if r := together.must(nil); r.Status != "nothing" {
		t.Errorf("again: %s", r.Status)
	}
}

// TestPassedRowsAreNotSent: where the created time decides, the youngest files come first, and
// what they beat costs no write; a bounded number of keys is remembered, and the rows of the
// others are sent and refused. A dry run counts the same. Red without passed, and when it
// forgets what was unchanged.
func TestPassedRowsAreNotSent(t *testing.T) {
	for _, c := range []struct{ keys, sent int }{{0, 10}, {6, 10 + 2*4}} {
		w := setup(t)
		w.view.Source.CreatedTimestampColumn = "created"
		w.tune = func(cfg *materializer.Config) { cfg.ChunkBytes, cfg.PassedKeys = 4, c.keys }
		for i := range 3 {
			w.source.Write(fmt.Sprint("f", i), int64(i+1), rows(0, 10, 5+i, i)...)
		}
		dry := w.must(func(r *materializer.Request) { r.DryRun = true })
		if e := dry.Views[0].Estimate; int(e.Items) != c.sent {
			t.Errorf("%d keys: a dry run counts %d writes, want %d", c.keys, e.Items, c.sent)
		}
		sent := 0
		w.backing.Inject = func(call sim.Call) *sim.Fault {
			if call.Op == "backing.put" {
				sent += call.N
			}
			return nil
		}
		w.tuneMore(func(cfg *materializer.Config) { cfg.BackingWorkers = 1 })
		v := w.must(nil).Views[0]
		if sent != c.sent || v.Backing.Written != 10 || v.Backing.Older != 20 {
			t.Errorf("%d keys: %d records were sent, want %d: %+v", c.keys, sent, c.sent, v.Backing)
		}
		for id := range 10 {
			w.expect(id, "h7 n=2")
		}
		// The same again in new files: what is there already beats older rows, too.
		for i := range 3 {
			w.source.Write(fmt.Sprint("f", i), int64(i+11), rows(0, 10, 5+i, i)...)
		}
		sent = 0
		if v = w.must(nil).Views[0]; sent != c.sent || v.Backing.Unchanged != 10 || v.Backing.Older != 20 {
			t.Errorf("%d keys, again: %d records were sent, want %d: %+v", c.keys, sent, c.sent, v.Backing)
		}
	}
}

// TestFailedChunkHoldsTheOthersBack: what could not be stored of a chunk is stored before the
// chunks after it, or it would correct them. The chunks before it stay recorded.
func TestFailedChunkHoldsTheOthersBack(t *testing.T) {
	w := setup(t)
	chunked(w)
	w.source.Write("a", 1, rows(0, 5, 5, 1)...)
	w.source.Write("b", 2, rows(10, 15, 5, 2)...)
	w.source.Write("c", 3, rows(10, 15, 5, 3)...)
	w.tuneMore(func(c *materializer.Config) { c.Backing = &refusing{w.backing, key(12)} })
	r, err := w.materialize(nil)
	v := r.Views[0]
	if r.Status != "partial" || !errors.Is(err, feature.ErrThrottled) || v.Backing.Failed == 0 || v.Chunks != 3 || v.ChunksRecorded != 1 || v.Files != 2 {
		t.Fatalf("%s %v %+v", r.Status, err, v)
	}
	if got := w.taken(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("taken: %v", got)
	}
	var text strings.Builder
	if err := r.WriteTable(&text); err != nil || !strings.Contains(text.String(), "1 of 3 chunks") {
		t.Errorf("%v\n%s", err, text.String())
	}
	chunked(w)
	if v := w.must(nil).Views[0]; v.Files != 2 || v.Chunks != 2 {
		t.Errorf("%+v", v)
	}
	w.expect(12, "h5 n=3")
}

// TestFutureRowsOfAChunk: a file with rows of the future stays pending, the others of its chunk
// are recorded, whether the run ends or is killed in a later chunk.
func TestFutureRowsOfAChunk(t *testing.T) {
	w := setup(t)
	w.tune = func(c *materializer.Config) { c.ChunkBytes = 5 }
	w.source.Write("a", 1, append(rows(0, 2, 5, 1), row(20, 101, 1))...)
	w.source.Write("b", 2, rows(2, 4, 5, 1)...)
	w.source.Write("c", 3, rows(4, 9, 5, 1)...)
	latest := 0
	w.inject(func(c sim.Call) *sim.Fault {
		if c.Op == "source.latest" {
			latest++
		}
		if latest >= 2 { // killed
			return &sim.Fault{Err: sim.ErrKilled}
		}
		return nil
	})
	r, err := w.materialize(nil)
	if v := r.Views[0]; err == nil || v.PendingFiles != 1 || v.Chunks != 2 || v.ChunksRecorded != 1 {
		t.Fatalf("%v %+v", err, v)
	}
	w.inject(nil)
	if got := w.taken(); !slices.Equal(got, []string{"b"}) {
		t.Errorf("taken: %v", got)
	}
	w.must(nil)
	if got := w.taken(); !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("taken: %v", got)
	}
	w.clock.Advance(2 * time.Hour)
	w.must(nil)
	w.expect(20, "h101 n=1")
}

// TestRewrittenInALaterChunk: a file that is rewritten or gone while its chunk is read is
// noticed, and what was recorded before stays so. Red when the files are compared only at the
// end of a run in one chunk.
func TestRewrittenInALaterChunk(t *testing.T) {
	for name, change := range map[string]func(*world){
		"rewritten": func(w *world) { w.source.Write("b", 9, rows(0, 5, 7, 7)...) },
		"gone":      func(w *world) { w.source.Remove("b") },
	} {
		t.Run(name, func(t *testing.T) {
			w := setup(t)
			chunked(w)
			for i, path := range []string{"a", "b", "c"} {
				w.source.Write(path, int64(i+1), rows(0, 5, 5, i)...)
			}
			read := 0
			w.source.Reading = func() {
				if read++; read == 2 {
					change(w)
				}
			}
			r, err := w.materialize(nil)
			if v := r.Views[0]; err == nil || !strings.Contains(err.Error(), "file b") || r.Status != "partial" || v.ChunksRecorded != 1 {
				t.Fatalf("%s %v %+v", r.Status, err, v)
			}
			if got := w.taken(); !slices.Equal(got, []string{"a"}) {
				t.Errorf("taken: %v", got)
			}
			w.must(nil)
			if name == "rewritten" {
				w.expect(1, "h7 n=7")
			} else {
				w.expect(1, "h5 n=2")
			}
		})
	}
}

// TestStaleRunInChunks: a run that lost its lease unnoticed and goes on with its next chunk does
// not correct what the run that took over has stored, even if that one could not write
// down anything. Red when the numbers are drawn when the chunks begin.
func TestStaleRunInChunks(t *testing.T) {
	w := setup(t)
	chunked(w)
	for i, path := range []string{"a", "b", "c"} {
		w.source.Write(path, int64(i+1), rows(i*5, i*5+5, 5, 1)...)
	}
	read := 0
	w.source.Reading = func() {
		if read++; read != 2 {
			return
		}
		w.source.Write("c2", 4, rows(10, 15, 5, 2)...)
		w.state.Inject = func(c sim.Call) *sim.Fault {
			if c.Op == "state.save" {
				return &sim.Fault{Err: sim.ErrKilled}
			}
			return nil
		}
		if r, err := w.materialize(full); err == nil || r.Views[0].Backing.Written != 10 {
			t.Errorf("%v %+v", err, r.Views[0])
		}
		w.state.Inject = nil
	}
	r := w.must(nil)
	if v := r.Views[0]; v.ChunksRecorded != 3 || v.Backing.Older != 5 {
		t.Errorf("%+v", v)
	}
	for id := 10; id < 15; id++ {
		w.expect(id, "h5 n=2")
	}
}

// TestWholeRuns: a run whose files cannot be recorded one by one is not divided.
func TestWholeRuns(t *testing.T) {
	for name, change := range map[string]func(*world, *materializer.Request){
		"full":  func(_ *world, r *materializer.Request) { r.Full = true },
		"start": func(_ *world, r *materializer.Request) { r.Start = at(0) },
		"query": func(w *world, _ *materializer.Request) { w.view.Source.Query = "sql/spend.sql" },
		"no numbers": func(w *world, _ *materializer.Request) {
			w.tuneMore(func(c *materializer.Config) { c.Reserve = nil })
		},
	} {
		w := setup(t)
		chunked(w)
		w.source.Write("a", 1, rows(0, 5, 5, 1)...)
		w.source.Write("b", 2, rows(5, 10, 5, 1)...)
		req := w.request()
		change(w, &req)
		r, err := w.new().Run(t.Context(), req)
		if err != nil || r.Views[0].Chunks != 1 || r.Views[0].Backing.Written != 10 {
			t.Errorf("%s: %v %+v", name, err, r.Views[0])
		}
	}
}

// TestChunksAreFew: however many files there are, an entity is written some 16 times at most,
// and a killed run's chunks keep their size.
func TestChunksAreFew(t *testing.T) {
	w := setup(t)
	w.tune = func(c *materializer.Config) { c.ChunkBytes = 1 }
	for i := range 200 {
		w.source.Write(fmt.Sprintf("f%03d", i), int64(i+1), rows(0, 4, 5, i)...)
	}
	latest := 0
	w.inject(func(c sim.Call) *sim.Fault {
		if c.Op == "source.latest" {
			if latest++; latest == 12 {
				return &sim.Fault{Err: sim.ErrKilled}
			}
		}
		return nil
	})
	r, _ := w.materialize(nil)
	w.inject(nil)
	if v := r.Views[0]; v.Chunks < 14 || v.Chunks > 18 || v.ChunksRecorded != 11 {
		t.Fatalf("%+v", v)
	}
	left := r.Views[0].Chunks - r.Views[0].ChunksRecorded
	if v := w.must(nil).Views[0]; v.Chunks != left {
		t.Errorf("%d chunks were left, the next run has %d", left, v.Chunks)
	}
	w.expect(3, "h5 n=199")
}
