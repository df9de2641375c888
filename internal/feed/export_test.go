package feed

// Pages are small in all tests, so that there is always more than one.
func init() { pageSize = 3 }
