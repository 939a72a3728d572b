package sim_test

import (
	"fmt"
	"strings"
	"sync"

	"github.com/hearthstore/hearth/feature"
)

// checker watches every change of both tiers as it happens.
type checker struct {
	view *feature.View

	mu      sync.Mutex
	backing map[feature.Ref]string
	online  map[feature.Ref]string
	erased  map[feature.Ref]feature.Micros // until which moment the facts were erased
	lost    map[feature.Ref]bool           // the online tier lost something of it: see sawOnline
	err     error                          // the first violation
}

// forgot notes that an erasure was reported as done: nothing about the time before it may
// come back, anywhere.
func (c *checker) forgot(ref feature.Ref, at feature.Micros) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.erased[ref] = max(at, c.erased[ref])
	for tier, held := range map[string]map[feature.Ref]string{"backing": c.backing, "online": c.online} {
		c.notErased(tier, ref, held[ref])
	}
}

func (c *checker) notErased(tier string, ref feature.Ref, payload string) {
	until, ok := c.erased[ref]
	if tier == "online" && c.lost[ref] {
		return // the marker may be what was lost, while an older copy was on its way
	}
	if ok && payload != "" && payload[0] != feature.FormatTombstone && versionOf(payload).Event <= until {
		c.violated("erasure", "%s in the %s tier is %s again, erased was everything until %s", ref, tier, versionOf(payload), until)
	}
}

func newChecker(v *feature.View) *checker {
	return &checker{view: v, backing: map[feature.Ref]string{}, online: map[feature.Ref]string{}, erased: map[feature.Ref]feature.Micros{}, lost: map[feature.Ref]bool{}}
}

func (c *checker) violated(rule, format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%s violated: %s", rule, fmt.Sprintf(format, args...))
	}
}

// canary tells the keys by which a rewarm notices that the online tier was lost: short-lived
// deletions of entities that nobody has. No store holds a value of them.
func canary(ref feature.Ref) bool { return strings.HasPrefix(string(ref.Key), "hearth_canary=") }

func versionOf(payload string) feature.Version {
	h, _, err := feature.ParsePayload([]byte(payload))
	if err != nil {
		return feature.Version{}
	}
	return h.Version
}

// sawBacking is I4 for the backing tier.
func (c *checker) sawBacking(ref feature.Ref, payload []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if payload == nil {
		delete(c.backing, ref)
		return
	}
	now := string(payload)
	if was, ok := c.backing[ref]; ok && versionOf(now).Compare(versionOf(was)) <= 0 {
		c.violated("I4", "%s in the backing tier went from %s to %s", ref, versionOf(was), versionOf(now))
	}
	c.backing[ref] = now
	c.notErased("backing", ref, now)
}

// sawOnline is I4, I5 and I12 for the online tier.
func (c *checker) sawOnline(ref feature.Ref, payload []byte, expiry feature.Micros) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if payload == nil {
		delete(c.online, ref)
		c.lost[ref] = true
		return
	}
	if canary(ref) {
		return
	}
	now := string(payload)
	v := versionOf(now)
	if was, ok := c.online[ref]; ok && v.Compare(versionOf(was)) <= 0 {
		c.violated("I4", "%s in the online tier went from %s to %s", ref, versionOf(was), v)
	}
	c.online[ref] = now
	c.notErased("online", ref, now)
	stored, ok := c.backing[ref]
	switch {
	case !ok && now[0] == feature.FormatTombstone:
		// A marker that says "deleted" where the table has nothing (a value superseded the
		// deletion there and was let go by its retention) says the same: not there.
	case !ok:
		c.violated("I5", "%s is online at %s, and the table does not have it", ref, v)
	case v.Compare(versionOf(stored)) > 0:
		c.violated("I5", "%s is online at %s, the table holds %s", ref, v, versionOf(stored))
	case v == versionOf(stored) && now != stored:
		c.violated("I5", "%s at %s has other bytes online than in the table", ref, v)
	}
	rec, err := feature.NewRecord(c.view, ref.Key, payload)
	if err != nil {
		c.violated("I5", "%s is not readable online: %v", ref, err)
		return
	}
	want := rec.Online
	if rec.Retain != feature.NoTime && (want == feature.NoTime || want > rec.Retain) {
		want = rec.Retain
	}
	if !rec.Tombstone() && expiry != want {
		c.violated("I12", "%s at %s expires online at %s, want %s", ref, v, expiry, want)
	}
}

func (c *checker) first() error { c.mu.Lock(); defer c.mu.Unlock(); return c.err }
