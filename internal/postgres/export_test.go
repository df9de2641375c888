package postgres

// DIDQuery is the query behind DID, to be explained.
const DIDQuery = didQuery
