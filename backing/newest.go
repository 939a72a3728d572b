package backing

import (
	"fmt"

	"github.com/hearthstore/hearth/feature"
)

// Newest prepares a Put: it checks every record, giving the bad ones their result, and
// picks the newest record of every key. write lists the positions to write; losers maps
// the other good positions to the one that was picked for their key (nil when there are
// none; see [LoserResult]). Of equal versions the first is picked.
func Newest(recs []feature.Record, results []feature.PutResult) (write []int, losers map[int]int) {
	best := make(map[feature.Ref]int, len(recs))
	for i := range recs {
		r := &recs[i]
		if err := CheckRecord(r); err != nil {
			results[i] = feature.PutResult{Err: fmt.Errorf("put %s: %w", r.Ref, err)}
			continue
		}
		b, again := best[r.Ref]
		if again && losers == nil {
			losers = map[int]int{}
		}
		if !again || recs[b].Version.Compare(r.Version) < 0 {
			best[r.Ref] = i
		}
	}
	write = make([]int, 0, len(best))
	for i := range recs {
		if results[i].Err != nil {
			continue
		}
		if b := best[recs[i].Ref]; b == i {
			write = append(write, i)
		} else {
			losers[i] = b
		}
	}
	return write, losers
}

// LoserResult is the result of a record that was not sent because the same call had a newer
// one of its key, given that one and its result.
func LoserResult(rec, winner *feature.Record, won feature.PutResult) feature.PutResult {
	switch {
	case won.Outcome == feature.Failed:
		return feature.PutResult{Err: won.Err}
	case won.Outcome == feature.Older:
		return feature.PutResult{Outcome: feature.Older, Stored: won.Stored}
	case rec.Version == winner.Version,
		rec.Version.SameTimes(winner.Version) && feature.ContentHash(rec.Payload) == feature.ContentHash(winner.Payload):
		return feature.PutResult{Outcome: feature.Unchanged, Stored: won.Stored}
	}
	return feature.PutResult{Outcome: feature.Older, Stored: won.Stored}
}
