package testdb

// WithDatabase is under test by itself because a test run has a connection string of one form only.
var WithDatabase = withDatabase
