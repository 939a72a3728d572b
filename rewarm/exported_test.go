package rewarm

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/rewarm/export"
)

// exportOf writes the table's values as DynamoDB would.
func exportOf(t *testing.T, tb *table, files int) *export.Export {
	t.Helper()
	texts := make([]strings.Builder, files)
	counts := make([]int, files)
	for _, ref := range tb.refs() {
		f := feature.ShardOf(ref.Key, files)
		fmt.Fprintf(&texts[f], `{"Item":{"e":{"S":%q},"v":{"S":%q},"p":{"B":%q}}}`+"\n", ref.Key, ref.View, base64.StdEncoding.EncodeToString(tb.get(ref)))
		counts[f]++
	}
	folder := fstest.MapFS{}
	var list strings.Builder
	total := 0
	for f := range texts {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		if _, err := z.Write([]byte(texts[f].String())); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("data/%d.json.gz", f)
		folder[name] = &fstest.MapFile{Data: packed.Bytes()}
		fmt.Fprintf(&list, `{"itemCount":%d,"dataFileS3Key":"x/%s"}`+"\n", counts[f], name)
		total += counts[f]
	}
	folder["manifest-files.json"] = &fstest.MapFile{Data: []byte(list.String())}
	folder["manifest-summary.json"] = &fstest.MapFile{Data: fmt.Appendf(nil,
		`{"tableArn":"arn:aws:dynamodb:x:1:table/t","exportTime":"2026-11-20T10:00:00Z","manifestFilesS3Key":"x/manifest-files.json","billedSizeBytes":1000,"itemCount":%d,"outputFormat":"DYNAMODB_JSON"}`, total)}
	e, err := export.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// From an export, with the table moving on meanwhile: what is newer online stays, the tier
// is not marked warm, and the rewarm from the table that follows completes it.
// Seen red with: complete marking whatever the source.
func TestFromExport(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.fill(50)
	e := exportOf(t, w.table, 3)
	newer := value(t, w.views[0], key(3), feature.Version{Event: at(-day / 24), Run: 4}, 9)
	w.table.put(newer)
	if _, err := w.online.Put(context.Background(), []feature.Record{newer}); err != nil {
		t.Fatal(err)
	}
	r := w.rewarmer(func(c *Config) {
		c.Backing = FromExport(e)
		c.Source = e.Name()
		c.Hot = hotList{refs: []feature.Ref{newer.Ref}}
	})
	rep, err := r.Run(context.Background(), Request{Run: 1, IfCold: true})
	if err != nil || rep.Status != StatusDone || rep.Warm || rep.Scanned != 100 || rep.AlreadyNewer != 1 || rep.HotAsked != 0 {
		t.Fatalf("%v %+v", err, rep)
	}
	w.checkComplete()
	if w.table.calls != 0 {
		t.Errorf("the table was scanned %d times", w.table.calls)
	}
	if rep := w.run(Request{Run: 2, IfCold: true}); !rep.Warm || rep.ResumedFrom != nil || rep.AlreadyNewer != 100 {
		t.Errorf("from the table: %+v", rep)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}
