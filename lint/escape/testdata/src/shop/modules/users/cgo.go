//go:build neverset

package users

import "C"
