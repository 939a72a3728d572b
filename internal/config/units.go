package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const durationRemedy = "write a number and a unit: 90d, 36h, 15m, 30s, 250ms"

// parseDuration reads one or more numbers with a unit d, h, m, s or ms ("1d12h"); "0"
// needs none. Durations are never negative.
func parseDuration(s string) (time.Duration, error) {
	if s == "0" {
		return 0, nil
	}
	if strings.HasPrefix(s, "-") {
		return 0, fmt.Errorf("a duration cannot be negative")
	}
	rest, total := s, 0.0
	for rest != "" {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789."))
		n, err := strconv.ParseFloat(rest[:digits], 64)
		if err != nil {
			return 0, fmt.Errorf("no duration")
		}
		rest = rest[digits:]
		letters := len(rest) - len(strings.TrimLeft(rest, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZµ"))
		unit, ok := durationUnit(rest[:letters])
		if !ok {
			return 0, fmt.Errorf("no duration")
		}
		rest = rest[letters:]
		total += n * float64(unit)
	}
	if s == "" {
		return 0, fmt.Errorf("no duration")
	}
	if total >= math.MaxInt64 {
		return 0, fmt.Errorf("a duration of more than 290 years")
	}
	return time.Duration(math.Round(total)), nil
}

func durationUnit(s string) (time.Duration, bool) {
	switch s {
	case "d":
		return 24 * time.Hour, true
	case "h":
		return time.Hour, true
	case "m":
		return time.Minute, true
	case "s":
		return time.Second, true
	case "ms":
		return time.Millisecond, true
	}
	return 0, false
}

const sizeRemedy = "write a number and a unit: 512MB, 4GB, 4GiB"

// ParseSize reads a number of bytes with an optional unit: kB, MB, GB, TB are powers of
// 1000, KiB, MiB, GiB, TiB powers of 1024.
func ParseSize(s string) (int64, error) {
	digits := len(s) - len(strings.TrimLeft(s, "0123456789."))
	n, err := strconv.ParseFloat(s[:digits], 64)
	if err != nil {
		return 0, fmt.Errorf("no size")
	}
	factor := 1.0
	unit := strings.ToUpper(strings.TrimSpace(s[digits:]))
	if unit != "" && unit != "B" {
		power := strings.Index("KMGT", unit[:1]) + 1
		switch {
		case power > 0 && (unit[1:] == "B" || unit[1:] == ""):
			factor = math.Pow(1000, float64(power))
		case power > 0 && unit[1:] == "IB":
			factor = math.Pow(1024, float64(power))
		default:
			return 0, fmt.Errorf("no size")
		}
	}
	if n*factor >= math.MaxInt64 {
		return 0, fmt.Errorf("too large a size")
	}
	return int64(n * factor), nil
}

// ParseDuration reads a duration as hearth.yaml writes it: 90d, 36h, 1d12h.
func ParseDuration(s string) (time.Duration, error) { return parseDuration(s) }
