package postgres

// InboundQuery is the query behind InboundTrunk, to be explained.
const InboundQuery = inboundQuery

// BacklogsQuery is the query behind Backlogs, to be explained.
const BacklogsQuery = backlogsQuery

// PruneBatch is how many jobs are removed at a time.
const PruneBatch = pruneBatch
