// Package online is the fast tier: feature values in Redis, Redis Cluster, or an embedded
// server that speaks the same protocol through the same client.
//
// A [Store] keeps one value per (view version, entity) under
// "<project>:<view>@<n>:{<entity key>}". It writes a value only if it is newer than what is
// stored, compares versions as numbers inside Redis (a Redis script compares strings by the
// server's locale, which is no order of bytes), gives every value an absolute expiry that a
// repeated write does not prolong, and judges every single command: a failed one never
// passes for a written or an absent value.
//
// Two layouts exist. "blob" stores the payload of package feature as one string: the
// smallest, the fastest, and the same bytes as in the backing tier. "hash" stores one
// readable Redis hash per value for people who read Redis from other languages; see hash.go
// for its fields.
//
// A Redis user needs, on the keys "<project>:*": HELLO, AUTH, SELECT, PING, GET, MGET, SET,
// DEL, EXISTS, EVAL, EVALSHA, SCAN, DBSIZE, INFO, for the layout hash also HGET, HSET,
// HGETALL, HLEN, HKEYS, HDEL, PERSIST and PEXPIREAT, and in a cluster CLUSTER SLOTS and
// COMMAND. Only FlushAll, which the demonstration alone uses, needs FLUSHALL.
//
// The tier is a cache of the backing tier: it may be lost. [Store.MarkWarm] leaves marker
// keys spread over all slots, and [Store.Warmth] tells from them which shards were lost.
package online
