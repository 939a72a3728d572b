package dynamodb

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	ddb "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
)

// tableSpec is what one table has to be.
type tableSpec struct {
	name      string
	hash      string
	sort      string
	pitr      bool
	protected bool
}

func (s *Store) tables() []tableSpec {
	return []tableSpec{
		{name: s.cfg.Table, hash: "e", sort: "v", pitr: !s.cfg.NoPointInTimeRecovery, protected: !s.cfg.NoDeletionProtection},
		{name: s.cfg.StateTable, hash: "k", sort: "n", protected: !s.cfg.NoDeletionProtection},
	}
}

const ttlAttribute = "x"

// Describe reports the table of values; the counts are DynamoDB's own, up to six hours old.
func (s *Store) Describe(ctx context.Context) (backing.Description, error) {
	d := backing.Description{Kind: "dynamodb", Name: s.cfg.Table, Location: s.where()}
	t, err := s.describeTable(ctx, s.cfg.Table)
	if err != nil {
		// A refusal is an answer.
		d.Reachable = errors.Is(err, feature.ErrDenied) && code(err) != "" || errors.Is(err, feature.ErrThrottled)
		return d, err
	}
	d.Reachable = true
	if t == nil {
		return d, nil
	}
	if err := checkSchema(s.tables()[0], t); err != nil {
		return d, err
	}
	d.Applied = true
	d.Items, d.Bytes = aws.ToInt64(t.ItemCount), aws.ToInt64(t.TableSizeBytes)
	d.Billing = "provisioned"
	if t.BillingModeSummary != nil && t.BillingModeSummary.BillingMode == types.BillingModePayPerRequest {
		d.Billing = "on-demand"
	}
	return d, nil
}

// Plan implements backing.Store.
func (s *Store) Plan(ctx context.Context) ([]backing.Action, error) { return s.reconcile(ctx, false) }

// Apply implements backing.Store. Existing tables keep their billing mode, encryption and
// whatever else this package does not need.
func (s *Store) Apply(ctx context.Context) ([]backing.Action, error) { return s.reconcile(ctx, true) }

func (s *Store) reconcile(ctx context.Context, apply bool) ([]backing.Action, error) {
	var (
		actions []backing.Action
		problem error
	)
	// Every table is looked at before any is changed, so that all errors come at once.
	found := make([]*types.TableDescription, len(s.tables()))
	for i, spec := range s.tables() {
		t, err := s.describeTable(ctx, spec.name)
		if err == nil && t != nil {
			err = checkSchema(spec, t)
		}
		found[i], problem = t, errors.Join(problem, err)
	}
	if problem != nil {
		return nil, problem
	}
	for i, spec := range s.tables() {
		more, err := s.reconcileTable(ctx, spec, found[i], apply)
		actions = append(actions, more...)
		if err != nil {
			return actions, err
		}
	}
	return actions, nil
}

func checkSchema(spec tableSpec, t *types.TableDescription) error {
	kinds := map[string]types.ScalarAttributeType{}
	for _, a := range t.AttributeDefinitions {
		kinds[aws.ToString(a.AttributeName)] = a.AttributeType
	}
	var have []string
	for _, k := range t.KeySchema {
		role := "partition key"
		if k.KeyType == types.KeyTypeRange {
			role = "sort key"
		}
		have = append(have, fmt.Sprintf("%s %s (%s)", role, aws.ToString(k.AttributeName), kinds[aws.ToString(k.AttributeName)]))
	}
	want := fmt.Sprintf("partition key %s (S), sort key %s (S)", spec.hash, spec.sort)
	if got := strings.Join(have, ", "); got != want {
		return fmt.Errorf("dynamodb table %s: %w: it has %s, but Hearth needs %s; choose another name in backing.dynamodb or delete the table", spec.name, feature.ErrInvalid, got, want)
	}
	return nil
}

// describeTable returns nil for a table that does not exist.
func (s *Store) describeTable(ctx context.Context, name string) (*types.TableDescription, error) {
	var out *ddb.DescribeTableOutput
	err := s.retry(ctx, func() (err error) {
		out, err = s.client.DescribeTable(ctx, &ddb.DescribeTableInput{TableName: &name})
		return err
	})
	var missing *types.ResourceNotFoundException
	switch {
	case errors.As(err, &missing):
		return nil, nil
	case err != nil:
		return nil, s.wrap("describe", name, err)
	}
	return out.Table, nil
}

