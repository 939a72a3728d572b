package rewarm

import (
	"errors"
	"fmt"
	"sync"
)

// hottestFill is how full a run that takes the hottest part makes the online tier.
const hottestFill = 0.95

// errNoRoom ends a run that takes the hottest part: the rest does not fit.
var errNoRoom = errors.New("the online tier has room for no more")

// room is how many more keys the online tier may be given. Workers share it; nil is room
// without end.
type room struct {
	mu   sync.Mutex
	keys int64
}

// take reserves room for up to n keys and says for how many there is.
func (r *room) take(n int) int {
	if r == nil {
		return n
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	got := min(int64(n), r.keys)
	r.keys -= got
	return int(got)
}

// give returns what was reserved and not needed.
func (r *room) give(n int) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys += int64(n)
}

// short says in the report what a run that was cut short by memory left out.
func (p *pass) short() {
	rep := p.rep
	brought := p.before.Written + p.before.AlreadyNewer + rep.HotWritten + rep.Written
	rep.Status = StatusPartial
	rep.Problems = append(rep.Problems, fmt.Sprintf(
		"the hottest part is in: %s of about %s values (%s of them by the readers' sketches), the others do not fit the memory of the online tier and are served from the table. With more memory, run again: it goes on from here",
		count(min(brought, p.live)), count(p.live), count(rep.HotWritten)))
}
