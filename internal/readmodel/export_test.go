package readmodel

// CreateBeside is what a snapshot is written to before it takes its place.
var CreateBeside = createBeside
