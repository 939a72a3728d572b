package feature

// Warmth says which shards of the tier hold data.
type Warmth struct {
	Reachable bool          `json:"reachable"` // every shard answered
	Cold      bool          `json:"cold"`      // at least one shard that answered is cold
	Shards    []ShardWarmth `json:"shards"`    // ordered by address; one for a single server
	MarkerRun uint64        `json:"marker_run"`
}

// ShardWarmth is one shard: a master and the slots it owns.
//
// A shard is cold when it answers and fewer than half of its markers are there. Half is
// robust in both directions: a lost shard has none, while eviction takes markers only in
// proportion to everything else (each check reads them, so that LRU and LFU keep them, and
// volatile policies never evict what has no expiry). A shard without markers of its own,
// because it owns few slots, is cold when it holds no key at all.
type ShardWarmth struct {
	Addr      string `json:"addr"`
	Reachable bool   `json:"reachable"`
	Cold      bool   `json:"cold"`
	Markers   int    `json:"markers"` // markers that belong to the shard
	Present   int    `json:"present"`
	Keys      int64  `json:"keys"` // of every project on the server
	// Instance tells the process that answered from every other: after a restart or a
	// failover it is another one, which may lack what was acknowledged last. "" where the
	// server does not say.
	Instance string `json:"-"`
	Err      error  `json:"-"` // why it is not reachable
}

// OnlineInfo is what the servers of the online tier say about themselves.
type OnlineInfo struct {
	UsedMemory int64  `json:"used_memory"` // bytes, sum of all masters; 0 for the embedded server
	MaxMemory  int64  `json:"max_memory"`  // bytes, sum of all masters; 0 when one has no limit
	Keys       int64  `json:"keys"`        // of every project, sum of all masters
	Policy     string `json:"policy"`      // maxmemory-policy; several, joined by commas, when the masters differ
	Version    string `json:"version"`     // server version; "embedded" for the embedded server
	Masters    int    `json:"masters"`
}
