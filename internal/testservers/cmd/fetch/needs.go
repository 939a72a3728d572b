//go:build unix

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"github.com/hearthstore/hearth/internal/testservers"
)

// need is one thing that the tests use.
type need struct {
	name string
	// check returns nil when the thing is there.
	check func(context.Context) error
	// packages are Debian packages; of alternatives "a|b" the first that the
	// package lists know is taken.
	packages func() []string
	// manual tells what to install on a system without apt-get.
	manual string
	// fetch does the rest once the packages are installed; may be nil.
	fetch func(context.Context) error
}

const (
	minJava = 17
	locale  = "en_US.UTF-8"
	// javaPackages: Debian releases carry different long-term versions.
	javaPackages = "openjdk-17-jre-headless|openjdk-21-jre-headless|openjdk-25-jre-headless"
)

var redisServer = need{
	name:     "redis-server",
	check:    func(context.Context) error { return lookPath("redis-server") },
	packages: func() []string { return []string{"redis-server"} },
	manual:   "redis-server 7.0 or newer",
}

var java = need{
	name:     "java",
	check:    checkJava,
	packages: func() []string { return []string{javaPackages} },
	manual:   fmt.Sprintf("a Java runtime, version %d or newer", minJava),
}

// enUS is the locale of a test that wants Redis to run in one where strings
// do not collate by bytes.
var enUS = need{
	name:  "locale " + locale,
	check: checkLocale,
	packages: func() []string {
		if lookPath("localedef") == nil && isFile("/usr/share/i18n/locales/en_US") {
			return nil
		}
		return []string{"locales"}
	},
	manual: "the locale " + locale,
	fetch: func(ctx context.Context) error {
		if runtime.GOOS != "linux" {
			return fmt.Errorf("make the locale %s available", locale)
		}
		return runRoot(ctx, "localedef", "-i", "en_US", "-f", "UTF-8", locale)
	},
}

var dynamoDBLocal = need{
	name:     "DynamoDB Local " + testservers.DynamoDBLocalVersion,
	check:    func(context.Context) error { return checkCached(testservers.DynamoDBLocalDir) },
	packages: func() []string { return packageUnless("mvn", "maven") },
	manual:   "Maven (mvn)",
	fetch:    fetchDynamoDBLocal,
}

var dynoxide = need{
	name:     "dynoxide " + testservers.DynoxideVersion,
	check:    func(context.Context) error { return checkCached(testservers.DynoxideDir) },
	packages: func() []string { return packageUnless("npm", "npm") },
	manual:   "npm",
	fetch:    fetchDynoxide,
}

func lookPath(name string) error {
	_, err := exec.LookPath(name)
	return err
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func packageUnless(program, pkg string) []string {
	if lookPath(program) == nil {
		return nil
	}
	return []string{pkg}
}

func checkCached(dir func() (string, error)) error {
	d, err := dir()
	if err != nil {
		return err
	}
	if !testservers.Complete(d) {
		return fmt.Errorf("not in %s", d)
	}
	return nil
}

// javaVersion finds 17 in: openjdk version "17.0.15" 2025-04-15
var javaVersion = regexp.MustCompile(`version "(\d+)`)

func checkJava(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "java", "-version").CombinedOutput()
	if err != nil {
		return fmt.Errorf("java -version: %w", err)
	}
	m := javaVersion.FindSubmatch(out)
	if m == nil {
		return fmt.Errorf("java -version: no version in %q", out)
	}
	if v, err := strconv.Atoi(string(m[1])); err != nil || v < minJava {
		return fmt.Errorf("java is version %s, needed is %d", m[1], minJava)
	}
	return nil
}

func checkLocale(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "locale", "-a").Output()
	if err != nil {
		return fmt.Errorf("locale -a: %w", err)
	}
	for l := range strings.Lines(string(out)) {
		if l = strings.ToLower(strings.TrimSpace(l)); l == "en_us.utf8" || l == "en_us.utf-8" {
			return nil
		}
	}
	return fmt.Errorf("locale %s does not exist", locale)
}

// pom makes Maven resolve DynamoDB Local with everything it needs at run time,
// which includes the native SQLite library.
const pom = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>hearth.test</groupId>
  <artifactId>dynamodb-local</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>com.amazonaws</groupId>
      <artifactId>DynamoDBLocal</artifactId>
      <version>%s</version>
    </dependency>
  </dependencies>
</project>
`

// fetchDynamoDBLocal lets Maven, which checks the digests, copy the jars. They
// are under Amazon's own licence: for development and tests, not to be shipped.
func fetchDynamoDBLocal(ctx context.Context) error {
	return install(testservers.DynamoDBLocalDir, func(tmp string) error {
		work, err := os.MkdirTemp("", "hearth-fetch-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(work) //nolint:errcheck // a temporary folder
		text := fmt.Sprintf(pom, testservers.DynamoDBLocalVersion)
		if err := os.WriteFile(filepath.Join(work, "pom.xml"), []byte(text), 0o600); err != nil {
			return err
		}
		return runIn(ctx, work, "mvn", "-q", "-B", "dependency:copy-dependencies",
			"-DincludeScope=runtime", "-DoutputDirectory="+tmp)
	})
}

// dynoxideDigest pins the binary that was looked at.
const dynoxideDigest = "be909b7910d3fb552e85db10ef3c8ebae4bd35fee0f26dffdb6dfa5cc656426e"

func fetchDynoxide(ctx context.Context) error {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return fmt.Errorf("there is no checked build for %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	return install(testservers.DynoxideDir, func(tmp string) error {
		work, err := os.MkdirTemp("", "hearth-fetch-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(work) //nolint:errcheck // a temporary folder
		if err := runIn(ctx, work, "npm", "install", "--silent", "--no-audit", "--no-fund", "--no-save",
			"--ignore-scripts", "--prefix", work, "@dynoxide/linux-x64@"+testservers.DynoxideVersion); err != nil {
			return err
		}
		src, err := findFile(work, "dynoxide")
		if err != nil {
			return err
		}
		return copyChecked(src, filepath.Join(tmp, "dynoxide"), dynoxideDigest)
	})
}

// findFile looks for the regular file name below dir.
func findFile(dir, name string) (string, error) {
	var found string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && d.Name() == name {
			found = path
			return filepath.SkipAll
		}
		return err
	})
	if err == nil && found == "" {
		err = fmt.Errorf("no file %s in the package", name)
	}
	return found, err
}

func copyChecked(src, dst, digest string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(out, h), in)
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != digest {
		return fmt.Errorf("%s has the SHA-256 digest %s, expected was %s", filepath.Base(src), got, digest)
	}
	return nil
}

// install fills a folder beside the final one and moves it into place when it
// is whole, so that an interrupted fetch leaves nothing that looks finished.
func install(where func() (string, error), fill func(tmp string) error) error {
	dir, err := where()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".part-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // gone already when all went well
	if err := fill(tmp); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tmp, testservers.CompleteMark), nil, 0o600); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}
