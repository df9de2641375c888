package xmlcurl_test

import (
	"context"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/xmlcurl"
	"github.com/edgvoip/edgvoip/trunk"
)

// brokenStore fails where it is asked for extensions and trunks.
type brokenStore struct{ xmlcurl.Store }

func (brokenStore) Extension(context.Context, fstext.Realm, fstext.Username) (directory.Domain, directory.Extension, error) {
	return directory.Domain{}, directory.Extension{}, errBroken
}

func (brokenStore) ActiveTrunks(context.Context) ([]trunk.Trunk, error) { return nil, errBroken }
