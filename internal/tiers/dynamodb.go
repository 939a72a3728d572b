package tiers

import (
	"context"
	"fmt"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/backing/dynamodb"
	"github.com/hearthstore/hearth/internal/config"
)

func openDynamoDB(ctx context.Context, d *config.DynamoDB, deps Deps) (backing.Store, error) {
	s, err := dynamodb.Open(ctx, dynamodb.Config{
		Table: d.Table, StateTable: d.StateTable, Region: d.Region, Endpoint: d.Endpoint,
		MaxWriteUnits: float64(d.MaxWriteUnits), MaxReadUnits: float64(d.MaxReadUnits),
		NoDeletionProtection: !d.DeletionProtection, NoPointInTimeRecovery: !d.PointInTimeRecovery,
		Logger: deps.Logger, Clock: deps.Clock,
	})
	if err != nil {
		return nil, fmt.Errorf("open backing tier: %w", err)
	}
	return s, nil
}
