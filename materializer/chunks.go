package materializer

import (
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/hearthstore/hearth/feature"
)

// A run takes its pending files in chunks: it reads one, stores and sends its rows, and
// writes down that its files are taken before it begins the next. A run that is killed has
// lost at most one chunk; the next run reads only the files that are not taken.
//
// A chunk is to the stores what an incremental run over its files would be, with a run
// number of its own: later chunks correct earlier ones, as later runs do. So whether the
// chunks belong to one run or, after a kill, to several, the outcome is the same, and
// nothing beside the set of taken files need be remembered.

// maxChunks bounds in how many chunks a run is divided: an entity that has rows in all of
// them may be written once for each.
const maxChunks = 16

// chunks divides the files that a run takes. The older files come first, so that among rows
// with equal times that of the younger file stays, as it does when each file is taken by a
// run of its own. Where the created time decides about equal event times, the youngest come
// first: what is older than a row that went before need not be written at all.
//
// A run stays whole when its files cannot be recorded one by one: a query is computed over
// all of its files, a run with a Start records none, and one with Full takes them anew
// whatever is recorded. A file is never divided.
//
// was is the size of the chunks of a run before that did not finish; with the same size the
// files that it left are divided as it would have divided them. The size is 0 when there is
// one chunk.
func (m *Materializer) chunks(v *feature.View, req Request, files []feature.File, was int64) (chunks [][]feature.File, size int64) {
	var total int64
	for _, f := range files {
		total += f.Size
	}
	size = max(m.cfg.ChunkBytes, (total+maxChunks-1)/maxChunks)
	if was > 0 && total/was <= 2*maxChunks {
		size = was
	}
	if total <= size || m.cfg.Reserve == nil || v.Source.Query != "" || req.Full || req.Start != feature.NoTime {
		return [][]feature.File{files}, 0
	}
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b feature.File) int {
		return cmp.Or(cmp.Compare(a.Modified, b.Modified), cmp.Compare(a.Path, b.Path))
	})
	if v.Source.CreatedTimestampColumn != "" {
		slices.Reverse(files)
	}
	from, sum := 0, int64(0)
	for i, f := range files {
		if i > from && sum+f.Size > size {
			chunks, from, sum = append(chunks, files[from:i:i]), i, 0
		}
		sum += f.Size
	}
	return append(chunks, files[from:]), size
}

// numbers returns a run number for each of n chunks, in ascending order. They are all drawn
// before the first chunk: a run that has lost its lease and does not know it must not draw a
// number that beats the run that took over.
func (m *Materializer) numbers(ctx context.Context, run uint64, n int) ([]uint64, error) {
	out := make([]uint64, n)
	out[0] = run
	if n == 1 {
		return out, nil
	}
	first, err := m.cfg.Reserve(ctx, n-1)
	if err != nil {
		return nil, fmt.Errorf("reserve %d run numbers: %w", n-1, err)
	}
	for i := range n - 1 {
		out[i+1] = first + uint64(i)
	}
	return out, nil
}

// passed remembers the times of what the backing tier acknowledged in the earlier chunks of
// a run, so that rows of later chunks that are older are not sent: each would cost a write
// unit to be refused. It holds a bounded number of keys; a row of another is sent. Keys are
// told apart by 128 bits of hash, half of them seeded by chance. A nil passed knows nothing.
//
// It is not safe for concurrent use: the pipelines guard it.
type passed struct {
	seed  maphash.Seed
	limit int
	times map[[2]uint64][2]feature.Micros
}

func newPassed(limit int) *passed {
	return &passed{seed: maphash.MakeSeed(), limit: limit, times: map[[2]uint64][2]feature.Micros{}}
}

func (p *passed) hash(key feature.Key) [2]uint64 {
	return [2]uint64{xxhash.Sum64String(string(key)), maphash.String(p.seed, string(key))}
}

// add notes that the backing tier holds these times of key, or later ones.
func (p *passed) add(key feature.Key, event, created feature.Micros) {
	if p == nil {
		return
	}
	h := p.hash(key)
	was, ok := p.times[h]
	switch {
	case ok && !earlier(was[0], was[1], event, created):
	case ok || len(p.times) < p.limit:
		p.times[h] = [2]feature.Micros{event, created}
	}
}

// beats reports whether a row is older than what is known to be stored. Equal times are not.
func (p *passed) beats(key feature.Key, event, created feature.Micros) bool {
	if p == nil {
		return false
	}
	was, ok := p.times[p.hash(key)]
	return ok && earlier(event, created, was[0], was[1])
}

// earlier compares times as versions are: an unknown created time is before every known one.
func earlier(event, created, thanEvent, thanCreated feature.Micros) bool {
	return cmp.Or(cmp.Compare(event, thanEvent), cmp.Compare(created, thanCreated)) < 0
}
