package rewarm

import (
	"context"

	"github.com/hearthstore/hearth/rewarm/export"
)

// FromExport makes an export of the table what a rewarm reads instead of the table: it is
// for Config.Backing, with Config.Source set to the export's name.
//
// Such a run brings back what the table held when it was exported. It never marks the
// online tier warm, has no hot-first phase (the keys of an export cannot be read singly at
// a fair price), and a key that was deleted since is back until a rewarm from the table.
func FromExport(e *export.Export) Backing { return exported{e} }

type exported struct{ *export.Export }

// Table is what the manifest says.
func (e exported) Table(context.Context) (Table, error) {
	items, size := e.Size()
	return Table{Name: e.Name(), Items: items, Bytes: size}, nil
}
