package config

import (
	"fmt"
	"strings"
)

// interpolate fills in ${NAME} from the environment. "$${" stands for a literal "${". had
// says whether a variable was in the text.
func (d *decoder) interpolate(p Pos, text string) (filled string, had bool) {
	if !strings.Contains(text, "${") {
		return text, false
	}
	var b strings.Builder
	for {
		i := strings.Index(text, "${")
		if i < 0 {
			b.WriteString(text)
			return b.String(), had
		}
		if i > 0 && text[i-1] == '$' {
			b.WriteString(text[:i-1] + "${")
			text = text[i+2:]
			continue
		}
		b.WriteString(text[:i])
		name, rest, closed := strings.Cut(text[i+2:], "}")
		if !closed || !validEnvName(name) {
			d.add(p, "a ${…} here is no variable", "write ${NAME}, or $${ for the characters ${")
			b.WriteString("${")
			text = text[i+2:]
			continue
		}
		had = true
		value, ok := d.env(name)
		if !ok {
			d.add(p, fmt.Sprintf("environment variable %s is not set", name), fmt.Sprintf("set it, or write $${%s} for the literal text", name))
			defer func() { d.unset[p] = true }()
		}
		b.WriteString(value)
		text = rest
	}
}

func validEnvName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}
