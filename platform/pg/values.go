package pg

import (
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/lib/pq"
)

// Array makes a slice of strings, numbers, bools or times an SQL array parameter: WHERE id = ANY($1), unnest($1::text[]).
// A nil slice is an empty array, not NULL.
func Array(slice any) any {
	if v := reflect.ValueOf(slice); v.Kind() == reflect.Slice && v.IsNil() {
		return "{}"
	}
	return pq.Array(slice)
}

// JSON scans and stores V as a jsonb column. NULL scans as V's zero value.
type JSON[T any] struct{ V T }

var (
	_ driver.Valuer = JSON[int]{}
	_ sql.Scanner   = (*JSON[int])(nil)
)

// Value is a string, not bytes: those would go to the server as binary, which jsonb spells differently, when unprepared.
func (j JSON[T]) Value() (driver.Value, error) {
	b, err := json.Marshal(j.V)
	return string(b), err
}

func (j *JSON[T]) Scan(src any) error {
	var zero T
	j.V = zero
	switch src := src.(type) {
	case nil:
		return nil
	case []byte:
		return json.Unmarshal(src, &j.V)
	case string:
		return json.Unmarshal([]byte(src), &j.V)
	}
	return fmt.Errorf("scan %T as JSON", src)
}
