//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// installPackages installs the system packages that the needs ask for.
func installPackages(ctx context.Context, needs []need) error {
	var names, manual []string
	for _, n := range needs {
		p := n.packages()
		if len(p) > 0 {
			names = append(names, p...)
			manual = append(manual, n.manual)
		}
	}
	if len(names) == 0 {
		return nil
	}
	if lookPath("apt-get") != nil {
		return fmt.Errorf("there is no apt-get here; install by hand and run this again:\n  - %s",
			strings.Join(manual, "\n  - "))
	}
	if err := canBeRoot(ctx); err != nil {
		return fmt.Errorf("%w; as root, run:\n  apt-get update && apt-get install -y --no-install-recommends %s",
			err, strings.Join(firstChoices(names), " "))
	}
	// An installation that meets another one breaks half-way: once more, then.
	err := aptInstall(ctx, names)
	if err != nil && ctx.Err() == nil {
		say("apt-get failed (%v); trying once more", err)
		if err := runRoot(ctx, "dpkg", "--configure", "-a"); err != nil { // what the first left half-way
			say("dpkg --configure -a: %v", err)
		}
		err = aptInstall(ctx, names)
	}
	return err
}

func aptInstall(ctx context.Context, names []string) error {
	// Old package lists name files that the mirror has no more.
	if err := apt(ctx, "update"); err != nil {
		return err
	}
	chosen := make([]string, len(names))
	for i, n := range names {
		var err error
		if chosen[i], err = choose(ctx, n); err != nil {
			return err
		}
	}
	say("apt-get install %s", strings.Join(chosen, " "))
	return apt(ctx, append([]string{"install", "-y", "--no-install-recommends"}, chosen...)...)
}

func apt(ctx context.Context, args ...string) error {
	all := append([]string{"DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=120"}, args...)
	return runRoot(ctx, "env", all...)
}

// choose takes the first of the alternatives "a|b" that can be installed.
func choose(ctx context.Context, name string) (string, error) {
	for alt := range strings.SplitSeq(name, "|") {
		if exec.CommandContext(ctx, "apt-cache", "show", alt).Run() == nil {
			return alt, nil
		}
	}
	return "", fmt.Errorf("apt-get knows none of %s", name)
}

func firstChoices(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i], _, _ = strings.Cut(n, "|")
	}
	return out
}

// canBeRoot says whether commands can run as root without a question.
func canBeRoot(ctx context.Context) error {
	if os.Getuid() == 0 {
		return nil
	}
	if err := exec.CommandContext(ctx, "sudo", "-n", "true").Run(); err != nil {
		return errors.New("installing packages needs root or sudo without a password")
	}
	return nil
}

func runRoot(ctx context.Context, name string, args ...string) error {
	if os.Getuid() != 0 {
		name, args = "sudo", append([]string{"-n", name}, args...)
	}
	return runIn(ctx, "", name, args...)
}

// runIn runs a command without input and shows its output only when it fails.
func runIn(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
