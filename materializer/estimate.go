package materializer

import (
	"fmt"
	"maps"
	"slices"

	"github.com/hearthstore/hearth/feature"
)

// Estimate is what writing would take. It counts every value as a write: one that turns
// out to be there already costs its units too, as DynamoDB charges a refused condition.
type Estimate struct {
	Items      int64   `json:"items"`
	Bytes      int64   `json:"bytes"`
	WriteUnits int64   `json:"write_units"`
	Dollars    float64 `json:"dollars"`
	Seconds    float64 `json:"seconds"`
	// PricePerMillion and Region say which price was assumed.
	PricePerMillion float64 `json:"price_per_million_units"`
	Region          string  `json:"region"`
	// UnknownRegion is the region of the table when its price is not known.
	UnknownRegion string `json:"unknown_region,omitempty"`
}

func (e *Estimate) String() string {
	price := e.Region
	if e.UnknownRegion != "" {
		price = fmt.Sprintf("the price of %s: that of %s is not known to Hearth, see the AWS price list", e.Region, e.UnknownRegion)
	}
	return fmt.Sprintf("%d items, %d write units at most: $%.4f on demand at $%.4f a million (%s), about %.0f s",
		e.Items, e.WriteUnits, e.Dollars, e.PricePerMillion, price, e.Seconds)
}

// writePrices are the list prices of DynamoDB on-demand writes (standard table class) in
// dollars per million write request units. They change: Config.WritePrice overrides.
var writePrices = map[string]float64{
	"us-east-1":      0.625,
	"us-east-2":      0.625,
	"us-west-2":      0.625,
	"us-west-1":      0.6975,
	"ca-central-1":   0.6875,
	"eu-west-1":      0.705,
	"eu-west-2":      0.7423,
	"eu-central-1":   0.7625,
	"eu-north-1":     0.67,
	"ap-south-1":     0.7115,
	"ap-southeast-1": 0.7115,
	"ap-southeast-2": 0.7115,
	"ap-northeast-1": 0.7135,
	"sa-east-1":      0.9375,
}

const defaultRegion = "us-east-1"

// itemOverhead is what an item has beside key and payload: the attribute names, the sort
// key's digits, 24 bytes of version, 8 of content hash.
const itemOverhead = 5 + 4 + feature.VersionSize + 8

type estimator struct {
	view           string
	items, bytes   int64
	units          int64
	fixed          int
	price, perSecs float64
	region         string
	unknown        string  // the region whose price is not known
	passed         *passed // of several chunks
}

func (m *Materializer) estimator(v *feature.View) *estimator {
	e := &estimator{view: v.Name, fixed: itemOverhead + len(v.Name) + feature.HeaderSize, perSecs: m.cfg.WriteRate}
	e.price, e.region = m.cfg.WritePrice, m.cfg.Region
	if e.price == 0 {
		var ok bool
		if e.price, ok = writePrices[e.region]; !ok {
			e.unknown, e.price, e.region = e.region, writePrices[defaultRegion], defaultRegion
		}
	}
	return e
}

func (e *estimator) add(rows []feature.Row) {
	for i := range rows {
		if e.passed.beats(rows[i].Key, rows[i].Event, rows[i].Created) {
			continue
		}
		e.passed.add(rows[i].Key, rows[i].Event, rows[i].Created)
		size := int64(e.fixed + len(rows[i].Key) + len(rows[i].Features))
		e.items++
		e.bytes += size
		e.units += (size + 1023) / 1024
	}
}

func (e *estimator) result() *Estimate {
	return &Estimate{Items: e.items, Bytes: e.bytes, WriteUnits: e.units, Dollars: float64(e.units) / 1e6 * e.price,
		Seconds: float64(e.units) / e.perSecs, PricePerMillion: e.price, Region: e.region, UnknownRegion: e.unknown}
}

func sumEstimates(views []*ViewReport) *Estimate {
	total := &Estimate{}
	for _, v := range views {
		if e := v.Estimate; e != nil {
			total.Items += e.Items
			total.Bytes += e.Bytes
			total.WriteUnits += e.WriteUnits
			total.Dollars += e.Dollars
			total.Seconds += e.Seconds
			total.PricePerMillion, total.Region, total.UnknownRegion = e.PricePerMillion, e.Region, e.UnknownRegion
		}
	}
	return total
}

// Regions lists the regions whose price a dry run knows.
func Regions() []string { return slices.Sorted(maps.Keys(writePrices)) }
