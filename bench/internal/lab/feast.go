package lab

import _ "embed"

// FeastRepo is a Python program that makes a Feast repository in its folder, over the Redis at
// $REDIS, and brings values of $FEATURES features of type $DTYPE there: with $SOURCE by
// materializing these Parquet files, else by writing some for $ENTITIES entities. It prints
// {"seconds": …} of that, without the imports.
//
//go:embed feast_repo.py
var FeastRepo string
