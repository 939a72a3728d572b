package newest

// Set is a set of places of rows, by file.
type Set [][]uint64

// NewSet makes a set of places; negative ones are left out.
func NewSet(places []int64) Set {
	var set Set
	for _, p := range places {
		if p < 0 {
			continue
		}
		file, row := int(p>>fileShift), uint64(p&(FileRows-1))
		for len(set) <= file {
			set = append(set, nil)
		}
		if word := int(row / 64); word >= len(set[file]) {
			set[file] = append(set[file], make([]uint64, word+1-len(set[file]))...)
		}
		set[file][row/64] |= 1 << (row % 64)
	}
	return set
}

// Has reports whether a place is in the set: 1 or 0, without a branch on it.
func (s Set) Has(place int64) int64 {
	file, row := int(place>>fileShift), uint64(place&(FileRows-1))
	if file >= len(s) || row/64 >= uint64(len(s[file])) {
		return 0
	}
	return int64(s[file][row/64] >> (row % 64) & 1)
}
