package pg

import "github.com/lib/pq"

// Strings is a text[] column.
type Strings = pq.StringArray
