package rewarm

// unitPrices are dollars per million on-demand read request units by region: AWS's list
// prices since November 2024. An eventually consistent scan pays one unit per 8 KB. They
// are an estimate for a plan, never a bill; Config.ReadUnitPrice overrides them.
var unitPrices = map[string]float64{
	"us-east-1": 0.125, "us-east-2": 0.125, "us-west-2": 0.125, "us-west-1": 0.1395,
	"ca-central-1": 0.1375, "sa-east-1": 0.1875,
	"eu-west-1": 0.1415, "eu-west-2": 0.1485, "eu-west-3": 0.1485, "eu-central-1": 0.1525, "eu-north-1": 0.1345, "eu-south-1": 0.1485,
	"ap-northeast-1": 0.1425, "ap-northeast-2": 0.1355, "ap-northeast-3": 0.1425, "ap-southeast-1": 0.1425, "ap-southeast-2": 0.1425, "ap-south-1": 0.1425,
	"us-gov-west-1": 0.15, "us-gov-east-1": 0.15,
}

// price is dollars per million read units, and whether it is known.
func (r *Rewarmer) price() (float64, bool) {
	if r.cfg.ReadUnitPrice > 0 {
		return r.cfg.ReadUnitPrice, true
	}
	p, ok := unitPrices[r.cfg.Region]
	return p, ok
}
