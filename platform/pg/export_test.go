package pg

// Prepares is how many statements the server was asked to prepare.
func (db *DB) Prepares() int64 { return db.prepares.Load() }
