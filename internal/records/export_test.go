package records

// Trust is trust.
func (f *Files) Trust(missing string) error { return f.trust(missing) }
