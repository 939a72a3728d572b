package hearth_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/hearthstore/hearth"
)

// An online service opens its feature repository once and reads vectors from it. Each
// value says what it is worth.
func ExampleOpen() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "hearth-example")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path, err := makeRepository(ctx, dir, time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC))
	if err != nil {
		log.Fatal(err)
	}

	features, err := hearth.Open(ctx, path)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = features.Close() }()

	resp, err := features.Get(ctx, hearth.Request{
		FeatureService: "dispatch",
		Entities:       []map[string]string{{"driver_id": "1001"}, {"driver_id": "7"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	for i := range resp.Len() {
		row := resp.Row(i)
		for j := range row.Len() {
			it := row.At(j)
			fmt.Println(row.Entity()["driver_id"], it.Name, it.Value.Float(), it.Status, it.Tier)
		}
	}
	input := make([]float32, resp.Row(0).Len())
	resp.Row(0).Fill(input)
	fmt.Println(input)

	// Output:
	// 1001 trips:rating 4.75 PRESENT backing
	// 1001 trips:count 1204 PRESENT backing
	// 7 trips:rating 3.5 NOT_FOUND default
	// 7 trips:count 0 NOT_FOUND default
	// [4.75 1204]
}

// A model reads features by name, with their type, and looks at what they are worth.
func ExampleVector() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "hearth-example")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path, err := makeRepository(ctx, dir, time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC))
	if err != nil {
		log.Fatal(err)
	}
	features, err := hearth.Open(ctx, path)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = features.Close() }()

	resp, err := features.Get(ctx, hearth.Request{
		Features: []string{"trips:rating", "trips:count"},
		Entities: []map[string]string{{"driver_id": "1001"}},
		MaxAge:   time.Second, // the fact is older: the value still comes, and says so
	})
	if err != nil {
		log.Fatal(err)
	}
	vector := resp.Row(0)
	trips, ok := vector.Int64("trips:count")
	fmt.Println(vector.Float64("trips:rating"), trips, ok)
	rating, _ := vector.Get("trips:rating")
	fmt.Println(rating.Status, rating.EventTime)

	// Output:
	// 4.75 1204 true
	// OUTSIDE_MAX_AGE 2026-11-20T08:00:00Z
}
