package fleet

// What the tests look at from inside.
var (
	Judge   = judge
	Backoff = backoff
)

// MaxAttempts is when a job is given up.
const MaxAttempts = maxAttempts

// Reason returns what a verdict says; empty if the registration may stay.
func (v verdict) Reason() string { return v.reason }