func (s *Store) reconcileTable(ctx context.Context, spec tableSpec, t *types.TableDescription, apply bool) ([]backing.Action, error) {
	var actions []backing.Action
	note := func(resource, change, detail string) {
		actions = append(actions, backing.Action{Resource: resource, Name: spec.name, Change: change, Detail: detail})
	}
	if t == nil {
		if apply {
			if err := s.createTable(ctx, spec); err != nil {
				return actions, err
			}
		}
		note("table", backing.ChangeCreate, fmt.Sprintf("on-demand, partition key %s, sort key %s%s", spec.hash, spec.sort, s.encryptionDetail()))
	} else {
		note("table", backing.ChangeNone, "")
		if t.TableStatus == types.TableStatusCreating && apply {
			if err := s.waitActive(ctx, spec.name); err != nil {
				return actions, err
			}
		}
	}
	steps := []struct {
		resource, detail string
		want             bool
		is               func() (bool, error)
		set              func() error
	}{
		{"deletion protection", "", spec.protected, func() (bool, error) { return t != nil && aws.ToBool(t.DeletionProtectionEnabled), nil },
			func() error {
				_, err := s.client.UpdateTable(ctx, &ddb.UpdateTableInput{TableName: &spec.name, DeletionProtectionEnabled: aws.Bool(true)})
				return err
			}},
		{"time to live", "attribute " + ttlAttribute, true, func() (bool, error) { return s.hasTTL(ctx, spec.name, t) },
			func() error {
				_, err := s.client.UpdateTimeToLive(ctx, &ddb.UpdateTimeToLiveInput{TableName: &spec.name,
					TimeToLiveSpecification: &types.TimeToLiveSpecification{AttributeName: aws.String(ttlAttribute), Enabled: aws.Bool(true)}})
				return err
			}},
		{"point-in-time recovery", "", spec.pitr, func() (bool, error) { return s.hasPITR(ctx, spec.name, t) },
			func() error {
				_, err := s.client.UpdateContinuousBackups(ctx, &ddb.UpdateContinuousBackupsInput{TableName: &spec.name,
					PointInTimeRecoverySpecification: &types.PointInTimeRecoverySpecification{PointInTimeRecoveryEnabled: aws.Bool(true)}})
				return err
			}},
	}
	for _, step := range steps {
		if !step.want {
			continue
		}
		change, err := s.reconcileStep(ctx, t == nil, step.is, step.set, apply)
		if err != nil {
			return actions, s.wrap("set "+step.resource, spec.name, err)
		}
		detail := step.detail
		if change == backing.ChangeUnsupported {
			detail = "not supported here"
		}
		note(step.resource, change, detail)
	}
	return actions, nil
}

// reconcileStep brings one setting of a table in place. missing says that the table does not
// exist, or did not until now, so there is nothing to ask about it before it is made.
func (s *Store) reconcileStep(ctx context.Context, missing bool, is func() (bool, error), set func() error, apply bool) (string, error) {
	if missing && !apply {
		return backing.ChangeCreate, nil
	}
	on, err := is()
	switch {
	case unsupported(err):
		return backing.ChangeUnsupported, nil
	case err != nil:
		return "", err
	case on:
		return backing.ChangeNone, nil
	case !apply:
		return backing.ChangeUpdate, nil
	}
	if err := s.retrySetting(ctx, set); unsupported(err) {
		return backing.ChangeUnsupported, nil
	} else if err != nil {
		return "", err
	}
	if missing {
		return backing.ChangeCreate, nil
	}
	return backing.ChangeUpdate, nil
}

// unsupported recognises an endpoint that does not know an operation.
func unsupported(err error) bool {
	switch code(err) {
	case "UnknownOperationException", "UnknownOperation", "NotImplemented", "UnsupportedOperationException", "InvalidAction":
		return true
	}
	return false
}

