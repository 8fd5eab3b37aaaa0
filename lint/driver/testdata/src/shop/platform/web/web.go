package web

import _ "github.com/lib/pq" // want `only platform/pg imports lib/pq`
