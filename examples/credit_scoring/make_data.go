//go:build ignore

// Command make_data writes data/credit_history.parquet from data/credit_history_sample.csv.
// It was run once; the result is in the tree. Run it again with
//
//	go run make_data.go
package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/parquet-go/parquet-go"
)

type row struct {
	Event     time.Time `parquet:"event_timestamp,timestamp(microsecond)"`
	Applicant string    `parquet:"dob_ssn,dict"`
	Card      int64     `parquet:"credit_card_due"`
	Mortgage  int64     `parquet:"mortgage_due"`
	Student   int64     `parquet:"student_loan_due"`
	Vehicle   int64     `parquet:"vehicle_loan_due"`
	HardPulls int64     `parquet:"hard_pulls"`
	Missed2y  int64     `parquet:"missed_payments_2y"`
	Missed1y  int64     `parquet:"missed_payments_1y"`
	Missed6m  int64     `parquet:"missed_payments_6m"`
	Bankrupt  int64     `parquet:"bankruptcies"`
	Created   time.Time `parquet:"created_timestamp,timestamp(microsecond)"`
}

func main() {
	if err := run("data/credit_history_sample.csv", "data/credit_history.parquet"); err != nil {
		log.Fatal(err)
	}
}

func run(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	rows, err := read(in)
	if err != nil {
		return fmt.Errorf("read %s: %w", from, err)
	}
	return parquet.WriteFile(to, rows, parquet.Compression(&parquet.Zstd))
}

func read(r io.Reader) ([]row, error) {
	records, err := csv.NewReader(r).ReadAll()
	if err != nil {
		return nil, err
	}
	rows := make([]row, 0, len(records))
	for i, rec := range records[1:] {
		v := row{Applicant: rec[1]}
		if v.Event, err = time.Parse("2006-01-02 15:04:05.999999", rec[0]); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+2, err)
		}
		if v.Created, err = time.Parse("2006-01-02 15:04:05.999999", rec[11]); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+2, err)
		}
		for j, to := range []*int64{&v.Card, &v.Mortgage, &v.Student, &v.Vehicle, &v.HardPulls, &v.Missed2y, &v.Missed1y, &v.Missed6m, &v.Bankrupt} {
			if *to, err = strconv.ParseInt(rec[j+2], 10, 64); err != nil {
				return nil, fmt.Errorf("line %d: %w", i+2, err)
			}
		}
		rows = append(rows, v)
	}
	return rows, nil
}
