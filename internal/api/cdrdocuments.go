package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
)

// CDRDocument is a document of a switch that made no call record.
type CDRDocument struct {
	ID          int64      `json:"id"`
	LegID       *uuid.UUID `json:"legId,omitempty" format:"uuid" doc:"As the sender named it."`
	State       string     `json:"state" enum:"unreadable,unassigned"`
	Reason      string     `json:"reason" doc:"What is wrong with it."`
	Source      string     `json:"source" enum:"post,sweep"`
	Sender      string     `json:"sender" doc:"Address, or name of the file."`
	ContentType string     `json:"contentType,omitempty"`
	Size        int        `json:"size" doc:"Bytes."`
	Attempts    int        `json:"attempts"`
	ReceivedAt  time.Time  `json:"receivedAt"`
	Body        []byte     `json:"body,omitempty" doc:"The document as it came, in base64; not in lists."`
}

func documentOf(d cdr.KeptDocument) CDRDocument {
	return CDRDocument{
		ID: d.ID, LegID: optional(d.LegID), State: string(d.State), Reason: d.Error, Source: d.Source, Sender: d.Sender, ContentType: d.ContentType,
		Size: d.Size, Attempts: d.Attempts, ReceivedAt: d.ReceivedAt.UTC(), Body: d.Body,
	}
}

func (a *API) registerCDRDocuments() {
	handle(a, adminOperation("list-cdr-documents", http.MethodGet, "/cdr-documents", "List documents of switches that made no call record", 422), a.listDocuments)
	handle(a, adminOperation("get-cdr-document", http.MethodGet, "/cdr-documents/{id}", "Get such a document, as it came", 404, 422), a.getDocument)
	handle(a, adminOperation("retry-cdr-document", http.MethodPost, "/cdr-documents/{id}/retry", "Read such a document once more", 404, 422), a.retryDocument)
	handle(a, adminOperation("discard-cdr-document", http.MethodDelete, "/cdr-documents/{id}", "Remove such a document, for good", 404, 422), a.discardDocument)
}

func (a *API) listDocuments(ctx context.Context, in *struct {
	Paged
	State string `query:"state" enum:"unreadable,unassigned" default:"unreadable"`
},
) (*body[page[CDRDocument]], error) {
	parts, err := parseCursor(in.Cursor, 1)
	if err != nil {
		return nil, err
	}
	var after int64
	if in.Cursor != "" {
		if after, err = strconv.ParseInt(parts[0], 10, 64); err != nil {
			return nil, errCursor
		}
	}
	docs, err := a.store.KeptDocuments(ctx, cdr.DocumentState(in.State), after, in.Limit+1)
	if err != nil {
		return nil, err
	}
	list := make([]CDRDocument, len(docs))
	for i, d := range docs {
		list[i] = documentOf(d)
	}
	return &body[page[CDRDocument]]{cut(list, in.Limit, func(d CDRDocument) string { return newCursor(strconv.FormatInt(d.ID, 10)) })}, nil
}

// ByDocument are the parameters of a route about one document.
type ByDocument struct {
	ID int64 `path:"id"`
}

func (a *API) getDocument(ctx context.Context, in *ByDocument) (*body[CDRDocument], error) {
	d, err := a.store.KeptDocument(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &body[CDRDocument]{documentOf(d)}, nil
}

func (a *API) retryDocument(ctx context.Context, in *ByDocument) (*struct{}, error) {
	return nil, a.store.RetryDocument(ctx, in.ID, infoOf(ctx).operator.Actor())
}

func (a *API) discardDocument(ctx context.Context, in *ByDocument) (*struct{}, error) {
	return nil, a.store.DiscardDocument(ctx, in.ID, infoOf(ctx).operator.Actor())
}
