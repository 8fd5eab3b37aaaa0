package db

import _ "shop/platform/ids" // want `db must not import platform/ids: it imports nothing of ours`
