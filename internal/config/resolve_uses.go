package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hearthstore/hearth/feature"
)

// references checks a list of feature references and resolves it. It returns nil when
// something is wrong with it.
func references(d *decoder, c *Config, refs []rawRef, listAt Pos, what string) ([]feature.FeatureRef, *feature.Selection) {
	before := len(d.problems)
	var out []feature.FeatureRef
	for i := range refs {
		r := &refs[i]
		at := d.where(&r.ref, r)
		if r.ref == "" {
			if d.has(&r.ref) {
				d.add(at, "the feature reference is empty", "write view:feature, view@2:feature or view:*")
			}
			continue
		}
		ref, err := feature.ParseFeatureRef(r.ref)
		if err != nil {
			d.add(at, fmt.Sprintf("%q is no feature reference", r.ref), "write view:feature, view@2:feature or view:*")
			continue
		}
		ref.As, ref.JoinKeys = r.as, r.joinKeys
		v := c.Project.View(ref.View)
		if v == nil {
			unknownView(d, at, ref.View, c)
			continue
		}
		if ref.Feature != "*" && v.FeatureIndex(ref.Feature) < 0 {
			names := make([]string, len(v.Features))
			for j, f := range v.Features {
				names[j] = f.Name
			}
			unknown(d, at, fmt.Sprintf("feature of view %s", v.ID()), ref.Feature, names)
			continue
		}
		for _, k := range sortedKeys(r.joinKeys) {
			if !slices.ContainsFunc(v.JoinKeys, func(j feature.JoinKey) bool { return j.Name == k }) {
				unknown(d, d.places[d.where(&r.joinKeys).Path+"."+k], fmt.Sprintf("join key of view %s", v.ID()), k, joinKeyNames(v.JoinKeys))
			}
		}
		out = append(out, ref)
	}
	if len(refs) == 0 && listAt.Line > 0 {
		d.add(listAt, what+" selects no feature", `name at least one: features: ["view:*"]`)
	}
	if len(d.problems) > before || len(out) == 0 {
		return nil, nil
	}
	sel, err := c.Project.Resolve(out)
	if err != nil {
		d.add(listAt, err.Error(), "")
		return nil, nil
	}
	seen := map[string]bool{}
	for i := range sel.Order {
		name := sel.Name(i)
		if seen[name] {
			d.add(listAt, fmt.Sprintf("%s selects %q twice, joined by different columns", what, name), "give one of the references a name of its own: as: NAME")
			return nil, nil
		}
		seen[name] = true
	}
	return out, sel
}

func joinKeyNames(keys []feature.JoinKey) []string {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.Name
	}
	return names
}

func unknownView(d *decoder, at Pos, id feature.ViewID, c *Config) {
	var names []string
	for i := range c.Project.Views {
		v := &c.Project.Views[i]
		if v.Version == 1 {
			names = append(names, v.Name)
		} else {
			names = append(names, v.ID().String())
		}
	}
	name := id.Name
	if id.Version != 1 {
		name = id.String()
	}
	unknown(d, at, "feature view", name, names)
}

func resolveServices(d *decoder, doc *document, c *Config) {
	unique(d, "feature service", doc.services, func(s *rawService) (string, any) { return s.name, &s.name })
	c.OnStale = map[string]OnStale{}
	for i := range doc.services {
		s := &doc.services[i]
		refs, _ := references(d, c, s.features, d.at[&s.features], fmt.Sprintf("feature service %q", s.name))
		c.Project.Services = append(c.Project.Services, feature.Service{Name: s.name, Features: refs, Description: s.description})
		c.OnStale[s.name] = OnStale(s.onStale)
	}
}

func resolveDatasets(d *decoder, doc *document, c *Config) {
	unique(d, "dataset", doc.datasets, func(s *rawDataset) (string, any) { return s.Name, &s.Name })
	outputs := map[string]string{}
	for i := range doc.datasets {
		r := &doc.datasets[i]
		ds := r.Dataset
		if ds.Service != "" {
			var names []string
			for j := range doc.services {
				names = append(names, doc.services[j].name)
			}
			if s := c.Project.Service(ds.Service); s == nil {
				unknown(d, d.where(&r.Service), "feature service", ds.Service, names)
			} else if len(s.Features) > 0 {
				ds.Features = s.Features
				// The service has been resolved without a problem, so this cannot fail.
				if sel, err := c.Project.Resolve(s.Features); err == nil {
					ds.Selection = sel
				}
			}
		} else {
			ds.Features, ds.Selection = references(d, c, r.refs, d.at[&r.refs], fmt.Sprintf("dataset %q", ds.Name))
		}
		completeSpine(d, r, &ds)
		if ds.Output.Path == "" && ds.Name != "" {
			ds.Output.Path = d.resolve("out/" + ds.Name)
		}
		if other, ok := outputs[ds.Output.Path]; ok && ds.Output.Path != "" {
			d.add(d.where(&r.Output.Path, &r.Output, r), fmt.Sprintf("datasets %q and %q write to the same folder", other, ds.Name), "give each its own output.path")
		}
		outputs[ds.Output.Path] = ds.Name
		c.Datasets = append(c.Datasets, ds)
	}
}