// retrySetting waits while the table or its backups are not ready for a change.
func (s *Store) retrySetting(ctx context.Context, set func() error) error {
	start := s.clock.Now()
	for n := 0; ; n++ {
		err := s.retry(ctx, set)
		var (
			inUse    *types.ResourceInUseException
			starting *types.ContinuousBackupsUnavailableException
			limit    *types.LimitExceededException
		)
		if !errors.As(err, &inUse) && !errors.As(err, &starting) && !errors.As(err, &limit) {
			return err
		}
		if s.clock.Now().Sub(start) >= settleFor || s.pause(ctx, n+3) != nil {
			return err
		}
	}
}

func (s *Store) hasTTL(ctx context.Context, table string, t *types.TableDescription) (bool, error) {
	if t == nil {
		return false, nil
	}
	out, err := s.client.DescribeTimeToLive(ctx, &ddb.DescribeTimeToLiveInput{TableName: &table})
	if err != nil || out.TimeToLiveDescription == nil {
		return false, err
	}
	d := out.TimeToLiveDescription
	on := d.TimeToLiveStatus == types.TimeToLiveStatusEnabled || d.TimeToLiveStatus == types.TimeToLiveStatusEnabling
	if on && aws.ToString(d.AttributeName) != ttlAttribute {
		return false, fmt.Errorf("%w: time to live is on for attribute %q, Hearth needs %q; turn it off first", feature.ErrInvalid, aws.ToString(d.AttributeName), ttlAttribute)
	}
	return on, nil
}

func (s *Store) hasPITR(ctx context.Context, table string, t *types.TableDescription) (bool, error) {
	if t == nil {
		return false, nil
	}
	out, err := s.client.DescribeContinuousBackups(ctx, &ddb.DescribeContinuousBackupsInput{TableName: &table})
	if err != nil || out.ContinuousBackupsDescription == nil || out.ContinuousBackupsDescription.PointInTimeRecoveryDescription == nil {
		return false, err
	}
	return out.ContinuousBackupsDescription.PointInTimeRecoveryDescription.PointInTimeRecoveryStatus == types.PointInTimeRecoveryStatusEnabled, nil
}

func (s *Store) encryptionDetail() string {
	if s.cfg.KMSKey == "" {
		return ""
	}
	return ", encrypted under KMS key " + s.cfg.KMSKey
}

func (s *Store) createTable(ctx context.Context, spec tableSpec) error {
	in := &ddb.CreateTableInput{
		TableName:   &spec.name,
		BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{
			{AttributeName: &spec.hash, AttributeType: types.ScalarAttributeTypeS},
			{AttributeName: &spec.sort, AttributeType: types.ScalarAttributeTypeS},
		},
		KeySchema: []types.KeySchemaElement{
			{AttributeName: &spec.hash, KeyType: types.KeyTypeHash},
			{AttributeName: &spec.sort, KeyType: types.KeyTypeRange},
		},
	}
	if s.cfg.KMSKey != "" {
		in.SSESpecification = &types.SSESpecification{Enabled: aws.Bool(true), SSEType: types.SSETypeKms}
		if s.cfg.KMSKey != "aws/dynamodb" {
			in.SSESpecification.KMSMasterKeyId = &s.cfg.KMSKey
		}
	}
	err := s.retry(ctx, func() error {
		_, err := s.client.CreateTable(ctx, in)
		return err
	})
	var exists *types.ResourceInUseException
	if err != nil && !errors.As(err, &exists) { // another apply was faster
		return s.wrap("create", spec.name, err)
	}
	return s.waitActive(ctx, spec.name)
}

// settleFor is how long a new table may take.
const settleFor = 5 * time.Minute

func (s *Store) waitActive(ctx context.Context, table string) error {
	start := s.clock.Now()
	for n := 0; ; n++ {
		t, err := s.describeTable(ctx, table)
		if err != nil {
			return err
		}
		if t != nil && (t.TableStatus == types.TableStatusActive || t.TableStatus == types.TableStatusUpdating) {
			return nil
		}
		if s.clock.Now().Sub(start) >= settleFor {
			return fmt.Errorf("dynamodb table %s: %w: it is still being created after %s; run hearth apply again", table, feature.ErrUnreachable, settleFor)
		}
		if err := s.pause(ctx, min(n, 5)); err != nil {
			return s.wrap("wait for the new table", table, err)
		}
	}
}
