package config

import (
	"bytes"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
)

type sampleActivity struct {
	User    int64     `parquet:"user_id"`
	Event   time.Time `parquet:"event_timestamp,timestamp(microsecond)"`
	Created time.Time `parquet:"created_timestamp,timestamp(microsecond)"`
	Country string    `parquet:"country,dict"`
	Orders  int64     `parquet:"orders_30d"`
	Spend   float64   `parquet:"spend_30d"`
}

type sampleLabel struct {
	User    int64     `parquet:"user_id"`
	Event   time.Time `parquet:"event_timestamp,timestamp(microsecond)"`
	Churned bool      `parquet:"churned"`
}

// TestTemplateData: the sample data of `hearth init` is what this generator makes. With
// -update it is written anew.
func TestTemplateData(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	first := time.Date(2026, 9, 28, 0, 0, 0, 0, time.UTC)
	countries := []string{"DE", "FR", "IT", "PL", "ES"}
	var rows []sampleActivity
	var labels []sampleLabel
	for user := int64(1001); user <= 1050; user++ {
		country := countries[rng.IntN(len(countries))]
		for week := range 4 {
			event := first.AddDate(0, 0, 7*week)
			orders := rng.Int64N(8)
			rows = append(rows, sampleActivity{User: user, Event: event, Created: event.Add(time.Hour), Country: country, Orders: orders,
				Spend: math.Round(float64(orders)*(10+40*rng.Float64())*100) / 100})
		}
		for range 2 {
			labels = append(labels, sampleLabel{User: user, Event: first.Add(time.Duration(rng.Int64N(28*24)) * time.Hour), Churned: rng.IntN(4) == 0})
		}
	}
	sameParquet(t, filepath.Join("template", "data", "user_activity.parquet"), rows)
	sameParquet(t, filepath.Join("template", "data", "labels.parquet"), labels)
}

func sameParquet[T comparable](t *testing.T, path string, rows []T) {
	t.Helper()
	var made bytes.Buffer
	if err := parquet.Write(&made, rows, parquet.Compression(&parquet.Zstd)); err != nil {
		t.Fatal(err)
	}
	want, err := parquet.Read[T](bytes.NewReader(made.Bytes()), int64(made.Len()))
	if err != nil {
		t.Fatal(err)
	}
	got, err := parquet.ReadFile[T](path)
	if err == nil && slices.Equal(got, want) {
		return
	}
	if !*update {
		t.Fatalf("%s is not what the generator makes (%v); run the test with -update", path, err)
	}
	if err := os.WriteFile(path, made.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
