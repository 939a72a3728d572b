package main

import (
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/hearthstore/hearth/internal/config"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help is shown by hearth completion --help.
func (completionCmd) Help() string {
	return `Prints a script that makes the shell complete commands, flags, and the names of jobs,
datasets, views and services from the hearth.yaml at hand.

Examples:
  source <(hearth completion bash)                                      # now; or in ~/.bashrc
  source <(hearth completion zsh)                                       # now; or in ~/.zshrc
  hearth completion fish > ~/.config/fish/completions/hearth.fish`
}

// The scripts hand the words of the line to "hearth complete", so that what is completed
// is always what this binary knows. With no candidate the shell completes files.
var completionScripts = map[string]string{
	"bash": `_hearth() {
  local IFS=$'\n'
  COMPREPLY=($(hearth complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
  [ "${#COMPREPLY[@]}" -gt 0 ] || compopt -o default
}
complete -F _hearth hearth
`,
	"zsh": `#compdef hearth
_hearth() {
  local -a found
  found=("${(@f)$(hearth complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n "${found[1]}" ]]; then compadd -a found; else _files; fi
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _hearth hearth
`,
	"fish": `function __hearth_complete
  set -l words (commandline -opc) (commandline -ct | string collect --allow-empty)
  set -l found (hearth complete -- $words[2..-1] 2>/dev/null)
  if test (count $found) -gt 0
    string join \n -- $found
  else
    __fish_complete_path (commandline -ct)
  end
end
complete -c hearth -f -a '(__hearth_complete)'
`,
}

// Run carries out the command.
func (c *completionCmd) Run(e *env) error {
	_, err := io.WriteString(e.out, completionScripts[c.Shell])
	return err
}

// completeCmd answers the scripts.
type completeCmd struct {
	Words []string `arg:"" optional:""`
}

// Run carries out the command.
func (c *completeCmd) Run(e *env) error {
	if len(c.Words) == 0 {
		c.Words = []string{""}
	}
	names := func(kind string) []string { return configNames(configOf(c.Words, e.cli.Config), kind) }
	for _, word := range candidates(e.model, c.Words, names) {
		if _, err := io.WriteString(e.out, word+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// candidates lists what the last word can become. names lists what the configuration
// declares of a kind.
func candidates(root *kong.Node, words []string, names func(kind string) []string) []string {
	at, typed := root, words[len(words)-1]
	var pending *kong.Flag // the flag whose value comes next
	for _, word := range words[:len(words)-1] {
		switch {
		case pending != nil:
			pending = nil
		case strings.HasPrefix(word, "-"):
			if flag := flagOf(at, word); flag != nil && !flag.IsBool() && !strings.Contains(word, "=") {
				pending = flag
			}
		default:
			if i := slices.IndexFunc(at.Children, func(n *kong.Node) bool { return n.Name == word }); i >= 0 {
				at = at.Children[i]
			}
		}
	}
	var all []string
	switch {
	case pending != nil:
		all = valuesOf(pending.Value, at, names)
	case strings.HasPrefix(typed, "-"):
		for n := at; n != nil; n = n.Parent {
			for _, flag := range n.Flags {
				if !flag.Hidden {
					all = append(all, "--"+flag.Name)
				}
			}
		}
	default:
		for _, child := range at.Children {
			if !child.Hidden {
				all = append(all, child.Name)
			}
		}
		for _, arg := range at.Positional {
			all = append(all, valuesOf(arg, at, names)...)
		}
	}
	all = slices.DeleteFunc(all, func(s string) bool { return !strings.HasPrefix(s, typed) })
	slices.Sort(all)
	return slices.Compact(all)
}

// flagOf finds a flag of the command or of those above it.
func flagOf(at *kong.Node, word string) *kong.Flag {
	name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
	for n := at; n != nil; n = n.Parent {
		for _, flag := range n.Flags {
			if flag.Name == name || len(name) == 1 && string(flag.Short) == name {
				return flag
			}
		}
	}
	return nil
}

// valuesOf lists the words that a flag or argument accepts, as far as they are known.
func valuesOf(v *kong.Value, at *kong.Node, names func(kind string) []string) []string {
	if v.Enum != "" {
		return strings.Split(v.Enum, ",")
	}
	switch at.FullPath() + " " + v.Name {
	case "hearth jobs run name", "hearth jobs history job":
		return names("job")
	case "hearth dataset build name":
		return names("dataset")
	case "hearth push view", "hearth retire view":
		return names("view")
	}
	switch v.Name {
	case "feature-service":
		return names("service")
	case "feature-views":
		return names("view")
	}
	return nil
}

// configOf finds the configuration file that the line names.
func configOf(words []string, byDefault string) string {
	for i, word := range words[:len(words)-1] {
		if path, ok := strings.CutPrefix(word, "--config="); ok {
			return path
		}
		if (word == "-c" || word == "--config") && i+1 < len(words)-1 {
			return words[i+1]
		}
	}
	return byDefault
}

// configNames lists what the file declares. One that cannot be read declares nothing:
// completing is no place to complain.
func configNames(path, kind string) []string {
	cfg, err := config.Load(path)
	if err != nil {
		return nil
	}
	var names []string
	switch kind {
	case "job":
		for _, j := range cfg.Jobs {
			names = append(names, j.Name)
		}
	case "dataset":
		for _, d := range cfg.Datasets {
			names = append(names, d.Name)
		}
	case "service":
		for _, s := range cfg.Project.Services {
			names = append(names, s.Name)
		}
	case "view":
		for i := range cfg.Project.Views {
			v := &cfg.Project.Views[i]
			if v.Version == 1 {
				names = append(names, v.Name)
			} else {
				names = append(names, v.ID().String())
			}
		}
	}
	return names
}
