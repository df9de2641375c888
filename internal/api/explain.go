package api

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/dialplan"
	"github.com/edgvoip/edgvoip/internal/invalid"
)

// Explanation is where a call would go, and why.
type Explanation struct {
	Kind     string            `json:"kind" doc:"What the route does." example:"agent"`
	Steps    []ExplanationStep `json:"steps" doc:"What the decision went by, in order."`
	Document string            `json:"document" doc:"What FreeSWITCH would get. The UUID of the call is made up."`
}

// ExplanationStep is one thing that a decision went by.
type ExplanationStep struct {
	Subject string `json:"subject" example:"hours"`
	Text    string `json:"text" doc:"For people."`
}

func (a *API) explain(ctx context.Context, in *struct {
	To    string    `query:"to" required:"true" minLength:"1" maxLength:"128" doc:"What is dialled." example:"+390612345678"`
	From  string    `query:"from" required:"true" minLength:"1" maxLength:"320" doc:"Who calls: number@realm for an extension, else a number outside."`
	At    time.Time `query:"at" doc:"When; now if it is not given." example:"2026-12-25T10:00:00+01:00"`
	Trunk string    `query:"trunk" format:"uuid" doc:"The id of the trunk that brings a call from outside; that of the DID if it is not given."`
},
) (*body[Explanation], error) {
	asked := dialplan.Asked{To: in.To, From: in.From, At: in.At, Agents: a.agents, Recordings: a.recordDir}
	// huma has checked its form.
	asked.Trunk, _ = uuid.Parse(in.Trunk)
	if asked.At.IsZero() {
		asked.At = a.now()
	}
	e, err := dialplan.Ask(ctx, a.store, asked)
	if err != nil {
		return nil, inQuery(err)
	}
	out := Explanation{Kind: string(e.Kind), Document: string(e.Document), Steps: make([]ExplanationStep, len(e.Steps))}
	for i, s := range e.Steps {
		out.Steps[i] = ExplanationStep{s.Subject, s.Text}
	}
	return &body[Explanation]{out}, nil
}

// inQuery says that a field at fault is a parameter.
func inQuery(err error) error {
	if f, ok := errors.AsType[*invalid.FieldError](err); ok {
		return &invalid.FieldError{Name: "query." + f.Name, Reason: f.Reason}
	}
	return err
}
