package feature

import (
	"strings"
	"testing"
	"time"
)

// What the folders of a file promise. Seen red with the end of the period one unit too early and
// with a value of which only the beginning fits.
func TestTimePartitions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern TimePartitions
		path    string
		want    string // "first..last", "" for no promise
	}{
		{"day=%Y-%m-%d", "s3://b/x/day=2021-01-31/p.parquet", "2021-01-31T00:00:00Z..2021-01-31T23:59:59.999999Z"},
		{"year=%Y/month=%m", "/x/year=2020/region=eu/month=2/p.parquet", "2020-02-01T00:00:00Z..2020-02-29T23:59:59.999999Z"},
		{"dt=%Y%m%d/hour=%H", "dt=20201231/hour=23/p", "2020-12-31T23:00:00Z..2020-12-31T23:59:59.999999Z"},
		{"y=%Y", "y=2021/p", "2021-01-01T00:00:00Z..2021-12-31T23:59:59.999999Z"},
		{"day=%Y-%m-%d", "day=2021-02-30/p", ""},
		{"day=%Y-%m-%d", "day=2021-01-01T00/p", ""},
		{"day=%Y-%m-%d", "day=__HIVE_DEFAULT_PARTITION__/p", ""},
		{"day=%Y-%m-%d", "other/p", ""},
		{"day=%Y-%m-%d", "other/day=2021-01-01", ""}, // a file, no folder
		{"", "day=2021-01-01/p", ""},
	} {
		if err := c.pattern.Validate(); err != nil {
			t.Errorf("%s: %v", c.pattern, err)
		}
		got := ""
		if first, last, ok := c.pattern.Period(c.path); ok {
			got = first.Time().Format(time.RFC3339Nano) + ".." + last.Time().Format(time.RFC3339Nano)
		}
		if got != c.want {
			t.Errorf("%s of %s: %q, want %q", c.pattern, c.path, got, c.want)
		}
	}
	for pattern, want := range map[TimePartitions]string{"%Y-%m-%d": "names no folder", "day=%d": "no %m", "m=%m": "no %Y", "d=%Y-%d": "no %m", "d=%Y-%y": `holds "%y"`, "d=%Y/e=%Y": "more than once", "d=x": "no %Y"} {
		if err := pattern.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", pattern, err, want)
		}
	}
}
