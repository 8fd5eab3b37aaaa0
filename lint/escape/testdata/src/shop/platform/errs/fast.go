package errs

import _ "unsafe"
