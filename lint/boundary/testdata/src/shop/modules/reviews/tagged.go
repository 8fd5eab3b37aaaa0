//go:build failpoints

package reviews

import _ "shop/modules/users"