// completeSpine checks the named join keys against the selection and adds those that the
// file leaves out, under their own names.
func completeSpine(d *decoder, r *rawDataset, ds *Dataset) {
	if ds.Selection == nil {
		return
	}
	complete := map[string]string{}
	for _, g := range ds.Selection.Groups {
		for _, k := range g.View.JoinKeys {
			complete[k.Name] = k.Name
		}
	}
	for _, k := range sortedKeys(ds.Spine.JoinKeys) {
		if _, ok := complete[k]; !ok {
			names := make([]string, 0, len(complete))
			for name := range complete {
				names = append(names, name)
			}
			slices.Sort(names)
			unknown(d, d.places[d.where(&r.Spine.JoinKeys).Path+"."+k], "join key", k, names)
			continue
		}
		complete[k] = ds.Spine.JoinKeys[k]
	}
	ds.Spine.JoinKeys = complete
}

func resolveTiers(d *decoder, doc *document, c *Config) {
	c.Online, c.Backing = doc.online, doc.backing
	if !d.has(&doc.online) {
		c.Online.Embedded = &Embedded{}
	}
	if !d.has(&doc.backing) {
		c.Backing.SQLite = &SQLite{}
		sqliteTable(c.Backing.SQLite).read(d, nil)
	}
	if r := c.Online.Redis; r != nil {
		checkRedis(d, r)
	}
	if t := c.Backing.DynamoDB; t != nil {
		if t.Table == "" && c.Project.Name != "" {
			t.Table = c.Project.Name
			if !validTableName(t.Table) {
				d.add(d.where(t), fmt.Sprintf("project name %q is no table name", t.Table), "name a table of 3 to 255 letters, digits, _ - and .")
			}
		}
		if t.StateTable == "" && t.Table != "" {
			t.StateTable = t.Table + "-state"
		}
		if t.StateTable == t.Table && t.Table != "" {
			d.add(d.where(&t.StateTable, t), "state_table is the same as table", "they hold different things: name another, or remove state_table")
		}
	}
}

func checkRedis(d *decoder, r *Redis) {
	tls := r.TLS != nil && r.TLS.Enabled
	if len(r.Addrs) == 0 && d.has(&r.Addrs) {
		d.add(d.where(&r.Addrs), "no address is given", `write addrs: ["127.0.0.1:6379"]`)
	}
	unique(d, "address", r.Addrs, func(s *string) (string, any) { return *s, s })
	if !r.Cluster && len(r.Addrs) > 1 {
		d.add(d.where(&r.Addrs[1]), fmt.Sprintf("%d addresses for a single server", len(r.Addrs)), "set cluster: true, or keep one address")
	}
	if r.Cluster && r.DB != 0 {
		d.add(d.where(&r.DB), "a Redis Cluster has only database 0", "remove db")
	}
	if r.IAMAuth != nil && r.Username == "" {
		d.add(d.where(r.IAMAuth), "iam_auth needs a user", "set username to the ElastiCache user's name")
	}
	if r.IAMAuth != nil && !tls {
		d.add(d.where(r.IAMAuth), "iam_auth needs TLS", "set tls: {}")
	}
}

func resolveJobs(d *decoder, doc *document, c *Config, o options) {
	unique(d, "job", doc.jobs, func(j *rawJob) (string, any) { return j.Name, &j.Name })
	for i := range doc.jobs {
		r := &doc.jobs[i]
		j := r.Job
		j.Dataset = r.dataset
		j.Pos = d.where(&r.Schedule, r)
		if m := r.materialize; m != nil {
			j.Materialize = &MaterializeJob{FeatureViews: jobViews(d, c, m.views), Full: m.full, Prune: m.prune}
			if m.prune && !m.full {
				d.add(d.where(&m.prune, m), "prune needs full: true", "only a run over every file knows what vanished")
			}
		}
		if w := r.rewarm; w != nil {
			w.FeatureViews = jobViews(d, c, w.views)
			j.Rewarm = &w.RewarmJob
		}
		if b := r.dataset; b != nil && b.Name != "" && c.Dataset(b.Name) == nil {
			names := make([]string, len(c.Datasets))
			for k := range c.Datasets {
				names[k] = c.Datasets[k].Name
			}
			unknown(d, d.where(&b.Name), "dataset", b.Name, names)
		}
		if o.schedule != nil && j.Schedule != "" {
			zone := j.Timezone
			if !validZone(zone) {
				zone = "UTC" // the zone has been complained of in its own place
			}
			if err := o.schedule(j.Schedule, zone); err != nil {
				reason := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "schedule: "), "invalid: ")
				d.add(j.Pos, fmt.Sprintf("%q cannot be a schedule: %s", j.Schedule, reason), `write a cron line ("5 * * * *": minute, hour, day, month, weekday), @hourly, or @every 90s`)
			}
		}
		c.Jobs = append(c.Jobs, j)
	}
}

func jobViews(d *decoder, c *Config, names []string) []feature.ViewID {
	unique(d, "feature view", names, func(s *string) (string, any) { return *s, s })
	var out []feature.ViewID
	for i := range names {
		at := d.where(&names[i])
		id, err := feature.ParseViewID(names[i])
		if err != nil {
			d.add(at, fmt.Sprintf("%q names no feature view", names[i]), `write "name" or "name@2"`)
			continue
		}
		if c.Project.View(id) == nil {
			unknownView(d, at, id, c)
		}
		out = append(out, id)
	}
	return out
}
