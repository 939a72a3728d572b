package rewarm

import (
	"fmt"
	"io"
	"strings"
)

// The kinds of difference.
const (
	Missing   = "missing"   // live in the table, absent online
	Behind    = "older"     // online is older than the table, or holds what the table says is deleted
	Different = "different" // the same version with other bytes, or not readable online
	Extra     = "extra"     // only online, or online past its life
	Ahead     = "ahead"     // online is newer than the table: invariant I5 is broken
)

// VerifyReport is the outcome of a comparison, and the --json document of `hearth verify`.
// The counts are of differences that were found, also of those that were repaired.
type VerifyReport struct {
	Compared  int64 `json:"compared"` // keys of the table that were compared
	Missing   int64 `json:"missing"`
	Older     int64 `json:"older"`
	Different int64 `json:"different"`
	Extra     int64 `json:"extra"`
	Ahead     int64 `json:"ahead"`
	// Sampled counts the records that the sample took: Compared, and those that need no
	// counterpart online (expired, of retired views).
	Sampled      int64   `json:"sampled"`
	UpperBound95 float64 `json:"upper_bound_95"` // share of keys that differ, at most, with 95 % confidence

	Fraction   float64      `json:"fraction"`
	Sampling   string       `json:"sampling"`
	Segments   int          `json:"segments"`             // read, of SegmentsOf
	SegmentsOf int          `json:"segments_of"`          //
	Expired    int64        `json:"expired"`              // life over: rightly absent
	Deleted    int64        `json:"deleted"`              // tombstones, compared as such
	Unreadable int64        `json:"unreadable"`           // records of the table that are corrupt or of an unknown format
	Online     int64        `json:"online_keys"`          // keys of the online tier that were looked up in the table
	Rechecked  int64        `json:"rechecked"`            // looked at again, because a writer may have been between
	Repaired   int64        `json:"repaired"`             //
	ReadUnits  float64      `json:"read_units"`           //
	Seconds    float64      `json:"seconds"`              //
	Examples   []Difference `json:"differences"`          // at most 100
	Unrepaired string       `json:"unrepaired,omitempty"` // why something was not repaired
}

// Difference is one key that differs. It never holds values.
type Difference struct {
	Kind     string `json:"kind"`
	View     string `json:"view"`
	Key      string `json:"key"`
	Table    string `json:"table_version,omitempty"`
	Online   string `json:"online_version,omitempty"`
	Repaired bool   `json:"repaired,omitempty"`
}

// Differences is how many keys differ.
func (v *VerifyReport) Differences() int64 {
	return v.Missing + v.Older + v.Different + v.Extra + v.Ahead
}

// OK reports whether the tiers agree on everything that was compared, after repairs.
func (v *VerifyReport) OK() bool { return v.Differences() == v.Repaired && v.Unreadable == 0 }

// WriteTable writes the report for a person.
func (v *VerifyReport) WriteTable(w io.Writer) error {
	var b strings.Builder
	verdict := "the tiers agree"
	if !v.OK() {
		verdict = "THE TIERS DIFFER"
	}
	fmt.Fprintf(&b, "verify: %s. %s keys compared in %s", verdict, count(v.Compared), seconds(v.Seconds))
	if v.Fraction < 1 {
		fmt.Fprintf(&b, "; with 95 %% confidence at most %.4g %% of all keys differ", 100*v.UpperBound95)
	}
	fmt.Fprintf(&b, "\n  missing %s  older %s  different %s  extra %s  ahead %s  unreadable %s  repaired %s\n",
		count(v.Missing), count(v.Older), count(v.Different), count(v.Extra), count(v.Ahead), count(v.Unreadable), count(v.Repaired))
	for i, d := range v.Examples {
		if i == 20 {
			fmt.Fprintf(&b, "  and %d more\n", v.Differences()-20)
			break
		}
		fmt.Fprintf(&b, "  %s %s/%s", d.Kind, d.View, d.Key)
		if d.Table != "" {
			fmt.Fprintf(&b, "  table %s", d.Table)
		}
		if d.Online != "" {
			fmt.Fprintf(&b, "  online %s", d.Online)
		}
		if d.Repaired {
			b.WriteString("  repaired")
		}
		b.WriteByte('\n')
	}
	if v.Unrepaired != "" {
		fmt.Fprintf(&b, "  not repaired: %s\n", v.Unrepaired)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
