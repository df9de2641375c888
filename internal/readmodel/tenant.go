package readmodel

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
)

// TrunkTenant implements dialplan.Store. A tenant is known with its domains; one that has none is asked for in the
// database.
func (m *Model) TrunkTenant(ctx context.Context, tenant uuid.UUID) (directory.Tenant, error) {
	domains, err := m.domainsOf(ctx, tenant)
	if err != nil {
		return directory.Tenant{}, err
	}
	if len(domains) > 0 {
		return domains[0].Tenant, nil
	}
	return ask(ctx, m, "tenant of a trunk "+tenant.String(), isUnknownTenant, func(ctx context.Context) (directory.Tenant, error) {
		return m.opts.Store.TrunkTenant(ctx, tenant)
	})
}

func isUnknownTenant(err error) bool { return errors.Is(err, directory.ErrUnknownTenant) }
