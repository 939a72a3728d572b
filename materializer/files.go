package materializer

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/hearthstore/hearth/feature"
)

// plan is what one run does with the files of one view.
type plan struct {
	listed  []feature.File // as the source lists them now
	take    []feature.File // to be read for new values
	heal    []feature.File // taken before, to be sent from the backing tier to the online tier
	taken   []feature.File // recorded as taken before, and still there unchanged
	behind  []feature.File // recorded as behind before, and still there unchanged
	removed []string       // taken before, and gone

	storedTaken, storedBehind []feature.File // the sets as they are stored
	lost                      bool           // a file that was behind is gone or changed: its old rows cannot be read again
}

// planFiles decides from the sets of the last run. A file counts as the same only if path,
// size, modification time and ETag are. A query is computed over all of its inputs: when
// one of them is new, all are read.
func planFiles(v *feature.View, listed, taken, behind []feature.File, all bool) plan {
	p := plan{listed: listed, storedTaken: taken, storedBehind: behind}
	known := make(map[feature.File]bool, len(taken))
	for _, f := range taken {
		known[f] = true
	}
	wasBehind := make(map[feature.File]bool, len(behind))
	for _, f := range behind {
		wasBehind[f] = true
	}
	present := make(map[string]bool, len(listed))
	for _, f := range listed {
		present[f.Path] = true
		switch {
		case all || !known[f]:
			p.take = append(p.take, f)
		case wasBehind[f]:
			p.heal = append(p.heal, f)
		}
		if known[f] {
			p.taken = append(p.taken, f)
		}
		if wasBehind[f] {
			p.behind = append(p.behind, f)
		}
	}
	for _, f := range taken {
		if !present[f.Path] {
			p.removed = append(p.removed, f.Path)
		}
	}
	slices.Sort(p.removed)
	p.lost = len(p.behind) < len(wasBehind)
	if v.Source.Query != "" && (len(p.take) > 0 || len(p.removed) > 0) {
		p.take, p.heal = listed, nil
	}
	return p
}

// union merges two sets of files, sorted by path.
func union(a, b []feature.File) []feature.File {
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(x, y feature.File) int {
		return cmp.Or(cmp.Compare(x.Path, y.Path), cmp.Compare(x.Modified, y.Modified), cmp.Compare(x.Size, y.Size), cmp.Compare(x.ETag, y.ETag))
	})
	return slices.Compact(all)
}

func intersection(a, b []feature.File) []feature.File {
	in := make(map[feature.File]bool, len(b))
	for _, f := range b {
		in[f] = true
	}
	return slices.DeleteFunc(slices.Clone(a), func(f feature.File) bool { return !in[f] })
}

func paths(files []feature.File) []string {
	out := make([]string, len(files))
	for i, f := range files {
		out[i] = f.Path
	}
	return out
}

func without(files []feature.File, paths []string) []feature.File {
	drop := make(map[string]bool, len(paths))
	for _, p := range paths {
		drop[p] = true
	}
	return slices.DeleteFunc(slices.Clone(files), func(f feature.File) bool { return drop[f.Path] })
}

// unchanged checks that the files that were read are still what the listing said.
func unchanged(read, now []feature.File) error {
	current := make(map[string]feature.File, len(now))
	for _, f := range now {
		current[f.Path] = f
	}
	for _, f := range read {
		switch c, ok := current[f.Path]; {
		case !ok:
			return fmt.Errorf("file %s vanished while it was read; what was read of it is stored, and the file set stays as it was: run again", f.Path)
		case c != f:
			return fmt.Errorf("file %s changed while it was read (%d bytes of %s, now %d bytes of %s); what was read of it is stored, and the file set stays as it was: "+
				"write new files under a temporary name and rename them, then run again", f.Path, f.Size, f.Modified, c.Size, c.Modified)
		}
	}
	return nil
}

// sameFiles compares two sets in any order.
func sameFiles(a, b []feature.File) bool { return slices.Equal(union(a, nil), union(b, nil)) }
