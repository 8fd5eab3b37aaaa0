package pg

import (
	"database/sql"

	_ "github.com/lib/pq"
)

func open() { sql.Open("postgres", "") }
