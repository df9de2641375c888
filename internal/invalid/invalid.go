// Package invalid says which field of a request is wrong.
package invalid

// FieldError is an error about one field of a request, fit to be shown to whoever sent it: it never holds the value,
// which may be a secret.
type FieldError struct {
	Name   string // as in the request: sipPassword
	Reason string
}

func (f *FieldError) Error() string { return f.Name + ": " + f.Reason }

// Because returns a *FieldError with the reason that a constructor gave. Constructors of package fstext never repeat
// the value.
func Because(field string, reason error) error {
	return &FieldError{Name: field, Reason: reason.Error()}
}
