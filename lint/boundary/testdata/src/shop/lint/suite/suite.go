package suite

import _ "shop/platform/ids" // want `lint must not import platform/ids`
