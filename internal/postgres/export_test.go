package postgres

// InboundQuery is the query behind InboundTrunk, to be explained.
const InboundQuery = inboundQuery
