package testservers

import (
	"fmt"
	"os"
	"path/filepath"
)

// Versions of what "make deps" fetches.
const (
	DynamoDBLocalVersion = "2.6.1"
	DynoxideVersion      = "1.2.1"
	FeastVersion         = "0.67.0"
)

// CompleteMark is the file that ends the installation of one thing into the
// cache: a folder without it is half fetched.
const CompleteMark = ".complete"

// CacheDir is the folder outside of the source tree that holds fetched test
// servers and tools: HEARTH_TEST_CACHE, else hearth-test in the user's cache
// folder.
func CacheDir() (string, error) {
	if dir := os.Getenv("HEARTH_TEST_CACHE"); dir != "" {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return "", fmt.Errorf("find the test cache: %w", err)
		}
		return abs, nil
	}
	base := os.Getenv("XDG_CACHE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find the test cache: %w", err)
		}
		base = filepath.Join(home, ".cache")
	}
	return filepath.Join(base, "hearth-test"), nil
}

// DynamoDBLocalDir is the folder of the DynamoDB Local jars.
func DynamoDBLocalDir() (string, error) { return cached("dynamodb-local", DynamoDBLocalVersion) }

// DynoxideDir is the folder of the dynoxide binary.
func DynoxideDir() (string, error) { return cached("dynoxide", DynoxideVersion) }

// FeastDir is the folder of a Python environment with the Feast SDK, and with what the SDK
// brings: pandas, pyarrow, requests.
func FeastDir() (string, error) { return cached("feast", FeastVersion) }

// FeastPython is the interpreter of that environment.
func FeastPython() (string, error) {
	dir, err := FeastDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "bin", "python"), nil
}

func cached(name, version string) (string, error) {
	dir, err := CacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, name, version), nil
}

// Complete says whether the folder was installed to the end.
func Complete(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, CompleteMark))
	return err == nil
}
